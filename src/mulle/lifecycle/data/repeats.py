"""Rows that a source gives again: those that equal a row we have, published or turned away, are left out."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import NotFound
from mulle.core.ports.lake import Lake
from mulle.core.records.dataset import DatasetVersion
from mulle.lifecycle.data.version import read_version

__all__ = ["published_again", "unseen"]


def published_again(
    dataset: Dataset, repeats: pl.Expr | None, previous: DatasetVersion | None, aside: Sequence[str], lake: Lake
) -> pl.DataFrame | None:
    """Give the rows that a batch may repeat; None when it cannot.

    Parameters
    ----------
    dataset : Dataset
    repeats : polars.Expr or None
        Which of the published rows, as the source says.
    previous : DatasetVersion or None
    aside : sequence of str
        Batches that were turned away since: a row that failed once is not judged again while it stays the same.
    lake : Lake

    Returns
    -------
    polars.DataFrame or None
        Distinct rows without bookkeeping columns. A row that has been corrected since counts as it is now.
    """
    if repeats is None:
        return None
    parts = [] if previous is None else [read_version(lake, dataset, previous)]
    for batch in aside:
        try:
            parts.append(lake.parked(f"quarantine/{dataset.name}/{batch}"))
        except NotFound:  # erased or cleaned up
            continue
    if not parts:
        return None
    plain = [part.filter(repeats).select(c for c in part.collect_schema() if not c.startswith("_")) for part in parts]
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

    numbered = whole(rows).with_row_index("__row")
    fresh = numbered.join(whole(seen), on=sorted(comparable), how="anti", nulls_equal=True)["__row"].sort()
    return rows if fresh.len() == rows.height else rows[fresh]
