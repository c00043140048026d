"""Stage, audit, publish: new rows wait outside the table, and only audited ones become a dataset version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DataError, NotFound
from mulle.core.hashing import derived_id, hash_json
from mulle.core.ports.lake import Lake
from mulle.core.ports.metadata import Datasets
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Cause, Json
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, verdict_of
from mulle.kernel.dtypes import INSTANT, dtype_of, dtype_text, schema_text
from mulle.kernel.faults import point
from mulle.lifecycle.data.version import BATCH, INGESTED, content_hash, table_name

__all__ = ["Staged", "publish", "stage", "staged_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A batch that waits for its audit; small and JSON-able (`to_json`, `from_json`), the rows stay in the lake.

    Attributes
    ----------
    batch : str
        Named by the caller; the same name stages the same batch again.
    address : str
        Where the rows are parked.
    positions : dict
        How far the source was read.
    origin : str
        Where the rows came from, for people.
    after : int
        The published version it was read on top of; 0 before the first.
    """

    dataset: str
    batch: str
    address: str
    rows: int
    positions: Json
    origin: str
    after: int = 0


def stage(
    dataset: Dataset,
    reader: SourceReader,
    previous: DatasetVersion | None,
    lake: Lake,
    *,
    batch: str,
    now: datetime,
    until: datetime | None = None,
) -> Staged | None:
    """Read what is new and park it under ``staging/<dataset>/<batch>``.

    Reading goes on from the last published version, or from the last quarantined batch where that is later, so that a
    bad file is judged once.

    Parameters
    ----------
    dataset : Dataset
    reader : SourceReader
    previous : DatasetVersion or None
        The published version.
    lake : Lake
    batch : str
    now : datetime
        Kept as each row's ``_ingested_at``.
    until : datetime, optional
        On a replay clock: only rows known by then.

    Returns
    -------
    Staged or None
        None when there is nothing new.

    Raises
    ------
    DataError
        When a file cannot be read, or a column declared as a time holds none.
    """
    found = reader.read(_positions(dataset.name, previous, lake), until)
    if found is None or found.rows.is_empty():
        return None
    rows = _typed(found.rows, dataset, previous.schema if previous else {})
    rows = rows.with_columns(pl.lit(now).cast(INSTANT).alias(INGESTED), pl.lit(batch).alias(BATCH))
    address = lake.park(_staging(dataset.name, batch), rows)
    return Staged(
        dataset=dataset.name,
        batch=batch,
        address=address,
        rows=rows.height,
        positions=found.positions,
        origin=found.origin,
        after=previous.version if previous else 0,
    )


def staged_rows(staged: Staged, lake: Lake) -> pl.DataFrame:
    """Read a staged batch back, for its audit.

    Raises
    ------
    NotFound
        When it was published or moved meanwhile.
    """
    return lake.parked(_staging(staged.dataset, staged.batch))


def publish(
    dataset: Dataset,
    staged: Staged,
    results: Sequence[CheckResult],
    previous: DatasetVersion | None,
    lake: Lake,
    datasets: Datasets,
    *,
    now: datetime,
    causes: Sequence[Cause],
    bulk: bool = True,
) -> DatasetVersion | Quarantine:
    """Publish an audited batch in one transaction, or move it aside.

    A ``fail`` verdict moves the rows to ``quarantine/<dataset>/<batch>`` with a record of the reasons; the published
    version stays. The positions then go to the lake as ``quarantine/<dataset>/_positions``, where `stage` finds them.
    Running the step again with the same batch and `now` adds nothing and returns the same record.

    Parameters
    ----------
    dataset : Dataset
    staged : Staged
    results : sequence of CheckResult
        What `check_batch` gave.
    previous : DatasetVersion or None
        The version the batch was staged after.
    lake, datasets : ports
    now : datetime
        Must be the same at each attempt.
    causes : sequence of Cause
    bulk : bool
        True for history that is loaded later: rows count as available from `known_at` alone.

    Returns
    -------
    DatasetVersion or Quarantine
    """
    id = derived_id(now, dataset.name, staged.batch)
    if verdict_of(tuple(results)) == "fail":
        return _turn_away(dataset.name, id, staged, tuple(results), previous, lake, datasets, now, tuple(causes))
    latest = datasets.get(dataset.name)
    if latest is not None and latest.id == id:
        lake.unpark(_staging(dataset.name, staged.batch))
        return latest
    rows = staged_rows(staged, lake)
    number = previous.version + 1 if previous else 1
    lake_version = _append(lake, table_name(dataset.name), rows, dataset.name, staged.batch, number)
    version = DatasetVersion(
        id=id,
        created_at=now,
        causes=tuple(causes),
        dataset=dataset.name,
        version=number,
        lake_version=lake_version,
        positions=staged.positions,
        bulk=bulk,
        checks=tuple(results),
        **_content(dataset.name, rows, previous),
    )
    published = datasets.add(version)
    point("during:publish:recorded")
    lake.unpark(_staging(dataset.name, staged.batch))
    return published


class _Content(TypedDict):
    table: str
    rows: int
    added: int
    hash: str
    schema: dict[str, str]


def _content(dataset: str, rows: pl.DataFrame, previous: DatasetVersion | None) -> _Content:
    return _Content(
        table=table_name(dataset),
        rows=(previous.rows if previous else 0) + rows.height,
        added=rows.height,
        hash=hash_json([previous.hash if previous else "", content_hash(rows)]),
        schema={**schema_text(rows), **(previous.schema if previous else {})},
    )


def _staging(dataset: str, batch: str) -> str:
    return f"staging/{dataset}/{batch}"


def _aside(dataset: str, batch: str) -> str:
    return f"quarantine/{dataset}/{batch}"


def _append(lake: Lake, table: str, rows: pl.DataFrame, dataset: str, batch: str, number: int) -> int:
    application = f"ingest/{dataset}"
    done = lake.applied(table, application)
    if done is not None and done >= number:
        # A step was killed between the append and its record. If the rows there are ours, nothing is left to do; if a
        # run that was given up left them (they passed its checks), ours must still get in, under a later number.
        ours = lake.scan(table).filter(pl.col(BATCH) == batch).select(pl.len()).collect().item()
        number = number if ours else done + 1
    version = lake.append(table, rows, application=application, sequence=number)
    point("during:publish:appended")
    return version


def _turn_away(
    dataset: str,
    id: str,
    staged: Staged,
    results: tuple[CheckResult, ...],
    previous: DatasetVersion | None,
    lake: Lake,
    datasets: Datasets,
    now: datetime,
    causes: tuple[Cause, ...],
) -> Quarantine:
    name = _aside(dataset, staged.batch)
    try:
        rows = staged_rows(staged, lake)
    except NotFound:  # moved by an earlier attempt
        rows = lake.parked(name)
    address = lake.park(name, rows)
    point("during:quarantine")
    after = {"version": previous.version if previous else 0, "positions": staged.positions}
    lake.park(_aside(dataset, "_positions"), pl.DataFrame({"json": [json.dumps(after)]}))
    record = Quarantine(id=id, created_at=now, causes=causes, dataset=dataset, rows=staged.rows, address=address, checks=results)
    datasets.add_quarantine(record)
    point("during:quarantine:recorded")
    lake.unpark(_staging(dataset, staged.batch))
    return record


def _positions(dataset: str, previous: DatasetVersion | None, lake: Lake) -> Json:
    published: Json = previous.positions if previous else {}
    try:
        kept: dict[str, Any] = json.loads(lake.parked(_aside(dataset, "_positions"))["json"][0])
    except NotFound:
        return published
    # A version published after the quarantine was staged from its positions, and is further.
    return kept["positions"] if kept["version"] >= (previous.version if previous else 0) else published


def _typed(rows: pl.DataFrame, dataset: Dataset, schema: dict[str, str]) -> pl.DataFrame:
    times = {c for c in (dataset.time, dataset.known_at) if c is not None}
    casts = []
    for name, dtype in rows.schema.items():
        wanted = schema.get(name)
        if name in times or isinstance(dtype, pl.Datetime):
            casts.append(_instant(name, dtype))
        elif wanted is not None and wanted != dtype_text(dtype):
            casts.append(_conformed(name, dtype, wanted))
        elif dtype == pl.Null or isinstance(dtype, (pl.Categorical, pl.Enum)):
            casts.append(pl.col(name).cast(pl.String))
        elif dtype in (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64):
            casts.append(pl.col(name).cast(pl.Int64))
    try:
        return rows.with_columns(casts)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"dataset {dataset.name}: a column cannot be read as it is declared: {str(error).splitlines()[0]}",
            next=f"times ({', '.join(sorted(times)) or 'none declared'}) must be datetimes or RFC 3339 text",
            dataset=dataset.name,
        ) from error


def _instant(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.String:
        return column.str.to_datetime(time_unit="us", time_zone="UTC", strict=True)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return column.dt.convert_time_zone("UTC").cast(INSTANT)
    if isinstance(dtype, (pl.Datetime, pl.Date, pl.Null)):
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return column.str.to_datetime()  # fails by name: a number is no time


def _conformed(name: str, dtype: pl.DataType, wanted: str) -> pl.Expr:
    # Only what loses nothing; what is left over the check named `schema` refuses.
    column = pl.col(name)
    try:
        target = dtype_of(wanted)
    except DataError:
        return column
    widens = (dtype.is_integer() and target.is_numeric()) or (dtype.is_float() and target.is_float())
    as_text = isinstance(dtype, (pl.Categorical, pl.Enum)) and target == pl.String
    if dtype == pl.Null or widens or as_text:
        return column.cast(target)
    return column
