"""The transform contract: one user's function for training, batch, stream and online, proven to be row-wise."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import polars as pl

from mulle.core.errors import MulleError, TransformError
from mulle.kernel.encode import encode, feature_specs, unseen
from mulle.kernel.rows import cast_inputs, frame_from_rows, raw_inputs

__all__ = [
    "cast_inputs",
    "encode",
    "feature_specs",
    "frame_from_rows",
    "prove_row_wise",
    "raw_inputs",
    "run_transform",
    "unseen",
]

Transform = Callable[[pl.LazyFrame], pl.LazyFrame]

_ROW = "__row"
_SAMPLE = 512
_SINGLES = 8
_TWO = 2
_BLANK_ROWS = 3
_CLOSE = 1e-9


_FEW = 1_000
_UNPLANNED = pl.QueryOptFlags.none()


def run_transform(transform: Transform, frame: pl.DataFrame) -> pl.DataFrame:
    """Run a user's feature function.

    Parameters
    ----------
    transform : callable
        From a lazy frame to a lazy frame of the same rows; a `Features` is one.
    frame : polars.DataFrame
        Input columns, and joined columns named ``join.column``.

    Returns
    -------
    polars.DataFrame
        Same height and order.

    Raises
    ------
    TransformError
        When the function fails, returns something else than a frame, or changes the number of rows.

    Examples
    --------
    >>> run_transform(lambda rows: rows.select(y=pl.col("x") * 2), pl.DataFrame({"x": [1, 2]}))["y"].to_list()
    [2, 4]
    """
    name = _name(transform)
    try:
        answer = transform(_lazy(frame))
        features = _collected(answer, frame.height) if isinstance(answer, pl.LazyFrame) else answer
    except MulleError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise TransformError(f"feature function {name} failed: {cause}", next=_hint(error), function=name, cause=cause) from error
    if not isinstance(features, pl.DataFrame):
        raise TransformError(
            f"feature function {name} returned a {type(features).__name__}", next="return the lazy frame", function=name
        )
    if features.height != frame.height:
        raise TransformError(
            f"feature function {name} made {features.height} rows of {frame.height}",
            next="it must be row-wise: no filter, group_by, join that multiplies or bare literals; clean rows before, aggregate "
            "with ml.history",
            function=name,
            column=features.columns[0] if features.width == 1 else "",
        )
    return features


class _Few(pl.LazyFrame):
    """Few rows: columns are computed one after the other in the caller's thread.

    Handing them to Polars' threads costs more than computing them, and on a busy machine a millisecond of waiting.
    """

    def select(self, *exprs: Any, **named: Any) -> pl.LazyFrame:
        return self.select_seq(*exprs, **named)

    def with_columns(self, *exprs: Any, **named: Any) -> pl.LazyFrame:
        return self.with_columns_seq(*exprs, **named)


def _lazy(frame: pl.DataFrame) -> pl.LazyFrame:
    rows = frame.lazy()
    if frame.height <= _FEW:
        rows.__class__ = _Few  # what it returns is of its class again
    return rows


def _collected(answer: pl.LazyFrame, height: int) -> pl.DataFrame:
    # For a few rows planning costs more than it saves: measured 55-75 us without against 140-185 us with.
    if height <= _FEW:
        return answer.collect(engine="in-memory", optimizations=_UNPLANNED)
    return answer.collect()


def prove_row_wise(transform: Transform, frame: pl.DataFrame, *, seed: int = 0) -> None:
    """Prove on a sample that each row's features depend on that row alone.

    The function is run on the whole sample twice, its halves, a permutation, the sample repeated to more than a thousand
    rows, single rows, rows that are all null, the sample mixed with such rows, and frames in which some columns have no
    value; a column ``__row`` numbers the rows and may be dropped by the function. Columns that have one value in the whole
    sample, or none, would hide a mean or a rank: they are given made-up values for one more proof, where the function
    takes those.

    Parameters
    ----------
    transform : callable
    frame : polars.DataFrame
        Rows as the function gets them, joined columns included; at most 512 of them are used.
    seed : int

    Raises
    ------
    TransformError
        When a value, its kind, the number or the order of rows changes; facts name the ``column``.

    Examples
    --------
    >>> prove_row_wise(lambda rows: rows.select(pl.col("x") * 2), pl.DataFrame({"x": [1.0, 2.0, 4.0]}))
    >>> prove_row_wise(lambda rows: rows.select(pl.col("x").rank()), pl.DataFrame({"x": [4.0, 2.0, 1.0]}))
    Traceback (most recent call last):
    ...
    mulle.core.errors.TransformError: feature 'x' of <lambda> changes when the rows are halved (row 0: 3.0, then 1.0)
    """
    sample = frame if frame.height <= _SAMPLE else frame.sample(_SAMPLE, seed=seed, shuffle=True)
    sample = sample.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_ROW))
    count = sample.height
    whole = _run(transform, sample, "the whole sample")
    _refuse_codes(transform, sample)
    order = list(range(count))
    _compare(transform, whole, sample, order, "given a second time")
    shuffled = random.Random(seed).sample(order, count)
    _prove_parts(transform, whole, sample, shuffled)
    # More rows than are collected without a plan, so that both ways of running are seen.
    _compare(transform, whole, sample, order * (_FEW // max(count, 1) + 1), "repeated")
    _prove_nulls(transform, whole, sample)
    _prove_null_columns(transform, sample, shuffled[:_BLANK_ROWS])
    _prove_made_up(transform, sample, shuffled)


def _prove_parts(transform: Transform, whole: pl.DataFrame, sample: pl.DataFrame, shuffled: list[int]) -> None:
    half = sample.height // 2
    for part in (list(range(half)), list(range(half, sample.height))):
        _compare(transform, whole, sample, part, "halved")
    _compare(transform, whole, sample, shuffled, "permuted")
    for row in shuffled[:_SINGLES]:
        _compare(transform, whole, sample, [row], "taken one by one")


def _prove_made_up(transform: Transform, sample: pl.DataFrame, shuffled: list[int]) -> None:
    """Give columns without two different values some, and hold the parts of such a sample against it."""
    same = [name for name in _columns(sample) if not sample.schema[name].is_nested() and sample[name].n_unique() < _TWO]
    made = {name: values for name in same if (values := _made_up(sample.schema[name])) is not None}
    if not made or sample.height < _TWO:
        return
    filled = sample.with_columns(values.alias(name) for name, values in made.items())
    try:
        whole = _run(transform, filled, f"a sample with made-up values of {', '.join(made)}")
    except TransformError as error:
        if "cause" in error.facts:
            return  # the function knows its column's values better than we do
        raise
    _prove_parts(transform, whole, filled, shuffled)


def _made_up(dtype: pl.DataType) -> pl.Expr | None:
    """Give values of a type that differ from row to row, and some nulls; None for types that have no plain ones."""
    number = pl.when(pl.col(_ROW) % 5 < 4).then((pl.col(_ROW) * 7) % 97 + 1)
    if dtype.is_numeric():
        return number.cast(dtype, strict=False)
    if isinstance(dtype, pl.Boolean):
        return number % 2 == 0
    if isinstance(dtype, (pl.String, pl.Categorical)):
        return pl.format("v{}", number).cast(dtype)
    if isinstance(dtype, pl.Datetime):
        moment = (number * 3_600_000_000).cast(pl.Datetime("us"))
        zoned = moment.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else moment
        return zoned.dt.cast_time_unit(dtype.time_unit)
    return number.cast(dtype) if isinstance(dtype, (pl.Date, pl.Duration)) else None


def _prove_nulls(transform: Transform, whole: pl.DataFrame, sample: pl.DataFrame) -> None:
    blank = _blanked(sample.head(_BLANK_ROWS), _columns(sample)).with_columns(pl.col(_ROW) + sample.height)
    nulls = _run(transform, blank, "rows that are all null")
    _same_shape(transform, whole, nulls, "all null")
    mixed = _run(transform, pl.concat([sample, blank]), "a sample with null rows")
    _same(transform, pl.concat([whole, nulls], how="vertical_relaxed"), mixed, "mixed with null rows")


def _prove_null_columns(transform: Transform, sample: pl.DataFrame, rows: list[int]) -> None:
    """Hold rows in frames without a value in some columns against the same rows beside others that have such values."""
    groups = _null_groups(_columns(sample))
    if not rows or not groups:
        return
    variants = [_blanked(sample[rows], names) for names in groups]
    together = _run(transform, pl.concat([sample, *variants]), "rows with null columns")[sample.height :]
    for number, (names, variant) in enumerate(zip(groups, variants, strict=True)):
        how = f"in a frame without values of {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        expected = together[number * len(rows) : (number + 1) * len(rows)]
        _same(transform, expected, _run(transform, variant, f"rows {how}"), how)


def _refuse_codes(transform: Transform, sample: pl.DataFrame) -> None:
    # A category's number depends on what this process has seen before, which no sample can show.
    answer = transform(sample.head(1).lazy())
    plan = answer.explain(optimized=False) if isinstance(answer, pl.LazyFrame) else ""
    if "Categorical" in plan and "to_physical(" in plan:
        raise TransformError(
            f"feature function {_name(transform)} takes the numbers of a Categorical, which differ from process to process",
            next="leave the text as it is, the model encodes it; what needs other rows belongs into ml.history",
            function=_name(transform),
        )


def _null_groups(names: list[str]) -> list[list[str]]:
    """Group columns so that for each two there is a group with the one and without the other; 2 log2(n) groups.

    Examples
    --------
    >>> _null_groups(["a", "b", "c"])
    [['b'], ['a', 'c'], ['c'], ['a', 'b']]
    """
    bits = max(len(names) - 1, 0).bit_length() or len(names)
    sides = [[n for i, n in enumerate(names) if (i >> bit) & 1 == side] for bit in range(bits) for side in (1, 0)]
    return [group for group in sides if group]


def _columns(sample: pl.DataFrame) -> list[str]:
    return [name for name in sample.columns if name != _ROW]


def _blanked(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    schema = rows.schema
    return rows.with_columns(pl.lit(None, dtype=schema[name]).alias(name) for name in names)


def _compare(transform: Transform, whole: pl.DataFrame, sample: pl.DataFrame, rows: list[int], how: str) -> None:
    if rows:
        _same(transform, whole[rows], _run(transform, sample[rows], f"rows {how}"), how)


def _run(transform: Transform, rows: pl.DataFrame, what: str) -> pl.DataFrame:
    try:
        features = run_transform(transform, rows)
    except TransformError as error:
        raise TransformError(f"{error.detail} (on {what})", next=error.next, **error.facts) from error
    if _ROW in features.columns:
        if features[_ROW].to_list() != rows[_ROW].to_list():
            raise _refused(transform, _ROW, f"changes the order of rows (on {what})")
        features = features.drop(_ROW)
    return features


def _same(transform: Transform, expected: pl.DataFrame, found: pl.DataFrame, how: str) -> None:
    if expected.columns == found.columns and expected.dtypes == found.dtypes and expected.equals(found):
        return
    _same_shape(transform, expected, found, how)
    for name in expected.columns:
        row = _first_difference(expected[name], found[name])
        if row is not None:
            raise _changed(transform, name, f"(row {row}: {expected[name][row]!r}, then {found[name][row]!r})", how)


def _same_shape(transform: Transform, expected: pl.DataFrame, found: pl.DataFrame, how: str) -> None:
    if expected.columns != found.columns:
        column = min(set(expected.columns) ^ set(found.columns), default="")
        raise _refused(transform, column, f"returns columns {found.columns} when the rows are {how}, else {expected.columns}")
    for name, was, now in zip(expected.columns, expected.dtypes, found.dtypes, strict=True):
        if _kind(was) != _kind(now) and not _empty(expected[name]) and not _empty(found[name]):
            raise _changed(transform, name, f"(its type: {was}, then {now})", how)


def _kind(dtype: pl.DataType) -> str:
    # What the encoding tells apart: a number of any width or a truth is one float, texts of any kind are text.
    if dtype.is_numeric() or isinstance(dtype, pl.Boolean):
        return "number"
    return "text" if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)) else type(dtype).__name__


def _empty(values: pl.Series) -> bool:
    return isinstance(values.dtype, pl.Null)


def _changed(transform: Transform, column: str, said: str, how: str) -> TransformError:
    name = _name(transform)
    if how == "given a second time":
        mend = "a feature may use neither random values nor a counter, a cache or the clock: take what it needs from its row"
    else:
        mend = "a feature may look at its own row only: put .mean(), .rank(), .shift() and the like into ml.history, "
        mend += "and leave filter and sort out"
    return TransformError(
        f"feature '{column}' of {name} changes when the rows are {how} {said}", next=mend, column=column, function=name
    )


def _first_difference(a: pl.Series, b: pl.Series) -> int | None:
    if _kind(a.dtype) == _kind(b.dtype) == "number":
        pair = pl.DataFrame({"a": a.cast(pl.Float64), "b": b.cast(pl.Float64)})
        x, y = pl.col("a").fill_nan(None), pl.col("b").fill_nan(None)
        # Vectorised sums and powers may differ in the last bits between a lane and a remainder.
        near = (x - y).abs() <= _CLOSE * pl.max_horizontal(x.abs(), y.abs(), pl.lit(1e-6))
        same = pair.select(x.eq_missing(y) | near.fill_null(False)).to_series()
    elif a.dtype.is_nested():
        same = pl.Series([x == y for x, y in zip(a.to_list(), b.to_list(), strict=True)], dtype=pl.Boolean)
    else:
        same = a.cast(pl.String).eq_missing(b.cast(pl.String))
    wrong = same.not_().arg_true()
    return int(wrong[0]) if len(wrong) else None


def _refused(transform: Transform, column: str, said: str) -> TransformError:
    name = _name(transform)
    return TransformError(
        f"feature function {name} {said}",
        next="it must be row-wise: leave filter, sort and group_by out; aggregates over past rows belong into ml.history",
        column=column,
        function=name,
    )


def _name(transform: Transform) -> str:
    return str(getattr(transform, "name", None) or getattr(transform, "__name__", type(transform).__name__))


def _hint(error: Exception) -> str:
    if isinstance(error, pl.exceptions.ColumnNotFoundError):
        return "outcome columns and known_at are never features; joined columns are named join.column"
    return "mend the function; it must work on any rows of its dataset, nulls included"
