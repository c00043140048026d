"""The lake on Delta tables: the data that runs read and the logs that serving writes, in a folder or a bucket."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from mulle.adapters.lake.parking import Parking
from mulle.adapters.lake.schema import conform
from mulle.core.errors import DataError, NotFound, Unavailable, UsageError

__all__ = ["DeltaLake"]

_ATTEMPTS = 40
_PAUSE_SECONDS = 0.01
_KEPT_SNAPSHOTS = 64
# A run names the version it read and may be asked for it years later, so the log is never cleaned behind its back.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "20"}


class DeltaLake:
    """Meets `mulle.core.ports.lake.Lake`; safe to share between threads, and between processes by Delta's own log.

    Parameters
    ----------
    url : str
        A folder, or a bucket such as ``s3://bucket/prefix``.
    storage_options : dict, optional
        Passed to the bucket's client.

    Examples
    --------
    >>> import tempfile
    >>> lake = DeltaLake(tempfile.mkdtemp())
    >>> lake.append("data/planes", pl.DataFrame({"tailnum": ["N14228"]}), application="run-1", sequence=1)
    1
    >>> lake.append("data/planes", pl.DataFrame({"tailnum": ["N14228"]}), application="run-1", sequence=1)
    1
    >>> lake.scan("data/planes").collect().height
    1
    """

    def __init__(self, url: str, storage_options: dict[str, str] | None = None) -> None:
        self._folder = None if "://" in url and not url.startswith("file://") else Path(url.removeprefix("file://")).absolute()
        self._root = str(self._folder) if self._folder else url.rstrip("/")
        self._options = storage_options
        self._parking = Parking(self._root, self._folder, storage_options)
        self._lock = threading.Lock()
        self._writers: dict[str, tuple[threading.Lock, list[DeltaTable]]] = {}
        self._snapshots: OrderedDict[tuple[str, int], DeltaTable] = OrderedDict()
        self._newest: dict[str, int] = {}

    def append(self, table: str, rows: pl.DataFrame, *, application: str, sequence: int, partition_by: Sequence[str] = ()) -> int:
        """Append rows in one transaction; see the port.

        Integers are widened into floats and into wider integers; any other change of a column's type is refused. A
        table is made empty as version 0, so its first rows are version 1.
        """
        address = self.address(table)
        with self._lock:
            lock, held = self._writers.setdefault(table, (threading.Lock(), []))
        lost = ""
        with lock, _translated(address):
            for attempt in range(_ATTEMPTS):
                target = self._refreshed(address, held)
                if target is None:
                    self._make(address, rows, partition_by)
                    continue
                if _has_applied(target, application, sequence):
                    return target.version()
                try:
                    return self._commit(address, target, rows, Transaction(application, sequence))
                except CommitFailedError as error:
                    lost = str(error)
                    # Another writer won: what it wrote may even have been this very sequence, so look again.
                    held.clear()
                    time.sleep(_PAUSE_SECONDS * min(attempt, 10))
        raise Unavailable(f"{address}: {_ATTEMPTS} commits in a row were lost: {lost}", next="try again", table=table)

    def applied(self, table: str, application: str) -> int | None:
        """Return the last sequence applied by an application, or None."""
        with _translated(self.address(table)):
            snapshot = self._latest(table)
            return None if snapshot is None else snapshot.transaction_version(application)

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """Return a lazy frame of the table as it stands now, or as it stood at a version; see the port."""
        with _translated(self.address(table)):
            snapshot = self._latest(table) if version is None else self._at(table, version)
        if snapshot is None:
            raise NotFound(f"no table '{table}' in the lake", next="ingest something first, or see `mulle data ls`", table=table)
        return pl.scan_delta(snapshot)

    def version(self, table: str) -> int | None:
        """Return the table's last version, or None when there is no such table."""
        with _translated(self.address(table)):
            snapshot = self._latest(table)
            return None if snapshot is None else snapshot.version()

    def address(self, table: str) -> str:
        """Return the folder or URL of a table."""
        return f"{self._root}/{checked(table)}"

    def park(self, name: str, rows: pl.DataFrame) -> str:
        """Write rows outside every table, atomically; return the address."""
        return self._parking.put(checked(name), rows)

    def parked(self, name: str) -> pl.DataFrame:
        """Read parked rows back; raises NotFound when there are none."""
        return self._parking.get(checked(name))

    def unpark(self, name: str) -> None:
        """Remove parked rows; no error when there are none."""
        self._parking.remove(checked(name))

    def folder(self) -> Path | None:
        """Return the lake's local folder, or None when it is remote."""
        return self._folder

    def _open(self, address: str, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(address, version=version, storage_options=self._options)
        except TableNotFoundError:
            return None

    def _refreshed(self, address: str, held: list[DeltaTable]) -> DeltaTable | None:
        if held:
            held[0].update_incremental()
            return held[0]
        table = self._open(address)
        if table is not None:
            held.append(table)
        return table

    def _make(self, address: str, rows: pl.DataFrame, partition_by: Sequence[str]) -> None:
        # Empty, and apart from the first rows: a commit that makes a table is not checked against the sequences of a
        # writer that made it a moment earlier, an append is. One attempt, for a second would be such an append.
        if self._folder is not None:
            Path(address).mkdir(parents=True, exist_ok=True)
        try:
            write_deltalake(
                address,
                conform(rows.clear(), None, address),
                mode="error",
                partition_by=list(partition_by) or None,
                configuration=_CONFIGURATION,
                storage_options=self._options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            if self._open(address) is None:
                raise

    def _commit(self, address: str, target: DeltaTable, rows: pl.DataFrame, transaction: Transaction) -> int:
        ready = conform(rows, target, address)
        write_deltalake(
            target,
            ready,
            mode="append",
            # A merge costs a metadata change that other writers collide with: only when there is a column to add.
            schema_mode="merge" if _adds(ready, target) else None,
            commit_properties=CommitProperties(app_transactions=[transaction], max_commit_retries=_ATTEMPTS),
        )
        return target.version()

    def _latest(self, table: str) -> DeltaTable | None:
        # A snapshot is never refreshed in place: lazy frames made from it must go on reading the version they were made at.
        with self._lock:
            newest = self._newest.get(table)
            snapshot = None if newest is None else self._snapshots.get((table, newest))
        if snapshot is not None and self._folder is not None and not _has_commit(self.address(table), snapshot.version() + 1):
            return snapshot
        opened = self._open(self.address(table))
        if opened is not None:
            self._keep(table, opened)
            with self._lock:
                self._newest[table] = opened.version()
        return opened

    def _at(self, table: str, version: int) -> DeltaTable:
        with self._lock:
            snapshot = self._snapshots.get((table, version))
        if snapshot is not None:
            return snapshot
        latest = self._latest(table)
        if latest is None or not 0 <= version <= latest.version():
            last = "it has none" if latest is None else f"the last is {latest.version()}"
            raise NotFound(
                f"no version {version} of '{table}' in the lake; {last}", next="see `mulle data versions`", table=table
            )
        opened = self._open(self.address(table), version)
        if opened is None:
            raise NotFound(f"version {version} of '{table}' is gone from the lake", next="see `mulle data versions`", table=table)
        self._keep(table, opened)
        return opened

    def _keep(self, table: str, snapshot: DeltaTable) -> None:
        with self._lock:
            self._snapshots[(table, snapshot.version())] = snapshot
            while len(self._snapshots) > _KEPT_SNAPSHOTS:
                self._snapshots.popitem(last=False)


def checked(name: str) -> str:
    """Return a table's name if it stays inside the lake.

    Raises
    ------
    UsageError
        When it is empty, absolute, or climbs out.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or "://" in name:
        raise UsageError(f"'{name}' is not a name of a table", next="write names such as data/flights")
    return name


def _has_applied(table: DeltaTable, application: str, sequence: int) -> bool:
    last = table.transaction_version(application)
    return last is not None and last >= sequence


def _adds(rows: pl.DataFrame, table: DeltaTable) -> bool:
    return not set(rows.columns) <= {field.name for field in table.schema().fields}


def _has_commit(address: str, version: int) -> bool:
    return Path(address, "_delta_log", f"{version:020d}.json").exists()


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except SchemaMismatchError as error:
        raise DataError(f"{address} cannot take these rows: {error}", next="see the table's schema") from error
    except (DeltaError, OSError) as error:
        raise Unavailable(
            f"{address} did not answer: {str(error)[:500]}", next="see that it is reachable, its disk has room, then try again"
        ) from error
