"""Outcomes that come later or from people: each becomes a corrected version of the row it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DataError, NotFound
from mulle.core.ports.lake import Lake
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.bookkeeping import data_columns
from mulle.kernel.dtypes import INSTANT
from mulle.lifecycle.data.typed import typed
from mulle.lifecycle.data.version import read_version

__all__ = ["LABELS", "Labelled", "keep_outcomes", "labelled", "matched_rows", "outcomes"]

LABELS = "_labels"
"""Where a version's positions keep those of the dataset's labels."""

_PUBLISHED = "__published"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows with their outcome, ready to be staged.

    Attributes
    ----------
    pieces : tuple of DataFrame
        Full rows of the dataset.
    positions : dict
        How far the labels were read, the version they were matched with, and where unmatched ones wait.
    """

    pieces: tuple[pl.DataFrame, ...]
    positions: Json
    origin: str


def labelled(
    dataset: Dataset,
    reader: SourceReader,
    positions: Json | None,
    previous: DatasetVersion,
    lake: Lake,
    *,
    batch: str,
    now: datetime,
    until: datetime | None = None,
) -> Labelled | None:
    """Match what is new of a dataset's labels, and what still waited, with its published rows.

    A label names its row by key and time, or by key alone (then the latest row of that key). One whose row is not
    published yet waits in ``pending/<dataset>/<batch>`` and is tried again after the next publish.

    Returns
    -------
    Labelled or None
        None when no row gets an outcome; nothing is recorded then, and the same labels are read again next time.

    Raises
    ------
    DataError
        When the labels lack the key or every outcome column.
    """
    state = positions or {}
    waiting = _waiting(state, lake) if state.get("version", 0) < previous.version else None
    found = reader.read(state.get("source", {}), until)
    if found is None and waiting is None:
        return None
    fresh = None if found is None else _named(dataset, found.frame(), now)
    if fresh is not None and waiting is None:
        waiting = _waiting(state, lake)
    parts = [p for p in (waiting, fresh) if p is not None and p.height]
    if not parts:
        return None
    known = pl.concat(parts, how="diagonal_relaxed")
    rows = read_version(lake, dataset, previous).collect()
    matched, rest = matched_rows(dataset, rows, known)
    if matched.is_empty():
        return None
    pending = f"pending/{dataset.name}/{batch}"
    if rest.height:
        lake.park(pending, rest)
    after = {
        "source": state.get("source", {}) if found is None else found.positions,
        "version": previous.version,
        "pending": pending if rest.height else None,
    }
    origin = f"labels from {found.origin}" if found is not None else "labels that waited for their rows"
    return Labelled((typed(matched, dataset, previous.schema),), after, origin)


def matched_rows(dataset: Dataset, rows: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give rows the outcome that labels bring, and the labels that name none of them.

    Parameters
    ----------
    rows : polars.DataFrame
        Published rows, one per identity.
    known : polars.DataFrame
        Labels; of several for one row the last counts.

    Returns
    -------
    tuple of DataFrame
        Only rows that change, without bookkeeping columns; and the labels left over.
    """
    timed = dataset.time is not None and dataset.time in known.columns
    on = list(dataset.identity if timed else dataset.key)
    plain = rows.select(data_columns(rows.columns))
    if not timed:
        plain = (plain.sort(dataset.time, maintain_order=True) if dataset.time else plain).unique(on, keep="last")
    labels = known.with_columns(pl.col(c).cast(plain.schema[c]) for c in on).unique(on, keep="last", maintain_order=True)
    brought = [c for c in _late(dataset) if c in labels.columns]
    labels = _fitting(labels, dataset, {c: plain.schema[c] for c in brought if c in plain.columns})
    matched = plain.join(labels.select(*on, *brought), on=on, how="inner", suffix="__new", maintain_order="left")
    changed = pl.any_horizontal(
        pl.col(f"{c}__new").ne_missing(pl.col(c)) if c in plain.columns else pl.col(c).is_not_null()
        for c in brought
        if c in dataset.outcome
    )
    renewed = [pl.col(f"{c}__new").alias(c) for c in brought if c in plain.columns]
    rest = labels.join(plain.select(on), on=on, how="anti", maintain_order="left")
    return matched.filter(changed).with_columns(renewed).drop(f"{c}__new" for c in brought if c in plain.columns), rest


def outcomes(dataset: Dataset, previous: DatasetVersion | None, lake: Lake) -> pl.DataFrame | None:
    """Give the published outcomes by identity; None where no label can have brought one."""
    if dataset.labels is None or previous is None:
        return None
    brought = [c for c in _late(dataset) if c in previous.schema]
    known = [c for c in brought if c in dataset.outcome]
    if not known or not set(dataset.identity) <= set(previous.schema):
        return None
    rows = read_version(lake, dataset, previous).filter(pl.any_horizontal(pl.col(c).is_not_null() for c in known))
    found = rows.select(*dataset.identity, *brought).drop_nulls(dataset.identity).collect()
    return found if found.height else None


def keep_outcomes(rows: pl.DataFrame, known: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Give rows that come again without an outcome the one that a label brought.

    Parameters
    ----------
    rows : polars.DataFrame
        In the dataset's types.
    known : polars.DataFrame
        What `outcomes` gave.

    Returns
    -------
    polars.DataFrame
        The same rows in the same order. An outcome that the source itself gives stands.
    """
    on = list(dataset.identity)
    brought = [c for c in known.columns if c not in on and c in rows.columns]
    if any(c not in rows.columns or rows.schema[c] != known.schema[c] for c in on):
        return rows  # of another type: a change, which the check named schema judges
    both = rows.join(known, on=on, how="left", suffix=_PUBLISHED, maintain_order="left")
    same = [c for c in brought if rows.schema[c] == known.schema[c] or rows.schema[c] == pl.Null]
    return both.with_columns(pl.coalesce(c, f"{c}{_PUBLISHED}") for c in same).select(rows.columns)


def _late(dataset: Dataset) -> tuple[str, ...]:
    return (*dataset.outcome, *((dataset.known_at,) if dataset.known_at else ()))


def _fitting(labels: pl.DataFrame, dataset: Dataset, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    for name, dtype in types.items():
        try:
            labels = labels.with_columns(pl.col(name).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"labels of {dataset.name}: '{name}' is {labels.schema[name]}, and {dtype} in the published rows",
                next=f'declare its type: ml.Dataset(..., schema={{"{name}": "{labels.schema[name]}"}})',
                dataset=dataset.name,
                column=name,
            ) from error
    return labels


def _named(dataset: Dataset, labels: pl.DataFrame, now: datetime) -> pl.DataFrame:
    lacking = [c for c in dataset.key if c not in labels.columns]
    if lacking or not any(c in labels.columns for c in dataset.outcome):
        raise DataError(
            f"labels of {dataset.name} have columns {', '.join(labels.columns)}; "
            f"'{lacking[0] if lacking else dataset.outcome[0]}' is missing",
            next="labels carry the dataset's key, its time where rows share a key, and outcome columns",
            dataset=dataset.name,
        )
    labels = labels.with_columns(
        pl.col(c).str.to_datetime(time_unit="us", time_zone="UTC")
        for c in (dataset.time, dataset.known_at)
        if c in labels.columns and labels.schema[c] == pl.String
    )
    if dataset.known_at is None:
        return labels
    stamp = pl.lit(now, dtype=INSTANT)
    if dataset.known_at not in labels.columns:
        return labels.with_columns(stamp.alias(dataset.known_at))
    return labels.with_columns(pl.col(dataset.known_at).fill_null(stamp))


def _waiting(state: Json, lake: Lake) -> pl.DataFrame | None:
    if not state.get("pending"):
        return None
    try:
        return lake.parked(state["pending"]).collect()
    except NotFound:  # erased
        return None
