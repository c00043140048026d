"""Publishing: only audited rows become a dataset version, in one transaction.

The record of a version travels with its commit: whoever finds a commit without a record (a process died in between)
writes the record from it, so what a source gave is neither lost nor read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import Conflict, NotFound
from mulle.core.hashing import derived_id, hash_json
from mulle.core.ports.lake import Lake
from mulle.core.ports.metadata import Datasets
from mulle.core.records.base import Cause, from_json, to_json
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, verdict_of
from mulle.kernel.bookkeeping import BATCH, INGESTED, LIVE, VERSION
from mulle.kernel.dtypes import INSTANT, dtype_of, dtype_text, schema_text
from mulle.kernel.faults import point
from mulle.lifecycle.data.quarantine import reading_state, staging, turn_away
from mulle.lifecycle.data.repeats import last_given
from mulle.lifecycle.data.stage import Staged, staged_rows
from mulle.lifecycle.data.typed import declared_types
from mulle.lifecycle.data.version import read_version, table_name

__all__ = ["publish", "recover", "restore"]


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
    live: bool = False,
) -> DatasetVersion | Quarantine:
    """Publish an audited batch in one transaction, or move it aside.

    A ``fail`` verdict moves the rows to ``quarantine/<dataset>/<batch>`` with a record of the reasons; the published
    version stays. The positions then go to the lake as ``quarantine/<dataset>/_positions``, where `stage` finds them.
    Running the step again with the same batch adds nothing and returns the same record.

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
        The rows' ``_ingested_at``: nobody can have used them earlier.
    causes : sequence of Cause
    live : bool
        True for rows that arrive as the world goes on: they count as available from `now` at the earliest. False for
        history that is loaded later: available from `known_at` alone.

    Returns
    -------
    DatasetVersion or Quarantine

    Raises
    ------
    Conflict
        When another process published meanwhile; the batch is left to be staged again.
    """
    if verdict_of(tuple(results)) == "fail":
        refused = Quarantine(
            id=staged.id,
            created_at=now,
            causes=tuple(causes),
            dataset=dataset.name,
            rows=staged.rows,
            address="",
            checks=tuple(results),
        )
        return turn_away(refused, staged.batch, staged.refused or staged.positions, previous, lake, datasets)
    latest = recover(dataset.name, lake, datasets)
    if latest is None or latest.id != staged.id:
        record = _next(dataset, staged, previous, lake, datasets, now=now, causes=tuple(causes), checks=tuple(results), live=live)
        _append(dataset, staged, record, previous, lake)
        latest = recover(dataset.name, lake, datasets)
    if latest is None or latest.id != staged.id:
        raise Conflict(
            f"dataset {dataset.name}: another process published meanwhile",
            next="try again: what is new is read on top of it",
            dataset=dataset.name,
        )
    point("during:publish:recorded")
    lake.unpark(staging(dataset.name, staged.batch))
    return latest


def _append(dataset: Dataset, staged: Staged, record: DatasetVersion, previous: DatasetVersion | None, lake: Lake) -> None:
    given = staged_rows(staged, lake)
    if record.replaced:
        given = last_given(given, dataset, live=not record.bulk)
    rows = given.with_columns(
        pl.lit(record.created_at).cast(INSTANT).alias(INGESTED),
        pl.lit(staged.batch).alias(BATCH),
        pl.lit(record.version, dtype=pl.Int32).alias(VERSION),
        pl.lit(not record.bulk).alias(LIVE),
    )
    _widen(dataset, record, previous, lake)
    lake.append(record.table, rows, application=_application(dataset.name), sequence=record.version, note=to_json(record))
    point("during:publish:appended")


def recover(dataset: str, lake: Lake, datasets: Datasets) -> DatasetVersion | None:
    """Write the records of commits that have none yet; return the last version."""
    last = datasets.get(dataset)
    for note in lake.notes(table_name(dataset), _application(dataset), last.version if last else 0):
        last = datasets.add(replace(from_json(DatasetVersion, note.words), lake_version=note.version))
    return last


def restore(
    dataset: Dataset, target: DatasetVersion, lake: Lake, datasets: Datasets, *, now: datetime, causes: Sequence[Cause]
) -> DatasetVersion:
    """Publish an earlier version's rows as the next version; the source goes on from where it was read,
    and what was turned away stays away.

    Raises
    ------
    NotFound
        When nothing is published.
    """
    last = recover(dataset.name, lake, datasets)
    if last is None:
        raise NotFound(f"dataset {dataset.name} has no published version", next="ingest it first", dataset=dataset.name)
    number = last.version + 1
    record = replace(
        target,
        id=derived_id(now, dataset.name, f"restore-{target.version}-{number}"),
        created_at=now,
        causes=tuple(causes),
        version=number,
        added=0,
        replaced=0,
        brought=last.brought or last.added,
        positions=reading_state(dataset.name, last, lake).positions,
        lake_version=0,
    )
    rows = read_version(lake, dataset, target, superseded=True)
    lake.replace(record.table, rows, application=_application(dataset.name), sequence=number, note=to_json(record))
    point("during:restore")
    return recover(dataset.name, lake, datasets) or record


def _next(
    dataset: Dataset,
    staged: Staged,
    previous: DatasetVersion | None,
    lake: Lake,
    datasets: Datasets,
    *,
    now: datetime,
    causes: tuple[Cause, ...],
    checks: tuple[CheckResult, ...],
    live: bool,
) -> DatasetVersion:
    number = previous.version + 1 if previous else 1
    rows = staged_rows(staged, lake)
    replaced = _replaced(dataset, rows, previous, lake)
    before = 0 if previous is None else _still_there(dataset, previous, lake, datasets)
    return DatasetVersion(
        id=staged.id,
        created_at=now,
        causes=causes,
        dataset=dataset.name,
        version=number,
        rows=before + staged.rows - replaced,
        added=staged.rows,
        brought=(previous.brought or previous.added) if staged.labels and previous else staged.rows,
        replaced=replaced,
        hash=hash_json([previous.hash if previous else "", staged.content]),
        schema={**schema_text(rows), **(previous.schema if previous else {}), **_declared_here(dataset, rows)},
        table=table_name(dataset.name),
        lake_version=0,
        spans=_spans(previous, number),
        positions=staged.positions,
        bulk=not live,
        checks=checks,
    )


def _still_there(dataset: Dataset, previous: DatasetVersion, lake: Lake, datasets: Datasets) -> int:
    erased = datasets.erasures(dataset.name, 1)
    if not erased or erased[0].created_at < previous.created_at:
        return previous.rows
    return int(read_version(lake, dataset, previous).select(pl.len()).collect().item())


def _declared_here(dataset: Dataset, rows: pl.LazyFrame) -> dict[str, str]:
    have = rows.collect_schema()
    return {name: text for name, text in declared_types(dataset).items() if name in have}


def _replaced(dataset: Dataset, rows: pl.LazyFrame, previous: DatasetVersion | None, lake: Lake) -> int:
    columns = list(dataset.identity)
    if not columns or not set(columns) <= set(rows.collect_schema()):
        return 0
    named = rows.select(columns).drop_nulls()
    distinct = named.unique()
    known = 0
    if previous is not None:
        before = read_version(lake, dataset, previous, superseded=True).select(columns)
        if dataset.time is not None:
            # Files keep the bounds of each column, so that of a long history only the span of the new rows is read.
            first, last = named.select(pl.col(dataset.time).min(), pl.col(dataset.time).max().alias("last")).collect().row(0)
            before = before.filter(pl.col(dataset.time).is_between(first, last))
        known = int(distinct.join(before.unique(), on=columns, how="semi").select(pl.len()).collect().item())
    again = named.select(pl.len()).collect().item() - distinct.select(pl.len()).collect().item()
    return int(again) + known


def _spans(previous: DatasetVersion | None, number: int) -> tuple[tuple[int, int], ...]:
    if previous is None:
        return ((number, number),)
    *earlier, (first, last) = previous.spans or ((1, previous.version),)
    return (*earlier, (first, number)) if last == number - 1 else (*earlier, (first, last), (number, number))


def _widen(dataset: Dataset, record: DatasetVersion, previous: DatasetVersion | None, lake: Lake) -> None:
    before = previous.schema if previous else {}
    wider = {n: dtype_of(t) for n, t in declared_types(dataset).items() if before.get(n, t) != t and n in record.schema}
    if not wider:
        return
    table = lake.scan(record.table)
    casts = [pl.col(name).cast(dtype, strict=True) for name, dtype in wider.items()]
    types = {name: dtype_text(dtype) for name, dtype in wider.items()}
    application = f"types/{dataset.name}/{hash_json([record.version, types])[:12]}"
    lake.replace(record.table, table.with_columns(casts), application=application, sequence=1)


def _application(dataset: str) -> str:
    return f"ingest/{dataset}"
