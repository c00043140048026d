"""Stage, audit, publish: new rows wait outside the table, and only audited ones become a dataset version.

The record of a version travels with its commit: whoever finds a commit without a record (a process died in between)
writes the record from it, so what a source gave is neither lost nor read twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import Conflict, NotFound
from mulle.core.hashing import derived_id, hash_json
from mulle.core.ports.lake import Lake
from mulle.core.ports.metadata import Datasets
from mulle.core.ports.source import Batch, SourceReader
from mulle.core.records.base import Cause, Json, from_json, to_json
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, verdict_of
from mulle.kernel.dtypes import INSTANT, dtype_of, dtype_text, schema_text
from mulle.kernel.faults import point
from mulle.lifecycle.data.content import ContentHash
from mulle.lifecycle.data.labels import LABELS, Labelled, labelled
from mulle.lifecycle.data.quarantine import ReadingState, reading_state, staging, turn_away
from mulle.lifecycle.data.repeats import last_given, published_again, unseen
from mulle.lifecycle.data.typed import declared_types, typed
from mulle.lifecycle.data.version import BATCH, INGESTED, LIVE, VERSION, read_version, table_name

__all__ = ["Staged", "publish", "recover", "restore", "stage", "staged_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A batch that waits for its audit; small and JSON-able (`to_json`, `from_json`), the rows stay in the lake.

    Attributes
    ----------
    batch : str
        Named by the caller; the same name stages the same batch again.
    at : datetime
        When it was staged.
    address : str
        Where the rows are parked.
    content : str
        The rows' content hash.
    positions : dict
        How far the source was read.
    origin : str
        Where the rows came from, for people.
    counted : int or None
        How many rows the source says these are.
    after : int
        The published version it was read on top of; 0 before the first.
    """

    dataset: str
    batch: str
    at: datetime
    address: str
    rows: int
    content: str
    positions: Json
    origin: str
    counted: int | None = None
    after: int = 0

    @property
    def id(self) -> str:
        """The id of the version or quarantine that this batch becomes."""
        return derived_id(self.at, self.dataset, self.batch)


def stage(
    dataset: Dataset,
    reader: SourceReader,
    previous: DatasetVersion | None,
    lake: Lake,
    *,
    batch: str,
    now: datetime,
    until: datetime | None = None,
    labels: SourceReader | None = None,
) -> Staged | None:
    """Read what is new and park it under ``staging/<dataset>/<batch>``, in bounded memory.

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
        Stands in for `known_at` where labels have none.
    until : datetime, optional
        On a replay clock: only rows known by then.
    labels : SourceReader, optional
        The reader of the dataset's labels.

    Returns
    -------
    Staged or None
        None when there is nothing new.

    Raises
    ------
    DataError
        When a file cannot be read, or a column declared as a time holds none.
    """
    state = reading_state(dataset.name, previous, lake)
    positions = {name: value for name, value in state.positions.items() if name != LABELS}
    found = reader.read(positions, until)
    known = labelled(dataset, labels, state.positions.get(LABELS), previous, lake, batch=batch, now=now, until=until)
    if found is None and known is None:
        return None
    hashed = ContentHash()
    pieces = _pieces(dataset, found, known, previous, state, lake)
    address = lake.park(staging(dataset.name, batch), _hashed(pieces, hashed))
    point("during:stage")
    if not hashed.rows:
        lake.unpark(staging(dataset.name, batch))
        return None
    reached = positions if found is None else found.positions
    return Staged(
        dataset=dataset.name,
        batch=batch,
        at=now,
        address=address,
        rows=hashed.rows,
        content=hashed.digest(),
        positions=_with_labels(reached, state.positions.get(LABELS) if known is None else known.positions),
        origin="; ".join(o for o in (found and found.origin, known and known.origin) if o),
        counted=None if found is None or found.repeats is not None or known is not None else found.counted,
        after=previous.version if previous else 0,
    )


def staged_rows(staged: Staged, lake: Lake) -> pl.LazyFrame:
    """Read a staged batch back, for its audit.

    Raises
    ------
    NotFound
        When it was published or moved meanwhile.
    """
    return lake.parked(staging(staged.dataset, staged.batch))


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
        return turn_away(refused, staged.batch, staged.positions, previous, lake, datasets)
    latest = recover(dataset.name, lake, datasets)
    if latest is None or latest.id != staged.id:
        record = _next(dataset, staged, previous, lake, now=now, causes=tuple(causes), checks=tuple(results), live=live)
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
    """Publish an earlier version's rows as the next version; the source goes on from where it was read.

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
        positions=last.positions,
        lake_version=0,
    )
    rows = read_version(lake, dataset, target, superseded=True)
    lake.replace(record.table, rows, application=_application(dataset.name), sequence=number, note=to_json(record))
    point("during:restore")
    return recover(dataset.name, lake, datasets) or record


def _pieces(
    dataset: Dataset,
    found: Batch | None,
    known: Labelled | None,
    previous: DatasetVersion | None,
    state: ReadingState,
    lake: Lake,
) -> Iterator[pl.DataFrame]:
    schema = previous.schema if previous else {}
    if found is not None:
        seen = published_again(dataset, found.repeats, previous, state.aside, lake)
        for piece in found.pieces:
            rows = typed(piece, dataset, schema)
            yield rows if seen is None else unseen(rows, seen)
    if known is not None:
        yield from known.pieces


def _with_labels(positions: Json, labels: Json | None) -> Json:
    return positions if labels is None else {**positions, LABELS: labels}


def _hashed(pieces: Iterator[pl.DataFrame], hashed: ContentHash) -> Iterator[pl.DataFrame]:
    for piece in pieces:
        hashed.update(piece)
        yield piece


def _next(
    dataset: Dataset,
    staged: Staged,
    previous: DatasetVersion | None,
    lake: Lake,
    *,
    now: datetime,
    causes: tuple[Cause, ...],
    checks: tuple[CheckResult, ...],
    live: bool,
) -> DatasetVersion:
    number = previous.version + 1 if previous else 1
    rows = staged_rows(staged, lake)
    replaced = _replaced(dataset, rows, previous, lake)
    return DatasetVersion(
        id=staged.id,
        created_at=now,
        causes=causes,
        dataset=dataset.name,
        version=number,
        rows=(previous.rows if previous else 0) + staged.rows - replaced,
        added=staged.rows,
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
        before = read_version(lake, dataset, previous, superseded=True).select(columns).unique()
        known = int(distinct.join(before, on=columns, how="semi").select(pl.len()).collect().item())
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
