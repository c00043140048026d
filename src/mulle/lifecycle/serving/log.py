"""The write-ahead log of predictions and labels: one segment per worker life, written before any answer leaves.

A segment is a file of records (length, CRC-32, payload) that its writer holds by a file lock. Who finds the lock free
knows that the writer is dead. A torn tail was never acknowledged, so readers cut it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mulle.core.errors import LogNotWritable
from mulle.lifecycle.serving.ids import fresh_ids

__all__ = ["SUFFIX", "Record", "Segment", "log_folder", "pack", "read_records"]

SUFFIX = ".seg"
_HEADER = struct.Struct("<II")
_LONGEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record and where the next one starts, in bytes."""

    payload: bytes
    end: int


def log_folder(home: Path) -> Path:
    """Return the folder of a home's segments."""
    return home / "log"


def pack(payload: bytes) -> bytes:
    """Frame a payload with its length and checksum."""
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_records(data: bytes, start: int = 0) -> Iterator[Record]:
    """Give the whole records of a segment's bytes; stops before a torn or damaged one.

    Parameters
    ----------
    data : bytes
        What was read from the file.
    start : int
        The file's offset at which `data` begins.

    Examples
    --------
    >>> two = pack(b"one") + pack(b"two")
    >>> [r.payload for r in read_records(two)], [r.payload for r in read_records(two[:-1])]
    ([b'one', b'two'], [b'one'])
    """
    at, size, view = 0, len(data), memoryview(data)
    while at + _HEADER.size <= size:
        length, checksum = _HEADER.unpack_from(view, at)
        end = at + _HEADER.size + length
        if length > _LONGEST or end > size:
            return
        payload = bytes(view[at + _HEADER.size : end])
        if zlib.crc32(payload) != checksum:
            return
        yield Record(payload, start + end)
        at = end


class Segment:
    """The writing end; opens its file at the first write and starts another when it grew large.

    Parameters
    ----------
    folder : Path
    kind : str
        ``predictions`` or ``labels``.
    fsync : bool
        Reach the disk before each answer: power loss then loses nothing acknowledged.
    largest : int
        Bytes after which another file is begun, so that drained ones can go.

    Attributes
    ----------
    path : Path or None
        The present file.
    offset : int
        Its end, in bytes.
    first_write : float
        When it was begun, seconds since the epoch.
    """

    def __init__(self, folder: Path, kind: str, *, fsync: bool = False, largest: int = 64 * 2**20) -> None:
        self._folder, self._kind, self._fsync, self._largest = folder, kind, fsync, largest
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._file, self._number = -1, 0
        # File and offset up to which all is on the disk, and from which on all was lost.
        self._safe: tuple[int, int] = (0, 0)
        self._lost: tuple[int, int] | None = None
        self.path: Path | None = None
        self.offset = 0
        self.first_write = 0.0

    def write(self, records: Sequence[bytes]) -> None:
        """Write framed records with one call to the system; all or none.

        With `fsync` writers that come while the disk is busy share its next turn.

        Raises
        ------
        LogNotWritable
            When the disk refuses; what was partly written is cut again, so the answer may not be given.
        """
        data = b"".join(records)
        with self._lock:
            try:
                if self._file < 0 or self.offset >= self._largest:
                    self._open()
                written = os.write(self._file, data)
                if written != len(data):
                    raise OSError(f"only {written} of {len(data)} bytes fitted")
            except OSError as error:
                self._cut(self.offset)
                raise self._refused(error) from error
            self.offset += len(data)
            place = (self._number, self.offset)
        if self._fsync:
            self._reach_disk(place)

    def _reach_disk(self, place: tuple[int, int]) -> None:
        with self._turn:
            if self._lost is not None and self._lost < place <= (self._lost[0] + 1, 0):
                raise self._refused(OSError("what was written with it did not reach the disk"))
            if self._safe >= place:
                return
            with self._lock:
                if self._number != place[0]:
                    return  # a file reaches the disk before the next one begins
                handle, reached = os.dup(self._file) if self._file >= 0 else -1, (self._number, self.offset)
            try:
                os.fdatasync(handle)
                self._safe = reached
            except OSError as error:
                with self._lock:
                    if self._number == place[0]:
                        self._lost = self._safe if self._safe[0] == place[0] else (place[0], 0)
                        self._cut(self._lost[1])
                        self.offset = self._lost[1]
                        self._release()
                raise self._refused(error) from error
            finally:
                if handle >= 0:
                    os.close(handle)

    def _refused(self, error: OSError) -> LogNotWritable:
        return LogNotWritable(
            f"the {self._kind} log in {self._folder} cannot be written: {error}",
            next="free the disk under the home folder; nothing acknowledged is lost",
        )

    def close(self) -> None:
        """Let the file go; a drainer may then finish and remove it."""
        with self._lock:
            self._release()

    def _open(self) -> None:
        if self._fsync and self._file >= 0:
            os.fdatasync(self._file)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._kind}-{fresh_ids(time.time_ns() // 1000, 1)[0]}"
        scratch = self._folder / f".{name}.new"
        handle = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name: a drainer that sees the name never finds the lock of a living writer free.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(scratch, self._folder / (name + SUFFIX))
        except OSError:
            os.close(handle)
            scratch.unlink(missing_ok=True)
            raise
        self._release()
        self._number += 1
        self._file, self.path, self.offset = handle, self._folder / (name + SUFFIX), 0
        self.first_write = time.time()

    def _cut(self, end: int) -> None:
        if self._file >= 0:
            try:
                os.ftruncate(self._file, end)
            except OSError:
                # A tail that cannot be cut would hide what is written after it: begin another file.
                self._release()

    def _release(self) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1
