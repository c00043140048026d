"""The transform contract: one user's function for training, batch, stream and online, proven to be row-wise."""

from __future__ import annotations

import random
from collections.abc import Callable

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
        answer = transform(frame.lazy())
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
        )
    return features


def _collected(answer: pl.LazyFrame, height: int) -> pl.DataFrame:
    # For a few rows planning costs more than it saves: measured 55-75 us without against 140-185 us with.
    if height <= _FEW:
        return answer.collect(engine="in-memory", optimizations=_UNPLANNED)
    return answer.collect()


def prove_row_wise(transform: Transform, frame: pl.DataFrame, *, seed: int = 0) -> None:
    """Prove on a sample that each row's features depend on that row alone.

    The function is run on the whole sample, its halves, a permutation, twice the sample, single rows, rows that are all
    null and the sample mixed with such rows; a column ``__row`` numbers the rows and may be dropped by the function.

    Parameters
    ----------
    transform : callable
    frame : polars.DataFrame
        Rows as the function gets them, joined columns included; at most 512 of them are used.
    seed : int

    Raises
    ------
    TransformError
        When a value, the number or the order of rows changes; facts name the ``column``.

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
    order = list(range(count))
    half = count // 2
    for part in (order[:half], order[half:]):
        _compare(transform, whole, sample, part, "halved")
    shuffled = random.Random(seed).sample(order, count)
    _compare(transform, whole, sample, shuffled, "permuted")
    _compare(transform, whole, sample, order + order, "repeated")
    for row in shuffled[:_SINGLES]:
        _compare(transform, whole, sample, [row], "taken one by one")
    _prove_nulls(transform, whole, sample)


def _prove_nulls(transform: Transform, whole: pl.DataFrame, sample: pl.DataFrame) -> None:
    blank = sample.head(3).select(pl.lit(None, dtype=d).alias(n) if n != _ROW else pl.col(n) for n, d in sample.schema.items())
    blank = blank.with_columns(pl.col(_ROW) + sample.height)
    nulls = _run(transform, blank, "rows that are all null")
    if nulls.columns != whole.columns:
        raise _refused(transform, "", f"returns columns {nulls.columns} for rows that are all null, else {whole.columns}")
    mixed = _run(transform, pl.concat([sample, blank]), "a sample with null rows")
    _same(transform, pl.concat([whole, nulls], how="vertical_relaxed"), mixed, "mixed with null rows")


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
    if expected.columns != found.columns:
        raise _refused(transform, "", f"returns columns {found.columns} when the rows are {how}, else {expected.columns}")
    for name in expected.columns:
        row = _first_difference(expected[name], found[name])
        if row is not None:
            was, now = expected[name][row], found[name][row]
            name_of = _name(transform)
            raise TransformError(
                f"feature '{name}' of {name_of} changes when the rows are {how} (row {row}: {was!r}, then {now!r})",
                next="a feature may look at its own row only: put .mean(), .rank(), .shift() and the like into ml.history, "
                "and leave filter and sort out",
                column=name,
                function=name_of,
            )


def _first_difference(a: pl.Series, b: pl.Series) -> int | None:
    if a.dtype.is_numeric() and b.dtype.is_numeric():
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
