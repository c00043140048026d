"""The lake on Delta tables: the data that runs read and the logs that serving writes, in a folder or a bucket."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from mulle.adapters.lake.commits import FLOOR, NOTE, erase, properties, vacuum
from mulle.adapters.lake.layout import clustered
from mulle.adapters.lake.parking import Parking, files_of
from mulle.adapters.lake.pieces import record_batches
from mulle.adapters.lake.schema import conform
from mulle.core.errors import DataError, NotFound, Unavailable, UsageError
from mulle.core.ports.lake import Note, Vacuum
from mulle.core.records.base import Json

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

    Attributes
    ----------
    folder : Path or None
        The lake's local folder; None when it is remote.

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
        self.folder = None if "://" in url and not url.startswith("file://") else Path(url.removeprefix("file://")).absolute()
        self._root = str(self.folder) if self.folder else url.rstrip("/")
        self._options = storage_options
        self._parking = Parking(self._root, self.folder, storage_options)
        self._lock = threading.Lock()
        self._writers: dict[str, tuple[threading.Lock, list[DeltaTable]]] = {}
        self._snapshots: OrderedDict[tuple[str, int], DeltaTable] = OrderedDict()
        self._newest: dict[str, int] = {}

    def append(
        self,
        table: str,
        rows: pl.DataFrame | pl.LazyFrame,
        *,
        application: str,
        sequence: int,
        partition_by: Sequence[str] = (),
        note: Json | None = None,
    ) -> int:
        """Append rows in one transaction; see the port.

        Integers are widened into floats and into wider integers; any other change of a column's type is refused. A
        table is made empty as version 0, so its first rows are version 1.
        """
        lost, address = "", self.address(table)
        with self._writing(table) as held, _translated(address):
            for attempt in range(_ATTEMPTS):
                target = self._refreshed(address, held)
                if target is None:
                    self._make(address, rows.lazy(), partition_by)
                    continue
                if _has_applied(target, application, sequence):
                    return target.version()
                try:
                    return self._commit(address, target, rows, properties(application, sequence, note, _ATTEMPTS))
                except CommitFailedError as error:
                    lost = str(error)
                    # Another writer won: what it wrote may even have been this very sequence, so look again.
                    held.clear()
                    time.sleep(_PAUSE_SECONDS * min(attempt, 10))
        raise Unavailable(f"{address}: {_ATTEMPTS} commits in a row were lost: {lost}", next="try again", table=table)

    def notes(self, table: str, application: str, after: int) -> Sequence[Note]:
        """Return the notes of an application's commits with a sequence above `after`, oldest first."""
        with _translated(self.address(table)):
            snapshot = self._latest(table)
            if snapshot is None or (snapshot.transaction_version(application) or 0) <= after:
                return ()
            found = []
            for commit in snapshot.history():
                left = json.loads(commit.get(NOTE) or "{}")
                if left.get("application") == application:
                    if left["sequence"] <= after:
                        break
                    found.append(Note(left["sequence"], commit["version"], left["words"]))
        return tuple(reversed(found))

    def replace(self, table: str, rows: pl.LazyFrame, *, application: str, sequence: int, note: Json | None = None) -> int:
        """Make these the table's rows and columns, in one transaction; see the port."""
        address = self.address(table)
        with self._writing(table) as held, _translated(address):
            target = self._refreshed(address, held)
            if target is None:
                raise NotFound(f"no table '{table}' in the lake", next="ingest something first", table=table)
            if not _has_applied(target, application, sequence):
                commit = properties(application, sequence, note, 0)
                _written(target, conform(rows, None, address), mode="overwrite", schema_mode="overwrite", commit=commit)
            return target.version()

    def erase(self, table: str, keys: pl.DataFrame) -> int:
        """Remove for good every row that equals a row of `keys`; see the port."""
        address = self.address(table)
        with self._writing(table) as held, _translated(address):
            target = self._refreshed(address, held)
            if target is None or keys.is_empty():
                return 0
            held.clear()
            folder = None if self.folder is None else Path(address)
            deleted = erase(target, keys, files_of(address, folder, self._options))
        with self._lock:
            self._newest.pop(table, None)
            for known in [k for k in self._snapshots if k[0] == table]:
                del self._snapshots[known]
        return deleted

    def compact(self, table: str, *, cluster_by: Sequence[str] = ()) -> int:
        """Put a table's small files together; see the port."""
        address = self.address(table)
        with self._writing(table) as held, _translated(address):
            target = self._refreshed(address, held)
            if target is None:
                return 0
            return clustered(target, cluster_by) if cluster_by else int(target.optimize.compact()["numFilesRemoved"])

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

    def park(self, name: str, rows: pl.DataFrame | Iterable[pl.DataFrame]) -> str:
        """Write rows outside every table, atomically; return the address."""
        return self._parking.put(checked(name), rows)

    def parked(self, name: str) -> pl.LazyFrame:
        """Give parked rows back; raises NotFound when there are none."""
        return self._parking.get(checked(name))

    def parkings(self, prefix: str) -> Sequence[str]:
        """List the names of what is parked below a prefix."""
        return self._parking.names(checked(prefix))

    def unpark(self, name: str) -> None:
        """Remove parked rows; no error when there are none."""
        self._parking.remove(checked(name))

    def write_document(self, name: str, words: Json) -> str:
        """Write a small JSON document beside the tables, atomically; return its address."""
        return self._parking.write(checked(name), words)

    def read_document(self, name: str) -> Json | None:
        """Read a document back, or None when there is none."""
        return self._parking.read(checked(name))

    @contextmanager
    def _writing(self, table: str) -> Iterator[list[DeltaTable]]:
        with self._lock:
            lock, held = self._writers.setdefault(table, (threading.Lock(), []))
        with lock:
            yield held

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

    def _make(self, address: str, rows: pl.LazyFrame, partition_by: Sequence[str]) -> None:
        # Empty, and apart from the first rows: a commit that makes a table is not checked against the sequences of a
        # writer that made it a moment earlier, an append is. One attempt, for a second would be such an append.
        if self.folder is not None:
            Path(address).mkdir(parents=True, exist_ok=True)
        try:
            write_deltalake(
                address,
                conform(rows.head(0), None, address).collect(),
                mode="error",
                partition_by=list(partition_by) or None,
                configuration=_CONFIGURATION,
                storage_options=self._options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            if self._open(address) is None:
                raise

    def _commit(self, address: str, target: DeltaTable, rows: pl.DataFrame | pl.LazyFrame, commit: CommitProperties) -> int:
        ready = conform(rows.lazy(), target, address)
        # A merge costs a metadata change that other writers collide with: only when there is a column to add.
        adds = not set(ready.collect_schema()) <= {field.name for field in target.schema().fields}
        known = ready.collect() if isinstance(rows, pl.DataFrame) else ready
        _written(target, known, mode="append", schema_mode="merge" if adds else None, commit=commit)
        return target.version()

    def _latest(self, table: str) -> DeltaTable | None:
        # A snapshot is never refreshed in place: lazy frames made from it must go on reading the version they were made at.
        with self._lock:
            newest = self._newest.get(table)
            snapshot = None if newest is None else self._snapshots.get((table, newest))
        if snapshot is not None and self.folder is not None and _is_last(self.address(table), snapshot.version()):
            return snapshot
        opened = self._open(self.address(table))
        if opened is not None:
            self._keep(table, opened)
            with self._lock:
                self._newest[table] = opened.version()
        return opened

    def _at(self, table: str, version: int) -> DeltaTable:
        latest = self._latest(table)
        if latest is None or not 0 <= version <= latest.version():
            last = "it has none" if latest is None else f"the last is {latest.version()}"
            raise NotFound(
                f"no version {version} of '{table}' in the lake; {last}", next="see `mulle data versions`", table=table
            )
        if version < _floor(latest):
            return latest
        with self._lock:
            snapshot = self._snapshots.get((table, version))
        if snapshot is not None:
            return snapshot
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


def vacuum_of(lake: DeltaLake) -> Vacuum:
    """Give what clears out a lake's superseded files; see `mulle.core.ports.lake.Vacuum`."""

    def vacuumed(table: str, *, older: timedelta, needed: Sequence[int], dry_run: bool) -> tuple[int, int]:
        address = lake.address(table)
        with _translated(address):
            target = lake._open(address)
            if target is None:
                raise NotFound(f"no table '{table}' in the lake", next="see `mulle data ls`", table=table)
            return vacuum(target, older, needed, None if lake.folder is None else Path(address), dry_run=dry_run)

    return vacuumed


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


def _written(
    target: DeltaTable,
    rows: pl.DataFrame | pl.LazyFrame,
    *,
    mode: Literal["append", "overwrite"],
    schema_mode: Literal["merge", "overwrite"] | None,
    commit: CommitProperties,
) -> None:
    data, failure = (rows, []) if isinstance(rows, pl.DataFrame) else record_batches(rows)
    try:
        write_deltalake(target, data, mode=mode, schema_mode=schema_mode, commit_properties=commit)
    except Exception:
        if failure:
            raise failure[0] from None
        raise


def _has_applied(table: DeltaTable, application: str, sequence: int) -> bool:
    last = table.transaction_version(application)
    return last is not None and last >= sequence


def _first_line(error: Exception) -> str:
    words = (str(error).splitlines() or [type(error).__name__])[0][:500]
    return re.sub(r"\x1b\[[0-9;]*m", "", words)


def _floor(table: DeltaTable) -> int:
    return int(table.metadata().configuration.get(FLOOR) or 0)


def _is_last(address: str, version: int) -> bool:
    log = Path(address, "_delta_log")
    # An erasure takes the log's older entries away: without its own entry a version may be far from the last.
    return (log / f"{version:020d}.json").exists() and not (log / f"{version + 1:020d}.json").exists()


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except SchemaMismatchError as error:
        raise DataError(f"{address} cannot take these rows: {error}", next="see the table's schema") from error
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"{address} cannot take these rows: {error}", next="see the column's largest values") from error
    except (DeltaError, OSError) as error:
        raise Unavailable(
            f"{address} did not answer: {_first_line(error)}", next="see that it is reachable, its disk has room, then try again"
        ) from error
