"""Checks of single rows: each becomes an expression that is true where a row fails."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from mulle.core.declare.rules import Between, Bound, Holds, Increasing, Matches, NotNull, OneOf
from mulle.core.errors import DataError
from mulle.kernel.bookkeeping import BATCH
from mulle.kernel.dtypes import INSTANT, dtype_text
from mulle.lifecycle.data.checks.plan import ROW, Found, Plan, Scene, found_rows

__all__ = ["among", "between", "holds", "increasing", "instants", "matches", "not_null", "one_of"]

_COMPARED = 8
"""Texts that are compared one by one; beyond that Polars' hashed lookup is faster (measured: 1.1 ms a text, 7 to 13 ms)."""


def not_null(check: NotNull, scene: Scene) -> Plan:
    """Find nulls and NaN; nulls are counted without looking at rows."""
    column, floats = pl.col(check.column), scene.dtype(check.column).is_float()
    probes = (column.null_count(), column.is_nan().sum()) if floats else (column.null_count(),)
    mask = column.is_null() | column.is_nan() if floats else column.is_null()
    return Plan(lambda counts, _: Found(failed=sum(int(c or 0) for c in counts), says="nulls", mask=mask), probes)


def between(check: Between, scene: Scene) -> Plan:
    """Find values outside the bounds; NaN is outside."""
    dtype, low, high = scene.dtype(check.column), check.low, check.high
    column = pl.col(check.column)
    if isinstance(low, date):
        if not isinstance(dtype, (pl.Date, pl.Datetime)):
            raise scene.wrong(check.column, "times")
        column = instants(check.column, dtype)
        column = column if isinstance(low, datetime) else column.dt.date()
    elif not dtype.is_numeric():
        raise scene.wrong(check.column, "numbers")
    return _masked(~column.is_between(low, high), f"values outside {_shown(low)} to {_shown(high)}")


def matches(check: Matches, scene: Scene) -> Plan:
    """Find text in which the pattern is not found."""
    if scene.dtype(check.column) != pl.String:
        raise scene.wrong(check.column, "text")
    try:
        pl.Series([""]).str.contains(check.pattern)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the pattern cannot be read: {str(error).splitlines()[0]}") from error
    return _masked(~pl.col(check.column).str.contains(check.pattern), f"values that do not match {check.pattern}")


def one_of(check: OneOf, scene: Scene) -> Plan:
    """Find values that are not in the fixed set."""
    return among(check.column, pl.Series("codes", list(check.values), strict=False), "the given values", scene)


def among(column: str, codes: pl.Series, known: str, scene: Scene) -> Plan:
    """Find values that are not among the codes; null passes."""
    dtype = scene.dtype(column)
    numbers = codes.dtype.is_numeric() and dtype.is_numeric()
    if codes.dtype != dtype and not numbers:
        raise DataError(f"column '{column}' is {dtype_text(dtype)}, {known} are {dtype_text(codes.dtype)}")
    value = pl.col(column)
    if codes.dtype != dtype and not (codes.dtype.is_integer() and dtype.is_integer()):
        value, codes = value.cast(pl.Float64), codes.cast(pl.Float64)
    if dtype == pl.String and len(codes) <= _COMPARED:
        within = pl.any_horizontal(value == code for code in codes)
    else:
        within = value.is_in(codes.implode())
    return _masked(~within, f"values that are not among {known}")


def holds(check: Holds, scene: Scene) -> Plan:
    """Find rows for which the expression is false."""
    try:
        stated = pl.sql_expr(check.expr) if isinstance(check.expr, str) else check.expr
        dtype = scene.rows.select(stated.alias("holds")).collect_schema()["holds"]
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the expression cannot be read: {str(error).splitlines()[0]}") from error
    if dtype != pl.Boolean:
        raise DataError(f"the expression gives {dtype_text(dtype)}, expected true or false")
    # What a user writes may look at the whole column.
    return _masked(~stated, "rows for which it does not hold", forward=False)


def increasing(check: Increasing, scene: Scene) -> Plan:
    """Find values below the one before them. In a whole table each batch is judged by itself: only there rows have an order."""
    column = pl.col(check.column)
    by = list(check.by)
    for name in by:
        scene.dtype(name)
    if scene.dtype(check.column).is_float():
        column = column.fill_nan(None)
    says = f"values {'not above' if check.strictly else 'below'} the one before"
    batches = [c for c in (BATCH,) if scene.beside.whole and c in scene.raw.collect_schema()]
    before = column.forward_fill().shift(1)
    before = before.over(by + batches) if by + batches else before
    mask = column <= before if check.strictly else column < before
    if not batches:
        return _masked(mask, says)
    failing = scene.raw.with_row_index(ROW).filter(mask)
    return Plan(lambda _, __: found_rows(failing, says))


def instants(column: str, dtype: pl.DataType) -> pl.Expr:
    """Give a column of dates or datetimes as instants; without a zone they are UTC."""
    value = pl.col(column)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return value.cast(pl.Datetime("us", dtype.time_zone)).dt.convert_time_zone("UTC")
    return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(INSTANT)


def _masked(mask: pl.Expr, says: str, *, forward: bool = True) -> Plan:
    return Plan(lambda counts, _: Found(failed=int(counts[0] or 0), says=says, mask=mask, forward=forward), (mask.sum(),))


def _shown(bound: Bound) -> str:
    return str(bound) if isinstance(bound, date) else f"{bound:g}" if isinstance(bound, float) else str(bound)
