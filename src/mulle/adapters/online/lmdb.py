"""The online store in a local LMDB file: one writer, many reader processes, a few microseconds a read."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import lmdb
import orjson

from mulle.core.clock import EPOCH
from mulle.core.errors import Conflict, Unavailable
from mulle.core.ports.online import Entry

__all__ = ["LmdbOnline"]

_BIAS = 2**63
_INSTANT = struct.Struct(">Q")
_LONGEST = 480  # LMDB refuses keys above 511 bytes
_MARK = b"\0mark\0"
_SYNC_SECONDS = 5.0


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
    >>> store.get("t", ["JFK", "JFK"], [9, 11])
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
        """Write entries, all or none; an entry of the same key and instant is replaced. Returns how many."""
        dumps = orjson.dumps
        items = [(_prefix(table, key) + _instant(at), dumps(values)) for key, at, values in entries]
        if items:
            items.sort()
            self._write(lambda txn: txn.cursor().putmulti(items))
        return len(items)

    def get(self, table: str, keys: Sequence[str], at: Sequence[int]) -> list[tuple[int, dict[str, Any]] | None]:
        """Return, for each key, its last entry whose instant is not after `at`, or None; one transaction."""
        with self._reading() as txn:
            cursor = txn.cursor()
            return [_last(cursor, _prefix(table, key), moment) for key, moment in zip(keys, at, strict=True)]

    def mark(self, table: str, until: datetime) -> None:
        """Record that the table holds everything available up to an instant."""
        value = str((until - EPOCH) // timedelta(microseconds=1)).encode()
        self._write(lambda txn: txn.put(_MARK + table.encode(), value))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._shared.environment.sync(True)
            self._synced = time.monotonic()

    def marked(self, table: str) -> datetime | None:
        """Return the instant up to which a table is complete, or None."""
        with self._reading() as txn:
            value = txn.get(_MARK + table.encode())
        return None if value is None else EPOCH + timedelta(microseconds=int(value))

    def trim(self, table: str, before: int) -> int:
        """Delete entries older than an instant (microseconds), keeping each key's last one; return how many."""
        deleted = 0

        def walk(txn: lmdb.Transaction) -> None:
            nonlocal deleted
            stale = list(_stale(txn.cursor(), table, before))
            for key in stale:
                txn.delete(key)
            deleted = len(stale)

        self._write(walk)
        return deleted

    def close(self) -> None:
        """Flush and release the file; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            _released(self._path, self._shared)

    def _write(self, work: Any) -> None:
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

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        environment = self._shared.environment
        with self._shared.lock:
            try:
                txn = environment.begin()
            except lmdb.MapResizedError:  # another process made the file larger than we had mapped
                environment.set_mapsize(0)
                txn = environment.begin()
            with txn:
                yield txn


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
    name, text = table.encode(), key.encode()
    if len(name) + len(text) > _LONGEST or b"\0" in text:
        text = b"\1" + hashlib.sha256(text).hexdigest().encode()
    return name + b"\0" + text + b"\0"


def _instant(micros: int) -> bytes:
    return _INSTANT.pack(micros + _BIAS)


def _last(cursor: lmdb.Cursor, prefix: bytes, moment: int) -> tuple[int, dict[str, Any]] | None:
    target = prefix + _instant(moment)
    if cursor.set_range(target):
        found = bytes(cursor.key())
        if found != target:
            if not cursor.prev():
                return None
            found = bytes(cursor.key())
    elif cursor.last():
        found = bytes(cursor.key())
    else:
        return None
    if len(found) != len(target) or not found.startswith(prefix):
        return None
    return _INSTANT.unpack(found[-8:])[0] - _BIAS, orjson.loads(cursor.value())


def _stale(cursor: lmdb.Cursor, table: str, before: int) -> Iterator[bytes]:
    start, limit = table.encode() + b"\0", _instant(before)
    there = cursor.set_range(table.encode() + b"\1")
    there = cursor.prev() if there else cursor.last()
    newest = b""
    while there and bytes(cursor.key()).startswith(start):
        key = bytes(cursor.key())
        if key[:-8] != newest:
            newest = key[:-8]
        elif key[-8:] < limit:
            yield key
        there = cursor.prev()
