"""Failing rows as JSON, a few of each check, read in one pass for all checks that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from mulle.core.records.base import Json
from mulle.lifecycle.data.cells import plain
from mulle.lifecycle.data.checks.plan import ROW, SAMPLES, Found

__all__ = ["cell_json", "rows_as_json", "sampled"]

_FIRST = 50_000
"""Rows that are looked at for samples before all are."""

_LONG = 500
"""Characters of a text that a sample keeps."""


def sampled(rows: pl.LazyFrame, found: Mapping[int, Found]) -> dict[int, Sequence[Json]]:
    """Read the first failing rows of several checks.

    Parameters
    ----------
    rows : polars.LazyFrame
    found : mapping
        Any number to what was found: samples at hand, row numbers, or the expression that is true for failing rows.

    Returns
    -------
    dict
        For each number up to 20 rows, in the order of the batch.

    Examples
    --------
    >>> found = {0: Found(failed=2, mask=pl.col("x") > 3), 1: Found(failed=1, numbers=[0]), 2: Found()}
    >>> sampled(pl.LazyFrame({"x": [1, 5, 9]}), found)
    {0: ({'x': 5}, {'x': 9}), 1: ({'x': 1},), 2: ()}
    """
    # Row numbers first: they are narrow, so one pass finds those of every check; a second one fetches the rows.
    numbered = rows.with_row_index(ROW)
    numbers = {i: list(f.numbers) for i, f in found.items() if f.numbers}
    masks = {i: f.mask for i, f in found.items() if f.failed and f.mask is not None}
    # Most often the first rows hold enough of them.
    early = _numbers(numbered.head(_FIRST), {i: m for i, m in masks.items() if found[i].forward})
    numbers |= {i: ns for i, ns in early.items() if len(ns) == min(SAMPLES, found[i].failed)}
    numbers |= _numbers(numbered, {i: m for i, m in masks.items() if i not in numbers})
    wanted = sorted({n for ns in numbers.values() for n in ns})
    at: dict[int, Json] = {}
    if wanted:
        fetched = numbered.head(wanted[-1] + 1).filter(pl.col(ROW).is_in(wanted)).collect(engine="streaming")
        at = dict(zip(fetched[ROW].to_list(), rows_as_json(fetched.drop(ROW), len(wanted)), strict=True))
    return {i: tuple(at[n] for n in numbers[i]) if i in numbers else tuple(f.samples) for i, f in found.items()}


def _numbers(numbered: pl.LazyFrame, masks: Mapping[int, pl.Expr]) -> dict[int, list[int]]:
    if not masks:
        return {}
    firsts = [pl.col(ROW).filter(mask).head(SAMPLES).implode().alias(str(i)) for i, mask in masks.items()]
    try:
        read = numbered.select(firsts).collect(engine="streaming")
    except pl.exceptions.PolarsError:
        # An expression that gives one value for all rows points at none; each alone tells which it was.
        return {} if len(masks) == 1 else {i: ns for j, m in masks.items() for i, ns in _numbers(numbered, {j: m}).items()}
    return {i: read[str(i)][0].to_list() for i in masks}


def rows_as_json(rows: pl.DataFrame, most: int = SAMPLES) -> tuple[Json, ...]:
    """Give the first rows as JSON: times as RFC 3339, what JSON has no number for as text, long text cut.

    Examples
    --------
    >>> rows_as_json(pl.DataFrame({"x": [float("inf")]}))
    ({'x': 'inf'},)
    """
    return tuple({name: cell_json(value) for name, value in row.items()} for row in rows.head(most).to_dicts())


def cell_json(value: object) -> object:
    """Give a cell of a sample as a JSON value; long lists and texts are cut."""
    return plain(value, items=SAMPLES, letters=_LONG)
