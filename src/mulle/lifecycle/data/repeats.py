"""Rows given more than once: those that equal a row we have are left out, and within a batch the last one counts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import NotFound
from mulle.core.ports.lake import Lake
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.bookkeeping import data_columns
from mulle.lifecycle.data.version import read_version

__all__ = ["last_given", "published_again", "turned_away", "unseen"]

_ROW = "__row"


def published_again(
    dataset: Dataset, repeats: pl.Expr | None, previous: DatasetVersion | None, lake: Lake
) -> pl.DataFrame | None:
    """Give the published rows that a batch may repeat; None when it cannot.

    Parameters
    ----------
    dataset : Dataset
    repeats : polars.Expr or None
        Which of the published rows, as the source says.
    previous : DatasetVersion or None
    lake : Lake

    Returns
    -------
    polars.DataFrame or None
        Distinct rows without bookkeeping columns. A row that has been corrected since counts as it is now.
    """
    if repeats is None or previous is None:
        return None
    return _plain([read_version(lake, dataset, previous)], repeats)


def turned_away(dataset: Dataset, repeats: pl.Expr | None, aside: Sequence[str], lake: Lake) -> pl.DataFrame | None:
    """Give the rows of batches that were turned away and that a batch may repeat; None when there are none."""
    parts = []
    for batch in () if repeats is None else aside:
        try:
            parts.append(lake.parked(f"quarantine/{dataset.name}/{batch}"))
        except NotFound:  # erased or cleaned up
            continue
    return _plain(parts, repeats) if parts and repeats is not None else None


def _plain(parts: Sequence[pl.LazyFrame], repeats: pl.Expr) -> pl.DataFrame:
    plain = [part.filter(repeats).select(data_columns(part.collect_schema())) for part in parts]
    return pl.concat(plain, how="diagonal_relaxed").unique().collect()


def unseen(rows: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Leave out the rows that equal one of `seen` in every column; a column that one side lacks is null there."""
    comparable = {**seen.schema, **rows.schema}
    nested = [n for n, d in comparable.items() if d.is_nested()]
    if any(seen.schema.get(n, d) != d for n, d in rows.schema.items()):
        return rows  # of another type: a change, which the check named schema judges

    def whole(frame: pl.DataFrame) -> pl.DataFrame:
        missing = [pl.lit(None, d).alias(n) for n, d in comparable.items() if n not in frame.columns]
        texts = [pl.col(n).map_elements(repr, return_dtype=pl.String) for n in nested]
        return frame.with_columns(missing).with_columns(texts).select(sorted(comparable))

    numbered = whole(rows).with_row_index(_ROW)
    fresh = numbered.join(whole(seen), on=sorted(comparable), how="anti", nulls_equal=True)[_ROW].sort()
    return rows if fresh.len() == rows.height else rows[fresh]


def last_given(rows: pl.LazyFrame, dataset: Dataset, *, live: bool) -> pl.LazyFrame:
    """Keep, of a batch's rows with the same identity, the last one given: writing does not keep their order.

    Parameters
    ----------
    rows : polars.LazyFrame
        In the order of the source.
    dataset : Dataset
    live : bool
        False keeps one for each instant of `known_at`: history that is loaded later may say what was known when. True
        keeps the one with the latest.

    Returns
    -------
    polars.LazyFrame
        Rows with a null in their identity all stay.
    """
    same = list(dataset.identity)
    given = rows.collect_schema()
    if not same or not set(same) <= set(given):
        return rows
    known = [dataset.known_at] if dataset.known_at is not None and dataset.known_at in given else []
    named = rows.with_row_index(_ROW).select(_ROW, *dict.fromkeys(same + known)).drop_nulls(same).collect()
    if live:
        named = named.sort(*known, _ROW)
    else:
        same = list(dict.fromkeys(same + known))
    earlier = named.filter(~pl.struct(same).is_last_distinct()).select(_ROW)
    if earlier.is_empty():
        return rows
    return rows.with_row_index(_ROW).join(earlier.lazy(), on=_ROW, how="anti").drop(_ROW)
