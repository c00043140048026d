"""A worker's place on a home: the lock that makes its id unique among the living, and the journal it opens there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from mulle.core.errors import Conflict
from mulle.loop.lock import Lock, hold, holder

__all__ = ["ENGINE", "SCHEMA", "hold_place", "journal_options", "prepared_journal", "shared_journal", "workers_here"]

SCHEMA = "mulle_engine"
"""Of the journal's tables on PostgreSQL; a role of its own may own it."""

ENGINE = "engine.lock"
"""Held by the one engine of a home whose journal is a file, and by the loop (`mulle up`) everywhere."""

_PLACES = 10_000


def hold_place(home: Path, *, shared: bool) -> tuple[str, Lock]:
    """Take a worker's place.

    Parameters
    ----------
    home : Path
    shared : bool
        Whether several workers may run on the home: each takes the first place that is free.

    Returns
    -------
    tuple
        The worker's id, the same again after a restart in the same place, and the lock.

    Raises
    ------
    Conflict
        When the place, or every place, is taken.
    """
    if not shared:
        lock = hold(home / ENGINE)
        return _name(home), lock
    name = _name(home)
    for place in range(_PLACES):
        try:
            return f"{name}-{place}", hold(home / "workers" / f"{place}.lock")
        except Conflict:
            continue
    raise Conflict(f"all {_PLACES} places of workers on {home} are taken", next="end some of them")


def workers_here(home: Path) -> dict[str, int]:
    """Return the process ids of the engines that run on a home, by the name of their lock."""
    locks = [home / ENGINE, *sorted((home / "workers").glob("*.lock"))]
    return {lock.relative_to(home).as_posix(): pid for lock in locks if (pid := holder(lock)) is not None}


def shared_journal(journal: str, database: str) -> str:
    """Give the URL of a journal that several engines share: the one that is set, else beside records on PostgreSQL, else none."""
    wanted = journal or database
    return wanted if wanted.startswith("postgresql") else ""


def prepared_journal(url: str) -> str:
    """Make the file that a URL names, for its owner alone; return the URL."""
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        # Made here and not by the vendor, so that it never exists with a wider mode.
        # One that is there is not opened: closing it would drop this process's locks on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            # A quarter less a step than with the rollback journal.
            connection.execute("pragma journal_mode=wal")
    return url


def journal_options(url: str) -> dict[str, object]:
    """Give what the vendor hands on to the driver of a journal that is a file."""
    if not url.startswith("sqlite:///"):
        return {}
    return {"connect_args": {"factory": _Connection}, "pool_pre_ping": False}


class _Connection(sqlite3.Connection):
    """Waits for the disk at checkpoints only, as the records' connections do.

    What a process committed survives its death. A power cut may take back the last commits, and the stages that they were of
    are then done again, which they must bear anyway.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("pragma synchronous=normal")


def _name(home: Path) -> str:
    """Give the home's name among workers: the same at each start, moving with the home."""
    path = home / "engine.id"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    home.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"engine.{uuid.uuid4().hex}")
    fresh.write_text(uuid.uuid4().hex)
    with contextlib.suppress(FileExistsError):
        # Of workers that start together one gives the name.
        os.link(fresh, path)
    fresh.unlink()
    return path.read_text().strip()
