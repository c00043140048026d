"""Backups: a home as it stands, in one file, while the loop runs; and a home made from one.

What is written last in life is read first: the journal before the records, the records before the tables and bundles they name,
the log's segments before the lake that takes them in. So all that a copied record names is in the copy, and what is there beyond
it is what a process leaves that dies: found, and done again or taken up, at the next start.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO
from urllib.parse import quote

from mulle.core.clock import rfc3339
from mulle.core.errors import Conflict, DataError, NotFound, Unavailable
from mulle.core.hashing import new_id
from mulle.core.records.base import Json
from mulle.core.records.deployment import STAGING
from mulle.core.settings import Settings
from mulle.kernel.faults import point
from mulle.loop.lock import hold

__all__ = ["known_backups", "restore_backup", "write_backup"]

FORMAT = 1
_MANIFEST, _RECORDS = "manifest.json", "records.jsonl.gz"
_PORTION = 1 << 20

_LEFT = {
    "backups", "counters", "engine.lock", "gc.lock", "log", "online.lmdb", "runs", "staging", "streams", "trash", "workers",
    "mulle.db", "mlflow.db", "engine.db", "lake", "routes.json", "backups.json",
}  # fmt: skip
"""What a home holds that is made anew, or is only true while processes live, or is copied in a way of its own."""

Rows = Iterable[tuple[str, Json]]


@dataclass
class _Writing:
    """A backup that is being written: the archive, and what went into it."""

    archive: tarfile.TarFile
    files: dict[str, Json] = field(default_factory=dict)

    def add(self, name: str, source: Path) -> None:
        """Add a file as long as it is now; one that has gone meanwhile is left out."""
        with contextlib.suppress(FileNotFoundError), source.open("rb") as file:
            self.stream(name, file, os.fstat(file.fileno()).st_size)

    def stream(self, name: str, file: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        hashed = _Hashed(file, size)
        self.archive.addfile(info, hashed)
        self.files[name] = {"sha256": hashed.digest.hexdigest(), "bytes": size}


class _Hashed:
    """Reads so many bytes of a file, and hashes them on the way."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left, self.digest = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read on, at most to the length that was noted."""
        part = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(part)
        self.digest.update(part)
        return part


def write_backup(settings: Settings, file: Path, *, now: datetime, version: str, records: Callable[[], tuple[str, Rows]]) -> Json:
    """Write a backup of a home.

    Parameters
    ----------
    settings : Settings
        Resolved.
    file : Path
        Appears when it is whole, for its owner alone: it holds what the home holds.
    version : str
        Of Mulle.
    records : callable
        Gives the revision and the rows of the records' database at one instant.

    Returns
    -------
    dict
        ``id``, ``file``, ``bytes``, ``files`` (how many), ``left_out`` (what lies elsewhere, in words) and ``sha256``.

    Raises
    ------
    Conflict
        When the file exists, or a clean-up is at work.
    Unavailable
        When it cannot be written.
    """
    if file.exists():
        raise Conflict(f"{file} exists", next="name another file: a backup replaces nothing", file=str(file))
    id, partial = new_id(now), file.with_name(f".{file.name}.partial")
    # A clean-up would take away what is listed and not yet copied.
    lock = hold(settings.home / "gc.lock", "a clean-up or backup")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with (
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|") as archive,
        ):
            writing = _Writing(archive)
            revision = _copy(settings, writing, records)
            manifest = {
                "format": FORMAT, "id": id, "mulle": version, "revision": revision, "created_at": rfc3339(now),
                "home": str(settings.home), "lake": settings.lake, "left_out": _elsewhere(settings), "files": writing.files,
            }  # fmt: skip
            body = json.dumps(manifest, indent=1).encode()
            writing.stream(_MANIFEST, io.BytesIO(body), len(body))
        point("before:backup:named")
        with partial.open("rb") as written:
            os.fsync(written.fileno())
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        partial.rename(file)
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror}", next="see the folder's rights and room") from error
    finally:
        partial.unlink(missing_ok=True)
        lock.release()
    told = {"id": id, "created_at": rfc3339(now), "file": str(file.resolve()), "bytes": file.stat().st_size, "sha256": digest}
    _remember(settings.home, told)
    return {**told, "files": len(writing.files), "left_out": manifest["left_out"]}


def known_backups(home: Path) -> list[Json]:
    """List the backups that were made of a home, oldest first: an erasure names those that still hold what it erased."""
    path = home / "backups.json"
    return [dict(item) for item in json.loads(path.read_text())] if path.exists() else []


def restore_backup(settings: Settings, file: Path, *, load: Callable[[str, Rows], int]) -> Json:
    """Make a home from a backup.

    Nothing is there before all of it was read and every hash was right. Addresses below the former home and lake become ones
    below these.

    Parameters
    ----------
    settings : Settings
        Resolved; the home is empty or not there.
    load : callable
        Fills the records' database from a revision and rows; returns how many.

    Returns
    -------
    dict
        ``id`` of the backup, ``home``, ``files``, ``records`` and ``left_out``.

    Raises
    ------
    Conflict
        When the home or the lake is not empty.
    NotFound
        When there is no such file.
    DataError
        When it is no backup, is damaged, or was written by a later release.
    """
    if not file.is_file():
        raise NotFound(f"no file {file}", next="name a file that `mulle backup` wrote", file=str(file))
    home, lake = settings.home, None if "://" in settings.lake else Path(settings.lake)
    for place in filter(None, (home, lake)):
        if place.exists() and any(place.iterdir()):
            raise Conflict(f"{place} is not empty", next="name another --home", home=str(place))
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".restoring-") as scratch:
        folder = Path(scratch) / "home"
        manifest = _unpacked(file, folder)
        moves = _moves(manifest, settings)
        for name in ("mlflow.db", "engine.db"):
            if (folder / name).exists():
                _relocate(folder / name, moves)
        target = home.with_name(f"{home.name}.{manifest['id']}")
        records = folder / _RECORDS
        kept = Path(scratch) / _RECORDS
        records.rename(kept)
        if lake is not None and not lake.is_relative_to(home) and (folder / "lake").exists():
            lake.parent.mkdir(parents=True, exist_ok=True)
            if lake.exists():
                lake.rmdir()
            shutil.move(folder / "lake", lake)
        shutil.move(folder, target)
        if home.exists():
            home.rmdir()
        target.rename(home)
        try:
            count = load(manifest["revision"], _read_rows(kept, moves))
        except BaseException:
            # A home without its records is none, and would be in the way of the next attempt.
            for place in filter(None, (home, lake)):
                shutil.rmtree(place, ignore_errors=True)
            raise
    return {
        "id": manifest["id"], "created_at": manifest["created_at"], "home": str(home), "files": len(manifest["files"]),
        "records": count, "left_out": manifest["left_out"],
    }  # fmt: skip


def _copy(settings: Settings, writing: _Writing, records: Callable[[], tuple[str, Rows]]) -> str:
    home = settings.home
    with tempfile.TemporaryDirectory(dir=home, prefix=".backup-") as scratch:
        _add_database(writing, "engine.db", home / "engine.db", Path(scratch))
        revision, rows = records()
        path = Path(scratch) / _RECORDS
        unfinished: set[str] = set()
        with gzip.open(path, "wt", compresslevel=3) as lines:
            for table, row in rows:
                lines.write(json.dumps([table, row]) + "\n")
                if table == "run_states" and row["state"] in ("queued", "running"):
                    unfinished.add(row["run"])
        writing.add(_RECORDS, path)
        point("during:backup:records")
        if settings.tracking.startswith("sqlite:///"):
            _add_database(writing, "mlflow.db", Path(settings.tracking.removeprefix("sqlite:///")), Path(scratch))
    for log in ("log", f"{STAGING}/log"):
        _add_tree(writing, log, home / log, lambda path: path.suffix != ".lock")
    if "://" not in settings.lake:
        # The tables' logs before their files: what a commit names is never changed, and still there.
        _add_tree(writing, "lake", Path(settings.lake), lambda path: "_delta_log" in path.parts)
        _add_tree(writing, "lake", Path(settings.lake), lambda path: "_delta_log" not in path.parts)
    # A finished run's frames can be made again; what is said of it cannot.
    _add_tree(writing, "runs", home / "runs", lambda path: path.suffix == ".json" or bool(unfinished & set(path.parts)))
    for path in sorted(home.iterdir()):
        if path.name in _LEFT or path.name.startswith(".") or path.suffix in (".lock", ".log") or ".db-" in path.name:
            continue
        if path.is_dir():
            _add_tree(writing, path.name, path, lambda _: True)
        else:
            writing.add(path.name, path)
    return revision


def _add_tree(writing: _Writing, name: str, folder: Path, wanted: Callable[[Path], bool]) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and wanted(path):
            writing.add(f"{name}/{path.relative_to(folder).as_posix()}", path)


def _add_database(writing: _Writing, name: str, path: Path, scratch: Path) -> None:
    if not path.exists():
        return
    copy = scratch / name
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    writing.add(name, copy)


def _elsewhere(settings: Settings) -> list[str]:
    places = {"lake": settings.lake, "tracking": settings.tracking, "online": settings.online}
    said = [f"{name}: it lies at {_shown(url)}" for name, url in places.items() if "://" in url and not _near(url)]
    journal = settings.journal or settings.database
    return said + (["journal: unfinished runs begin anew"] if journal.startswith("postgresql") else [])


def _near(url: str) -> bool:
    return url.startswith(("sqlite:", "lmdb:"))


def _shown(url: str) -> str:
    # A password stands before the last @.
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _remember(home: Path, told: Json) -> None:
    path = home / "backups.json"
    fresh = path.with_name(f".backups.{told['id']}")
    fresh.write_text(json.dumps([*known_backups(home), told], indent=1))
    fresh.replace(path)


def _unpacked(file: Path, folder: Path) -> Json:
    found: dict[str, str] = {}
    try:
        with gzip.open(file, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
            for info in archive:
                content = archive.extractfile(info)
                target = folder / info.name
                if content is None or not target.resolve().is_relative_to(folder.resolve()):
                    raise DataError(f"{file} holds {info.name}, which no backup does", next="use a file of `mulle backup`")
                target.parent.mkdir(parents=True, exist_ok=True)
                found[info.name] = _written(content, target)
        manifest: Json = json.loads((folder / _MANIFEST).read_text())
        wanted = {name: told["sha256"] for name, told in manifest["files"].items()}
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError) as error:
        raise DataError(f"{file} is no whole backup: {error or type(error).__name__}", next="use another one") from error
    found.pop(_MANIFEST)
    if manifest["format"] > FORMAT:
        raise DataError(f"{file} was written by a later release, {manifest['mulle']}", next="install that one")
    if found != wanted:
        bad = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise DataError(f"{file} is damaged: {bad[0]} is not as it was written", next="use another one", files=bad[:20])
    (folder / _MANIFEST).unlink()
    return manifest


def _written(content: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        while part := content.read(_PORTION):
            digest.update(part)
            out.write(part)
    return digest.hexdigest()


def _moves(manifest: Json, settings: Settings) -> list[tuple[str, str]]:
    pairs = [(manifest["lake"], settings.lake), (manifest["home"], str(settings.home))]
    return [(old, new) for old, new in pairs if old != new]


def _read_rows(path: Path, moves: list[tuple[str, str]]) -> Iterator[tuple[str, Json]]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            table, row = json.loads(line)
            yield table, {name: _moved(value, moves) if isinstance(value, str) else value for name, value in row.items()}


def _moved(text: str, moves: list[tuple[str, str]]) -> str:
    for old, new in moves:
        # In a column of its own, inside a record's JSON, and as part of a URL.
        for write in (str, lambda path: json.dumps(path)[1:-1], quote):
            text = text.replace(write(old), write(new))
    return text


def _relocate(path: Path, moves: list[tuple[str, str]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = database.execute(f'PRAGMA table_info("{table}")').fetchall()
            for column in [name for _, name, kind, *_ in columns if "CHAR" in kind or "TEXT" in kind]:
                for old, new in moves:
                    for a, b in dict.fromkeys([(old, new), (quote(old), quote(new))]):
                        sql = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?) > 0'
                        database.execute(sql, (a, b, a))
