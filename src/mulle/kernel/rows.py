"""Requests become frames: JSON rows are checked against the contract's input fields and cast to its types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NoReturn

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.errors import ContractError, DataError
from mulle.core.records.bundle import InputField
from mulle.kernel.bookkeeping import BOOKKEEPING
from mulle.kernel.dtypes import INSTANT, dtype_of

__all__ = ["cast_inputs", "columns_from_rows", "frame_from_columns", "frame_from_rows", "raw_inputs"]

_WIRE = {"Int64": "INT64", "Float64": "FP64", "Boolean": "BOOL", "String": "BYTES", "Datetime(us, UTC)": "TIME"}
_LARGEST = 2**63
_EXACT = 2**53
_EPOCH_PLAIN = EPOCH.replace(tzinfo=None)


def raw_inputs(
    schema: Mapping[str, str], *, hidden: Sequence[str], key: Sequence[str], time: str | None
) -> tuple[InputField, ...]:
    """Derive what a request carries from a dataset's schema.

    Parameters
    ----------
    schema : mapping
        Column to dtype text, as `DatasetVersion.schema` keeps it.
    hidden : sequence of str
        Columns a request never carries: outcomes, `known_at`, the target.
    key : sequence of str
        Key columns; inputs even when hidden.
    time : str or None
        The time column; not required (missing means now).

    Returns
    -------
    tuple of InputField
        In the schema's order. Whole numbers widen to Int64, others to Float64, dates and times to Datetime(us, UTC),
        categories to String; columns of other types (lists, structs, binary) are no inputs.

    Examples
    --------
    >>> [(f.name, f.type, f.required) for f in raw_inputs({"id": "Int32", "y": "Float64"}, hidden=["y"], key=["id"], time=None)]
    [('id', 'INT64', True)]
    """
    fields = []
    for name, text in schema.items():
        named = name in key or name == time
        dtype = _widened(text)
        if dtype is not None and name not in BOOKKEEPING and (named or name not in hidden):
            fields.append(InputField(name=name, type=_WIRE[dtype], dtype=dtype, required=name != time))
    return tuple(fields)


def cast_inputs(frame: pl.DataFrame, inputs: Sequence[InputField]) -> pl.DataFrame:
    """Give a dataset's rows the contract's types, so that training sees what serving sees; NaN becomes null.

    Parameters
    ----------
    frame : polars.DataFrame
        May hold other columns, which stay as they are; inputs it has not are left out.
    inputs : sequence of InputField

    Returns
    -------
    polars.DataFrame
        Same height, order and columns.
    """
    casts = []
    for field in inputs:
        have = frame.schema.get(field.name)
        if have is None:
            continue
        column = pl.col(field.name)
        if field.dtype == "Datetime(us, UTC)":
            zoned = isinstance(have, pl.Datetime) and have.time_zone
            moment = column.dt.convert_time_zone("UTC") if zoned else column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            casts.append(moment.cast(INSTANT))
        elif field.dtype == "Float64":
            casts.append(column.cast(pl.Float64).fill_nan(None))
        else:
            casts.append(column.cast(dtype_of(field.dtype)))
    return frame.with_columns(casts)


def frame_from_rows(
    rows: Sequence[Mapping[str, object]], inputs: tuple[InputField, ...], *, model: str, time: str | None, now: datetime
) -> pl.DataFrame:
    """Check a request's rows against the contract and make a frame of the contract's types.

    Parameters
    ----------
    rows : sequence of mapping
        JSON values by field name. Null is allowed anywhere; whole numbers are taken for Float64, whole floats for
        Int64; times are RFC 3339 text (UTC without an offset) or datetimes; NaN counts as null.
    inputs : tuple of InputField
    model : str
        ``name`` or ``name@version``; for the error.
    time : str or None
        The time column; where a row has none, `now` stands in.
    now : datetime

    Returns
    -------
    polars.DataFrame
        One column per input, in order; same height and order as `rows`.

    Raises
    ------
    ContractError
        On the first field that breaks the contract; facts name ``model``, ``row`` and ``field``.

    Examples
    --------
    >>> field = InputField(name="x", type="FP64", dtype="Float64", required=True)
    >>> frame_from_rows([{"x": 1}], (field,), model="m@1", time=None, now=EPOCH)["x"].to_list()
    [1.0]
    """
    return frame_from_columns(columns_from_rows(rows, inputs, model=model, time=time, now=now), inputs, len(rows))


def frame_from_columns(columns: Mapping[str, list[Any]], inputs: tuple[InputField, ...], height: int) -> pl.DataFrame:
    """Make the frame of what `columns_from_rows` gave."""
    made = [_column(name, kind, columns[name]) for name, _, kind, _ in _plan(inputs).columns]
    return pl.DataFrame(made) if made else pl.DataFrame(height=height)


def columns_from_rows(
    rows: Sequence[Mapping[str, object]], inputs: tuple[InputField, ...], *, model: str, time: str | None, now: datetime
) -> dict[str, list[Any]]:
    """Check a request's rows as `frame_from_rows` does, and give their values by column.

    Returns
    -------
    dict
        One list per input, in order; null is None, a time the microseconds since the epoch.

    Raises
    ------
    ContractError
        As `frame_from_rows`.

    Examples
    --------
    >>> field = InputField(name="at", type="TIME", dtype="Datetime(us, UTC)", required=True)
    >>> columns_from_rows([{"at": "1970-01-01T00:00:01Z"}], (field,), model="m@1", time="at", now=EPOCH)
    {'at': [1000000]}
    """
    plan = _plan(inputs)
    columns: dict[str, list[Any]] = {}
    for (name, dtype, _, convert), values in zip(plan.columns, _values(rows, plan, model), strict=True):
        try:
            column = convert(values)
        except _Bad as bad:
            shown = bad.shown or repr(values[bad.row])
            said = f"{name} is {shown if len(shown) <= 80 else shown[:77] + '...'}, expected {bad.expected or dtype}"
            _refuse(model, bad.row, name, said)
        if name == time and None in column:
            moment = _micros(now)
            column = [moment if v is None else v for v in column]
        columns[name] = column
    return columns


def _values(rows: Sequence[Mapping[str, object]], plan: _Plan, model: str) -> Sequence[Sequence[object]]:
    if plan.pick is not None:
        try:
            # Who has as many fields as there are inputs, and each of these, has no other.
            if set(map(len, rows)) == {len(plan.columns)}:
                return list(zip(*map(plan.pick, rows), strict=True))
        except (KeyError, TypeError, IndexError):
            pass  # found below, with its place
    for index, row in enumerate(rows):
        if not isinstance(row, dict) and not isinstance(row, Mapping):
            _refuse(model, index, "", f"is a {type(row).__name__}, expected an object of fields")
        if not (row.keys() <= plan.known and plan.required <= row.keys()):
            _refuse_names(model, index, row, plan)
    return [[row.get(name) for row in rows] for name, *_ in plan.columns]


Converter = Callable[[Sequence[object]], list[object]]


@dataclass(frozen=True, slots=True)
class _Plan:
    known: frozenset[str]
    required: frozenset[str]
    columns: tuple[tuple[str, str, pl.DataType, Converter], ...]
    pick: Callable[[Mapping[str, object]], tuple[object, ...]] | None


class _Bad(Exception):
    def __init__(self, row: int, expected: str = "", shown: str = "") -> None:
        super().__init__(row)
        self.row, self.expected, self.shown = row, expected, shown


@lru_cache(maxsize=256)
def _plan(inputs: tuple[InputField, ...]) -> _Plan:
    return _Plan(
        known=frozenset(f.name for f in inputs),
        required=frozenset(f.name for f in inputs if f.required),
        columns=tuple((f.name, f.dtype, dtype_of(f.dtype), _CONVERTERS[f.dtype]) for f in inputs),
        pick=itemgetter(*(f.name for f in inputs)) if len(inputs) > 1 else None,
    )


def _column(name: str, dtype: pl.DataType, values: list[Any]) -> pl.Series:
    return _series(name, values, _INT).cast(INSTANT) if dtype is INSTANT else _series(name, values, dtype)


_INT = pl.Int64()
_MADE_BY = {pl.Int64: "new_opt_i64", pl.Float64: "new_opt_f64", pl.Boolean: "new_opt_bool", pl.String: "new_str"}
_MAKERS = {kind: getattr(type(pl.Series()._s), name, None) for kind, name in _MADE_BY.items()}
_WRAPPED = getattr(pl.Series, "_from_pyseries", None)


def _series(name: str, values: list[object], dtype: pl.DataType) -> pl.Series:
    # What the values are is known by now. Polars' own way looks at them again: 9 us a column, this one 0.5 us.
    make = _MAKERS.get(type(dtype))
    if make is None or _WRAPPED is None:
        return pl.Series(name, values, dtype=dtype)
    series: pl.Series = _WRAPPED(make(name, values, False))
    return series


def _widened(text: str) -> str | None:
    try:
        dtype = dtype_of(text)
    except DataError:
        return None
    if dtype.is_integer():
        return "Int64"
    if dtype.is_float():
        return "Float64"
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        return "Datetime(us, UTC)"
    if isinstance(dtype, pl.Boolean):
        return "Boolean"
    return "String" if isinstance(dtype, (pl.String, pl.Categorical)) else None


def _refuse(model: str, row: int, field: str, said: str) -> NoReturn:
    raise ContractError(
        f"{model} row {row}: {said}",
        next="send the fields and types that the model's contract lists",
        model=model,
        row=row,
        field=field,
    )


def _refuse_names(model: str, index: int, row: Mapping[str, object], plan: _Plan) -> NoReturn:
    unknown = next((str(name)[:80] for name in row if name not in plan.known), None)
    if unknown is not None:
        _refuse(model, index, unknown, f"{unknown} is unknown, expected {', '.join(n for n, *_ in plan.columns)}")
    missing = next(n for n, *_ in plan.columns if n in plan.required and n not in row)
    _refuse(model, index, missing, f"{missing} is missing and required")


_ALL_FLOAT, _ALL_WHOLE, _ALL_TEXT, _BOOL_OR_NONE, _TEXT_OR_NONE = {float}, {int}, {str}, {bool, type(None)}, {str, type(None)}


def _floats(values: Sequence[object]) -> list[object]:
    if set(map(type, values)) == _ALL_FLOAT:
        total: float = sum(values)  # type: ignore[arg-type]
        if total - total == 0.0:  # a sum is finite only where each of them is
            return list(values)
    out: list[object] = []
    for i, v in enumerate(values):
        kind = type(v)
        if kind is float:
            number: float = v  # type: ignore[assignment]
            if number - number == 0.0:
                out.append(v)
            elif number != number:
                out.append(None)
            else:
                raise _Bad(i, "a finite Float64")
        elif v is None:
            out.append(None)
        elif kind is int:
            try:
                out.append(float(v))  # type: ignore[arg-type]
            except OverflowError:
                raise _Bad(i, "a finite Float64") from None
        else:
            raise _Bad(i)
    return out


def _whole(values: Sequence[object]) -> list[object]:
    if set(map(type, values)) == _ALL_WHOLE:
        whole: Sequence[int] = values  # type: ignore[assignment]
        if min(whole) >= -_LARGEST and max(whole) < _LARGEST:
            return list(whole)
    out: list[object] = []
    for i, v in enumerate(values):
        number = v
        if isinstance(v, float):
            if v != v:
                out.append(None)
                continue
            if not v.is_integer():
                raise _Bad(i)
            # A whole number beyond 64 bits comes out of JSON as a float, which may be another number that fits.
            if abs(v) > _EXACT:
                raise _Bad(i, "a whole number of 64 bits")
            number = int(v)
        if number is None:
            out.append(None)
        elif type(number) is int:
            if not -_LARGEST <= number < _LARGEST:
                raise _Bad(i, "a whole number of 64 bits")
            out.append(number)
        else:
            raise _Bad(i)
    return out


def _booleans(values: Sequence[object]) -> list[object]:
    if not set(map(type, values)) <= _BOOL_OR_NONE:
        raise _Bad(next(i for i, v in enumerate(values) if v is not None and type(v) is not bool))
    return list(values)


def _texts(values: Sequence[object]) -> list[object]:
    kinds = set(map(type, values))
    if kinds == _ALL_TEXT and "".join(values).isascii():  # type: ignore[arg-type]
        return list(values)
    if not kinds <= _TEXT_OR_NONE:
        raise _Bad(next(i for i, v in enumerate(values) if v is not None and type(v) is not str))
    for i, v in enumerate(values):
        if v is not None and not v.isascii():  # type: ignore[attr-defined]
            try:
                v.encode()  # type: ignore[attr-defined]
            except UnicodeEncodeError:
                raise _Bad(i, shown="text that is not valid Unicode") from None
    return list(values)


def _times(values: Sequence[object]) -> list[object]:
    out: list[object] = []
    for i, v in enumerate(values):
        try:
            if v is None:
                out.append(None)
            elif isinstance(v, str):
                out.append(_micros(datetime.fromisoformat(v)))
            elif isinstance(v, datetime):
                out.append(_micros(v))
            else:
                raise _Bad(i, "a time such as 2013-03-01T12:00:00Z")
        except (ValueError, OverflowError):
            raise _Bad(i, "a time such as 2013-03-01T12:00:00Z") from None
    return out


def _micros(moment: datetime) -> int:
    # Whole-number arithmetic: timestamp() would lose microseconds to float rounding.
    since = moment - (EPOCH if moment.tzinfo is not None else _EPOCH_PLAIN)
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


_CONVERTERS: dict[str, Converter] = {
    "Float64": _floats,
    "Int64": _whole,
    "Boolean": _booleans,
    "String": _texts,
    "Datetime(us, UTC)": _times,
}
