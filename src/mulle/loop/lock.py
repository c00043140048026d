"""Locks that a process holds as long as it lives: one engine, one loop, one clean-up at a time on a home."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from mulle.core.errors import Conflict

__all__ = ["Lock", "hold", "holder"]


class Lock:
    """A lock that is held; made by `hold`, ends with `release` or with the process, however that ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the lock back; releasing twice is harmless."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # The file stays: removing it would let a third process lock a name that a second one still waits on.
            os.ftruncate(descriptor, 0)
            os.close(descriptor)


def hold(path: Path, who: str = "an engine") -> Lock:
    """Take the lock of a home and record the own process id in it.

    Parameters
    ----------
    path : Path
        The lock file; made, with its folders, when absent.
    who : str
        What holds it, in words.

    Returns
    -------
    Lock

    Raises
    ------
    Conflict
        When another process holds it; fact ``pid`` names its process.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "engine.lock"
    >>> lock = hold(path)
    >>> holder(path) == os.getpid()
    True
    >>> lock.release()
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid = _read(descriptor)
        os.close(descriptor)
        raise Conflict(
            f"{who} already runs on {path.parent}, pid {pid or 'not yet known'}",
            next="stop it, or use another --home",
            pid=pid,
            home=str(path.parent),
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return Lock(path, descriptor)


def holder(path: Path) -> int | None:
    """Return the process id that holds the lock, or None when nobody does.

    Parameters
    ----------
    path : Path
        The lock file; need not exist.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(descriptor)
    finally:
        os.close(descriptor)
    return None


def _read(descriptor: int) -> int | None:
    with contextlib.suppress(ValueError):
        return int(os.pread(descriptor, 32, 0))
    return None
