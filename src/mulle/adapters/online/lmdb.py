"""The online store in a local LMDB file: one writer, many reader processes, a few microseconds a read."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import orjson

from mulle.adapters.online.layout import BIAS, INSTANT, INSTANT_BYTES, mark_text, packed, portions, read_mark
from mulle.core.errors import Conflict, Unavailable
from mulle.core.ports.online import Ask, Entry, Found, Mark

__all__ = ["LmdbOnline"]

_LONGEST = 480  # LMDB refuses keys above 511 bytes
_MARK = b"\0mark\0"
_SYNC_SECONDS = 5.0
_PORTION = 5_000
_PACK, _UNPACK, _LOADS = INSTANT.pack, INSTANT.unpack_from, orjson.loads


class LmdbOnline:
    """Values by table, key and instant; implements `mulle.core.ports.online.Online`.

    Keys are laid out ``table, key, big-endian instant``, so that "the last entry not after t" is one seek. The file is
    a projection of the lake: it is flushed to disk every few seconds rather than at each write, and can be made again.

    Parameters
    ----------
    where : str or Path
        Folder, or ``lmdb://`` and the folder. It is made when absent, by readers too, so that a reader may come first.
    readonly : bool
        Refuse writes.
    map_size : int
        Bytes of address space to begin with; grown when full.

    Raises
    ------
    Unavailable
        When the folder cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> store = LmdbOnline(tempfile.mkdtemp())
    >>> store.put("t", [("JFK", 10, {"wind": 3.5})])
    1
    >>> store.get([("t", "JFK", 9), ("t", "JFK", 11)])
    [None, (10, {'wind': 3.5})]
    >>> store.close()
    """

    def __init__(self, where: str | Path, *, readonly: bool = False, map_size: int = 2**34) -> None:
        text = str(where)
        self._path = Path(text.removeprefix("lmdb://")).expanduser().resolve()
        self._readonly = readonly
        self._shared = _opened(self._path, map_size)
        self._synced = time.monotonic()
        self._closed = False

    def put(self, table: str, entries: Iterable[Entry]) -> int:
        """Write entries in portions; an entry of the same key and instant is replaced. Returns how many."""
        written = 0
        dumps = orjson.dumps
        for portion in portions(entries, _PORTION):
            # In the tree's own order neighbours land on one page, which halves the time of a large feed.
            items = sorted((_prefix(table, key) + packed(at), dumps(values)) for key, at, values in portion)
            self._write(lambda txn, items=items: txn.cursor().putmulti(items))  # type: ignore[misc]
            written += len(items)
        return written

    def get(self, asks: Sequence[Ask]) -> list[Found | None]:
        """Return, for each ask, the key's last entry whose instant is not after the asked one, or None; one transaction."""
        found: list[Found | None] = []
        lock = self._shared.lock
        # All in one place and without with-blocks: calls to parts of it took a quarter of a read.
        lock.acquire()
        try:
            try:
                txn = self._shared.environment.begin()
            except lmdb.MapResizedError:
                txn = self._begin()
            try:
                cursor = txn.cursor()
                for table, key, at in asks:
                    prefix = f"{table}\0{key}\0".encode()
                    if len(prefix) > _LONGEST or "\0" in key:
                        prefix = _prefix(table, key)
                    target = prefix + _PACK(at + BIAS)
                    there = cursor.set_range(target)
                    place = cursor.key()
                    if place != target:
                        place = cursor.key() if (cursor.prev() if there else cursor.last()) else b""
                        if len(place) != len(target) or not place.startswith(prefix):
                            found.append(None)
                            continue
                    found.append((_UNPACK(place, len(prefix))[0] - BIAS, _LOADS(cursor.value())))
            finally:
                txn.abort()
        finally:
            lock.release()
        return found

    def mark(self, table: str, mark: Mark) -> None:
        """Record how far a table is filled."""
        self._write(lambda txn: txn.put(_MARK + table.encode(), mark_text(mark)))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._shared.environment.sync(True)
            self._synced = time.monotonic()

    def marked(self, table: str) -> Mark | None:
        """Return how far a table is filled, or None when it never was."""
        with self._shared.lock, self._begin() as txn:
            value = txn.get(_MARK + table.encode())
        return None if value is None else read_mark(bytes(value))

    def trim(self, table: str, before: int) -> int:
        """Delete entries older than an instant (microseconds), keeping each key's last one; return how many."""
        deleted = 0
        walk = _Walk(table, before)
        while not walk.done:
            with self._shared.lock, self._begin() as txn:
                stale = walk.some(txn.cursor())
            self._delete(stale)
            deleted += len(stale)
        return deleted

    def forget(self, table: str, keys: Sequence[str]) -> int:
        """Delete every entry of the keys; return how many."""
        deleted = 0
        for portion in portions(keys, _PORTION):
            with self._shared.lock, self._begin() as txn:
                cursor = txn.cursor()
                gone = [found for key in portion for found in _entries_of(cursor, _prefix(table, key))]
            self._delete(gone)
            deleted += len(gone)
        return deleted

    def close(self) -> None:
        """Flush and release the file; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            _released(self._path, self._shared)

    def _delete(self, keys: list[bytes]) -> None:
        if keys:
            self._write(lambda txn: [txn.delete(key) for key in keys])

    def _write(self, work: Callable[[lmdb.Transaction], object]) -> None:
        if self._readonly:
            raise Conflict(f"the online store {self._path} is open for reading only", next="write from the loop's process")
        environment = self._shared.environment
        with self._shared.lock:
            while True:
                try:
                    with environment.begin(write=True) as txn:
                        work(txn)
                    return
                except lmdb.MapFullError:
                    environment.set_mapsize(environment.info()["map_size"] * 2)
                except lmdb.MapResizedError:
                    environment.set_mapsize(0)
                except lmdb.Error as error:
                    raise Unavailable(f"online store {self._path}: {error}", next="see that the disk is not full") from error

    def _begin(self) -> lmdb.Transaction[bytes]:
        environment = self._shared.environment
        try:
            return environment.begin()
        except lmdb.MapResizedError:  # another process made the file larger than we had mapped
            environment.set_mapsize(0)
            return environment.begin()


@dataclass(slots=True)
class _Shared:
    environment: lmdb.Environment
    users: int = 1
    lock: threading.RLock = field(default_factory=threading.RLock)


# LMDB forbids to open one file twice in a process; the process id keeps a forked child from sharing its parent's.
_OPEN: dict[tuple[int, Path], _Shared] = {}
_GUARD = threading.Lock()


def _opened(path: Path, map_size: int) -> _Shared:
    with _GUARD:
        shared = _OPEN.get((os.getpid(), path))
        if shared is not None:
            shared.users += 1
            return shared
        try:
            path.mkdir(parents=True, exist_ok=True)
            data = path / "data.mdb"
            size = max(map_size, data.stat().st_size if data.exists() else 0)
            environment = lmdb.open(str(path), map_size=size, max_readers=1024, sync=False, metasync=False, max_spare_txns=4)
        except (OSError, lmdb.Error) as error:
            raise Unavailable(
                f"online store {path} cannot be opened: {error}",
                next="check the folder's permissions; if the file is damaged, remove the folder: it is made again from the lake",
            ) from error
        environment.reader_check()
        shared = _OPEN[(os.getpid(), path)] = _Shared(environment)
        return shared


def _released(path: Path, shared: _Shared) -> None:
    with _GUARD:
        shared.users -= 1
        if shared.users == 0 and _OPEN.pop((os.getpid(), path), None) is shared:
            shared.environment.sync(True)
            shared.environment.close()


def _prefix(table: str, key: str) -> bytes:
    found = f"{table}\0{key}\0".encode()
    if len(found) <= _LONGEST and "\0" not in key:
        return found
    return f"{table}\0\1{hashlib.sha256(key.encode()).hexdigest()}\0".encode()


def _entries_of(cursor: lmdb.Cursor, prefix: bytes) -> list[bytes]:
    found = []
    there = cursor.set_range(prefix)
    while there and (key := bytes(cursor.key())).startswith(prefix):
        if len(key) == len(prefix) + INSTANT_BYTES:
            found.append(key)
        there = cursor.next()
    return found


class _Walk:
    """Finds a table's stale entries from its end to its start, some at a time, so that writers get their turn."""

    def __init__(self, table: str, before: int) -> None:
        self.done = False
        self._start, self._from = table.encode() + b"\0", table.encode() + b"\1"
        self._before = packed(before)
        self._newest = b""

    def some(self, cursor: lmdb.Cursor) -> list[bytes]:
        """Give the next stale keys, and go on below them the next time."""
        stale: list[bytes] = []
        there = cursor.prev() if cursor.set_range(self._from) else cursor.last()
        for _ in range(_PORTION):
            key = bytes(cursor.key())
            if not there or not key.startswith(self._start):
                self.done = True
                break
            self._from = key
            if key[:-INSTANT_BYTES] != self._newest:
                self._newest = key[:-INSTANT_BYTES]
            elif key[-INSTANT_BYTES:] < self._before:
                stale.append(key)
            there = cursor.prev()
        return stale
