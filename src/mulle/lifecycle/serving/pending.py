"""The prediction log of a stream: written before a transaction's commit, counted only if that commit does.

Records gather in ``stream-X.pending``, held by a lock as long as their writer lives. Beside it ``stream-X.doubt`` says from
which byte on the last transaction's records stand, and which one it is. When that is settled the file takes the name of a
finished segment by one rename, and the drainer brings it into the lake exactly once.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from mulle.core.errors import LogNotWritable
from mulle.core.ports.stream import Place
from mulle.core.records.base import Json
from mulle.kernel.faults import point
from mulle.lifecycle.serving.ids import fresh_ids
from mulle.lifecycle.serving.log import SUFFIX

__all__ = ["PendingLog"]

_LARGEST = 8 * 2**20
_OLDEST = 1.0


class PendingLog:
    """A stream's end of the log; one per process.

    Parameters
    ----------
    folder : Path
        The home's log folder.
    group : str
        The consumer group, whose offsets tell how a transaction ended.
    fsync : bool
    """

    def __init__(self, folder: Path, group: str, *, fsync: bool = False) -> None:
        self._folder, self._group, self._fsync = folder, group, fsync
        self._file, self._path = -1, folder / "none"
        self._size = self._start = 0
        self._begun = 0.0
        self._doubtful = False

    def write(self, records: Sequence[bytes], reads: Mapping[Place, int]) -> str:
        """Write a transaction's framed records; return the mark that tells it from others.

        Raises
        ------
        LogNotWritable
            Nothing may be committed then.
        """
        mark = fresh_ids(time.time_ns() // 1000, 1)[0]
        try:
            if self._file < 0:
                self._open()
            self._start, self._doubtful = self._size, True
            doubt = {"group": self._group, "mark": mark, "start": self._size, "reads": [[*p, n] for p, n in reads.items()]}
            scratch = self._path.with_suffix(".doubt.new")
            scratch.write_bytes(orjson.dumps(doubt))
            scratch.replace(self._path.with_suffix(".doubt"))
            data = b"".join(records)
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes fitted")
            if self._fsync:
                os.fdatasync(self._file)
        except OSError as error:
            self.cut()
            raise LogNotWritable(
                f"the predictions log in {self._folder} cannot be written: {error}", next="free the disk under the home folder"
            ) from error
        self._size += len(data)
        point("during:stream:pending")
        return mark

    def cut(self) -> None:
        """Take the last transaction's records out again: it does not count."""
        if self._file >= 0:
            os.ftruncate(self._file, self._start)
            self._size = self._start
        self._doubtful = False

    def commit(self) -> None:
        """Hear that the last transaction counts."""
        self._doubtful = False

    def settle(self, *, now: bool = False) -> None:
        """Hand over what is committed, once a second or when it grew large; only between transactions."""
        if self._file < 0 or not (now or self._size >= _LARGEST or time.monotonic() - self._begun >= _OLDEST):
            return
        _finish(self._path, self._size)
        self._release()

    def close(self) -> None:
        """Hand over what is committed; a transaction whose end nobody knows stays behind, as of a life that ended."""
        if not self._doubtful:
            self.settle(now=True)
        self._release()

    def doubts(self) -> list[Place]:
        """List the partitions that last transactions of this group read whose end is not known: of the dead, and our own."""
        self.close()
        return list(dict.fromkeys(place for path in self._dead() for place in _reads(path)))

    def resolve(self, read: Mapping[Place, tuple[int, str]]) -> None:
        """Settle the dead's files by how far the group has read, and by which transaction's word."""
        for path in self._dead():
            with _locked(path) as held:
                if held and path.exists():
                    self._resolve(path, read)
        for doubt in self._folder.glob("stream-*.doubt"):
            if not doubt.with_suffix(".pending").exists():
                doubt.unlink(missing_ok=True)

    def _resolve(self, path: Path, read: Mapping[Place, tuple[int, str]]) -> None:
        doubt = _doubt(path)
        size = path.stat().st_size
        reads = {(topic, int(partition)): int(end) for topic, partition, end in doubt.get("reads", ())}
        if any(place not in read for place in reads):
            return
        # Beyond our end by another's word: who followed us read from our end, or did our work again; the former, unless the
        # follower shared this home and would have settled this first.
        counts = all(read[place][1] == doubt["mark"] or read[place][0] > end for place, end in reads.items())
        _finish(path, size if not reads or counts else min(size, int(doubt["start"])))

    def _dead(self) -> list[Path]:
        found = []
        for path in sorted(self._folder.glob("stream-*.pending")):
            with _locked(path, wait=False) as held:
                if held and _doubt(path).get("group", self._group) == self._group:
                    found.append(path)
        return found

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / f"stream-{fresh_ids(time.time_ns() // 1000, 1)[0]}.pending"
        scratch = self._path.with_name(f".{self._path.name}.new")
        self._file = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        scratch.rename(self._path)
        self._size = self._start = 0
        self._begun = time.monotonic()

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._doubtful = -1, False


def _finish(path: Path, size: int) -> None:
    """Give a file its finished name: from here on it is the drainer's."""
    if path.stat().st_size != size:
        os.truncate(path, size)
    doubt = path.with_suffix(".doubt")
    if size:
        path.rename(path.with_name(f"predictions-{path.stem.removeprefix('stream-')}{SUFFIX}"))
    else:
        path.unlink()
    doubt.unlink(missing_ok=True)


def _doubt(path: Path) -> Json:
    try:
        found: Json = orjson.loads(path.with_suffix(".doubt").read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _reads(path: Path) -> Iterator[Place]:
    for topic, partition, _ in _doubt(path).get("reads", ()):
        yield topic, int(partition)


class _locked:
    """Holds a file's lock; tells whether it could be had."""

    def __init__(self, path: Path, *, wait: bool = True) -> None:
        self._path, self._flags = path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        self._handle = -1

    def __enter__(self) -> bool:
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._handle, self._flags)
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            os.close(self._handle)
