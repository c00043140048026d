"""Sifting: rows that keep a contract, in its types, apart from those that break it, each with field and reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.errors import ContractError
from mulle.core.records.bundle import InputField
from mulle.kernel.dtypes import INSTANT, dtype_of
from mulle.kernel.rows import frame_from_rows

__all__ = ["Sifted", "Unfit", "sift", "sift_rows"]

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_EXACT = float(2**53)
_FINITE, _WHOLE, _TIME = "a finite Float64", "a whole number of 64 bits", "a time such as 2013-03-01T12:00:00Z"


@dataclass(frozen=True, slots=True)
class Unfit:
    """A row that breaks the contract: its position, the field, what was expected, and the value as text."""

    row: int
    field: str
    expected: str
    value: str


@dataclass(frozen=True, slots=True)
class Sifted:
    """What a contract made of rows.

    Attributes
    ----------
    frame : polars.DataFrame
        The rows that keep it: one column per input, in its type.
    kept : list of int
        Their positions in what was sifted.
    unfit : list of Unfit
        One for each other row: the first field that breaks the contract, in the contract's order.
    """

    frame: pl.DataFrame
    kept: list[int]
    unfit: list[Unfit]


def sift(
    frame: pl.DataFrame, inputs: Sequence[InputField], *, model: str, time: str | None, now: datetime, text: bool = False
) -> Sifted:
    """Sift a frame by the same rules as a request's rows.

    Parameters
    ----------
    frame : polars.DataFrame
        Columns that are no inputs are ignored.
    time : str or None
        The time column; where a row has none, `now` stands in.
    text : bool
        Every value is text (CSV), and is read as what the contract says.

    Raises
    ------
    ContractError
        When a required column is missing.

    Examples
    --------
    >>> field = InputField(name="x", type="FP64", dtype="Float64", required=True)
    >>> found = sift(pl.DataFrame({"x": ["1", "far"]}), [field], model="m@1", time=None, now=EPOCH, text=True)
    >>> found.frame["x"].to_list(), found.kept, found.unfit[0].value
    ([1.0], [0], 'far')
    """
    missing = [f.name for f in inputs if f.required and f.name not in frame.columns]
    if missing:
        raise ContractError(
            f"{model}: column {missing[0]} is missing", next=f"columns: {', '.join(f.name for f in inputs)}",
            model=model, field=missing[0],
        )  # fmt: skip
    columns, faults = [], []
    for field in inputs:
        given = frame[field.name] if field.name in frame.columns else pl.Series(field.name, [None] * frame.height)
        made, expected = _read(given, field.dtype, text)
        bad = made.is_null() & given.is_not_null()
        if given.dtype.is_float():
            bad &= given.is_not_nan()  # NaN counts as null
        if field.name == time and given.null_count():
            made = made.fill_null(now)  # where a time was given and is none, the row goes
        columns.append(made.alias(field.name))
        faults += [(row, field.name, expected, given[row]) for row in bad.arg_true().to_list()]
    unfit: dict[int, Unfit] = {}
    for row, name, expected, value in faults:
        unfit.setdefault(row, Unfit(row, name, expected, str(value)[:80]))
    kept = [row for row in range(frame.height) if row not in unfit] if unfit else list(range(frame.height))
    whole = pl.DataFrame(columns) if columns else pl.DataFrame(height=frame.height)
    return Sifted(whole[kept] if unfit else whole, kept, [unfit[row] for row in sorted(unfit)])


def sift_rows(
    rows: Sequence[Mapping[str, object]], inputs: tuple[InputField, ...], *, model: str, time: str | None, now: datetime
) -> Sifted:
    """Sift JSON objects, by the very function that reads a request's rows; other members than inputs are ignored."""
    names = [f.name for f in inputs]
    chosen = [{n: row[n] for n in names if n in row} for row in rows]
    try:
        return Sifted(frame_from_rows(chosen, inputs, model=model, time=time, now=now), list(range(len(rows))), [])
    except ContractError:
        pass
    frames, kept, unfit = [], [], []
    for position, row in enumerate(chosen):
        try:
            frames.append(frame_from_rows([row], inputs, model=model, time=time, now=now))
            kept.append(position)
        except ContractError as error:
            field = str(error.facts.get("field", ""))
            expected = error.detail.rpartition("expected ")[2] if "expected " in error.detail else error.detail.partition(": ")[2]
            unfit.append(Unfit(position, field, expected, str(row.get(field))[:80]))
    blank = frame_from_rows([], inputs, model=model, time=time, now=now)
    return Sifted(pl.concat(frames) if frames else blank, kept, unfit)


def _read(given: pl.Series, dtype: str, text: bool) -> tuple[pl.Series, str]:
    """Give a column in the contract's type, null where it cannot be, and what was expected there."""
    has = given.dtype
    if isinstance(has, pl.Null):
        return given.cast(dtype_of(dtype)), dtype
    if isinstance(has, (pl.Categorical, pl.Enum)):
        given, has = given.cast(pl.String), pl.String()
    if dtype == "Float64":
        return _floats(given, text), _FINITE
    if dtype == "Int64":
        return _whole(given, text), _WHOLE
    if dtype == "Boolean":
        return _booleans(given, text), dtype
    if dtype == "String":
        return given if isinstance(has, pl.String) else _nothing(given, pl.String()), dtype
    return _times(given), _TIME


def _nothing(given: pl.Series, dtype: pl.DataType) -> pl.Series:
    return pl.Series(given.name, [None] * len(given), dtype=dtype)


def _is_number(dtype: pl.DataType, text: bool) -> bool:
    return dtype.is_numeric() or (text and isinstance(dtype, pl.String))


def _floats(given: pl.Series, text: bool) -> pl.Series:
    if not _is_number(given.dtype, text):
        return _nothing(given, pl.Float64())
    made = (given.str.strip_chars() if isinstance(given.dtype, pl.String) else given).cast(pl.Float64, strict=False)
    return made.set(made.is_infinite() | made.is_nan(), None)


def _whole(given: pl.Series, text: bool) -> pl.Series:
    if not _is_number(given.dtype, text):
        return _nothing(given, pl.Int64())
    plain = given.str.strip_chars() if isinstance(given.dtype, pl.String) else given
    if plain.dtype.is_integer():
        return plain.cast(pl.Int64, strict=False)
    real = plain.cast(pl.Float64, strict=False)
    # A larger one may have been another whole number before it became a float.
    fits = (real == real.floor()) & (real.abs() <= _EXACT)
    made = real.set(~fits.fill_null(value=False), None).cast(pl.Int64)
    if isinstance(plain.dtype, pl.String):  # digits that a float would lose
        exact = plain.cast(pl.Int64, strict=False)
        return exact.zip_with(exact.is_not_null(), made)
    return made


def _booleans(given: pl.Series, text: bool) -> pl.Series:
    if isinstance(given.dtype, pl.Boolean):
        return given
    if not (text and isinstance(given.dtype, pl.String)):
        return _nothing(given, pl.Boolean())
    lower = given.str.strip_chars().str.to_lowercase()
    return lower.is_in(_TRUE).set(~lower.is_in([*_TRUE, *_FALSE]), None)


def _times(given: pl.Series) -> pl.Series:
    has = given.dtype
    if isinstance(has, pl.Datetime):
        zoned = given.dt.convert_time_zone("UTC") if has.time_zone else given.dt.replace_time_zone("UTC")
        return zoned.cast(INSTANT)
    if isinstance(has, pl.Date):
        return given.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(has, pl.String):
        return _nothing(given, INSTANT)
    return pl.Series(given.name, [None if v is None else _instant(v) for v in given.to_list()], dtype=pl.Int64).cast(INSTANT)


def _instant(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    passed = (moment if moment.tzinfo else moment.replace(tzinfo=EPOCH.tzinfo)) - EPOCH
    return (passed.days * 86400 + passed.seconds) * 1_000_000 + passed.microseconds
