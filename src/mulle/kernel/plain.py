"""A feature function over few rows without Polars: its plan read once, run as plain Python, and proved to give the same.

Of a dozen rows Polars' frames and queries cost many times what they compute. The plan is that of the user's own function;
whatever in it is not known here, or does not give the very same values, leaves the function to Polars.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from math import copysign, inf, nan
from typing import Any, NoReturn

import numpy as np
import polars as pl

from mulle.core.clock import EPOCH
from mulle.kernel.dtypes import INSTANT
from mulle.kernel.encode import Columns
from mulle.kernel.transform import Transform, run_transform

__all__ = ["Plain", "columns_of", "read_plain"]

Values = Sequence[Any]
_Step = Callable[[Columns, int], Values]


class _Unknown(Exception):
    """The plan holds something that is not known here."""


class Plain:
    """A feature function as plain Python.

    Parameters
    ----------
    stages : sequence of (kept, steps)
        One a query of the plan, the first one first: whether the columns so far stay, and by output name how it is made.
    schema : mapping
        Types of the features, by name.

    Attributes
    ----------
    schema : mapping
    """

    __slots__ = ("_stages", "schema")

    def __init__(self, stages: Sequence[tuple[bool, Mapping[str, _Step]]], schema: Mapping[str, pl.DataType]) -> None:
        self.schema = schema
        self._stages = tuple((kept, tuple(steps.items())) for kept, steps in stages)

    def __call__(self, columns: Columns, count: int) -> Columns | None:
        """Give the features of `count` rows by name, in the function's order; None where Polars has to be asked.

        Parameters
        ----------
        columns : mapping
            Values by input, null as None, times as microseconds since the epoch.
        """
        try:
            for kept, steps in self._stages:
                made = {name: step(columns, count) for name, step in steps}
                columns = {**columns, **made} if kept else made
        except (ArithmeticError, ValueError):  # a time outside of the calendar
            return None
        return columns


def columns_of(frame: pl.DataFrame) -> dict[str, Values]:
    """Give a frame's columns as `Plain` takes them.

    Examples
    --------
    >>> columns_of(pl.DataFrame({"x": [1.5, None], "at": [EPOCH, None]}))
    {'x': [1.5, None], 'at': [0, None]}
    """
    return {s.name: (s.cast(pl.Int64) if s.dtype == INSTANT else s).to_list() for s in frame.get_columns()}


def read_plain(transform: Transform, sample: pl.DataFrame) -> Plain | None:
    """Read a feature function's plan, and prove what came of it.

    It is held against the function itself on the sample, on the sample without values, and on rows of extreme values: names,
    order and each value must be the very same.

    Parameters
    ----------
    transform : callable
        Proved to be row-wise.
    sample : polars.DataFrame
        The function's input; its types are those of every request.

    Returns
    -------
    Plain or None
        None when the plan does more than is known here, or a value differs.

    Examples
    --------
    >>> rows = pl.DataFrame({"x": [1.0, None], "at": [EPOCH, EPOCH]}, schema_overrides={"at": INSTANT})
    >>> plain = read_plain(lambda rows: rows.select("x", hour=pl.col("at").dt.hour()), rows)
    >>> plain({"x": [2.0], "at": [7_200_000_000]}, 1)
    {'x': [2.0], 'hour': [2]}
    >>> read_plain(lambda rows: rows.select(x=pl.col("x").map_elements(abs, return_dtype=pl.Float64)), rows)
    """
    try:
        frames = (sample, sample.clear(len(sample)), _extremes(sample))
        answers = [run_transform(transform, frame) for frame in frames]
        plain = Plain(_read(transform, sample), answers[0].schema)
        return plain if all(map(_same, [plain] * len(frames), frames, answers)) else None
    except Exception:
        # Polars' reading of plans is not promised to stay: a later version that differs costs time and nothing else.
        return None


def _same(plain: Plain, frame: pl.DataFrame, expected: pl.DataFrame) -> bool:
    found = plain(columns_of(frame), frame.height)
    if found is None:
        return True  # Polars answers such rows
    if list(found) != expected.columns or expected.schema != plain.schema:
        return False
    # By what they look like: -0.0 is not 0.0, 1 is not 1.0, and what is not a number is itself.
    return all(list(map(repr, found[name])) == list(map(repr, expected[name].to_list())) for name in found)


_EXTREMES: dict[pl.DataType, tuple[object, ...]] = {
    pl.Float64(): (0.0, -0.0, 1.0, None, -1.5, 1e308, -1e308, 5e-324, 0.1, 1e16, -2.5, 0.5, 3.0),
    pl.Int64(): (0, 1, None, -1, 2**63 - 1, -(2**63), 2**53 + 1, 7, -24, 60, 127),
    pl.Boolean(): (True, None, False),
    pl.String(): ("", "a", None, "Ä", "a ", "A", "\x00", "0"),
    INSTANT: tuple(
        None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
        for text in (
            "1970-01-01", "1969-12-31T23:59:59.999999", None, "0001-01-01", "9999-12-31T23:59:59.999999", "2024-02-29T12:30:15",
            "1900-03-01", "2023-12-31T23:00", "2000-01-02",
        )
    ),
}  # fmt: skip
_EXTREME_ROWS = 512


def _extremes(sample: pl.DataFrame) -> pl.DataFrame:
    """Make rows in which each two columns meet in many pairs of extreme values."""
    dice = np.random.default_rng(0)
    columns = []
    for name, dtype in sample.schema.items():
        values = _EXTREMES[dtype]
        columns.append(pl.Series(name, [values[i] for i in dice.integers(0, len(values), _EXTREME_ROWS)], dtype=dtype))
    return pl.DataFrame(columns)


class _Read(pl.LazyFrame):
    """Rows whose plan is read: whoever wants to see values has more in mind than a plan can tell."""

    def collect(self, *_: Any, **__: Any) -> NoReturn:
        raise _Unknown

    collect_async = collect_batches = describe = fetch = profile = show = sink_batches = serialize = collect
    cache = map_batches = remote = collect


_Stage = tuple[bool, Mapping[str, _Step]]


def _read(transform: Transform, sample: pl.DataFrame) -> list[_Stage]:
    rows = sample.lazy()
    rows.__class__ = _Read
    answer = transform(rows)
    if type(answer) is not _Read:
        raise _Unknown
    return _stages(answer._ldf.visit(), sample)


def _stages(plan: Any, sample: pl.DataFrame) -> list[_Stage]:
    node, here = plan.view_current_node(), plan.get_node()
    kind, inputs = type(node).__name__, plan.get_inputs()
    if kind == "DataFrameScan":
        names = sample.columns if node.projection is None else node.projection
        scanned = pl.DataFrame._from_pydf(node.df).select(names)
        if node.selection is not None or not scanned.equals(sample.select(names)):
            raise _Unknown
        return []
    if kind not in {"Select", "HStack", "SimpleProjection"} or len(inputs) != 1:
        raise _Unknown
    if kind == "SimpleProjection":
        steps: dict[str, _Step] = {name: _column(name) for name in plan.get_schema()}
        plan.set_node(inputs[0])
    else:
        found = node.expr if kind == "Select" else node.exprs
        plan.set_node(inputs[0])
        steps = {part.output_name: _expression(plan, part.node, top=True) for part in found}
    before = _stages(plan, sample)
    plan.set_node(here)
    return [*before, (kind == "HStack", steps)]


def _expression(plan: Any, number: int, *, top: bool = False) -> _Step:
    """Turn an expression into a step over columns."""
    found = plan.view_expression(number)
    kind = type(found).__name__
    if kind == "Column":
        return _column(found.name)
    if kind == "Literal" and not top and type(found.value) in (int, float, bool, str):
        value = found.value
        return lambda _, count: [value] * count
    if kind == "BinaryExpr":
        parts = (found.left, found.right)
        name = str(found.op).rpartition(".")[2]
        if name == "TrueDivide" and type(plan.view_expression(found.right)).__name__ == "Literal":
            name = "Times"
        known = _binary(name, *(_typed(plan, part) for part in parts))
        left, right = (_expression(plan, part) for part in parts)
        return lambda columns, count: list(map(known, left(columns, count), right(columns, count)))
    if kind == "Ternary":
        when, then, otherwise = (_expression(plan, part) for part in (found.predicate, found.truthy, found.falsy))
        return lambda columns, count: [
            a if p else b for p, a, b in zip(when(columns, count), then(columns, count), otherwise(columns, count), strict=True)
        ]
    if kind == "Cast" and _typed(plan, number) == pl.Float64() and _typed(plan, found.expr).is_integer():
        return _mapped(_null_or(float), _expression(plan, found.expr))
    if kind == "Function":
        return _function(plan, found.function_data, found.input)
    raise _Unknown


def _column(name: str) -> _Step:
    return lambda columns, _: columns[name]


def _mapped(step: Callable[[Any], Any], of: _Step) -> _Step:
    return lambda columns, count: list(map(step, of(columns, count)))


def _typed(plan: Any, number: int) -> pl.DataType:
    dtype: pl.DataType = plan.get_dtype(number)
    return dtype


def _null_or(step: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else step(value)


def _null_if_either(step: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: None if a is None or b is None else step(a, b)


def _function(plan: Any, told: tuple[Any, ...], inputs: Sequence[int]) -> _Step:
    first, types = _expression(plan, inputs[0]), [_typed(plan, number) for number in inputs]
    name = str(told[0]).rpartition(".")[2]
    if len(told) > 1:
        raise _Unknown
    if name in _PARTS and types[0] == INSTANT:
        return _mapped(_null_or(_PARTS[name]), first)
    if name in {"fill_null", "coalesce"} and len(set(types)) == 1 and len(inputs) == 2:
        second = _expression(plan, inputs[1])
        return lambda columns, count: [
            b if a is None else a for a, b in zip(first(columns, count), second(columns, count), strict=True)
        ]
    if len(inputs) == 1 and (name in _ANY or (name, types[0]) in _OF):
        return _mapped(_ANY.get(name) or _OF[name, types[0]], first)
    raise _Unknown


_DAY, _HOUR, _MINUTE, _SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000
_EPOCH_DAY = EPOCH.toordinal()


def _date(micros: int) -> date:
    return date.fromordinal(_EPOCH_DAY + micros // _DAY)


_PARTS: dict[str, Callable[[int], int]] = {
    "Year": lambda t: _date(t).year,
    "Month": lambda t: _date(t).month,
    "Day": lambda t: _date(t).day,
    "OrdinalDay": lambda t: _date(t).timetuple().tm_yday,
    "WeekDay": lambda t: (t // _DAY + 3) % 7 + 1,  # the epoch was a Thursday
    "Hour": lambda t: t // _HOUR % 24,
    "Minute": lambda t: t // _MINUTE % 60,
    "Second": lambda t: t // _SECOND % 60,
}
_ANY: dict[str, Callable[[Any], Any]] = {"IsNull": lambda v: v is None, "IsNotNull": lambda v: v is not None}
_OF: dict[tuple[str, pl.DataType], Callable[[Any], Any]] = {
    ("Not", pl.Boolean()): _null_or(operator.not_),
    ("abs", pl.Float64()): _null_or(abs),
    ("negate", pl.Float64()): _null_or(operator.neg),
    ("LenChars", pl.String()): _null_or(len),
}


def _divided(a: float, b: float) -> float:
    a, b = float(a), float(b)
    if b:
        return a / b
    return nan if not a or a != a or b != b else copysign(inf, a) * copysign(1.0, b)


def _times(a: float, b: float) -> float:
    # Polars divides by a constant so; the last bit may differ from a quotient's.
    return float(a) * _divided(1.0, b)


_DIVIDED: dict[str, Callable[[Any, Any], float]] = {"TrueDivide": _divided, "Times": _times}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {"Plus": operator.add, "Minus": operator.sub, "Multiply": operator.mul}
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtEq": operator.le, "Gt": operator.gt, "GtEq": operator.ge,
}  # fmt: skip
_PLAINLY = (pl.String(), pl.Boolean())


def _binary(name: str, left: pl.DataType, right: pl.DataType) -> Callable[[Any, Any], Any]:
    same = left == right
    if name in _DIVIDED and all(t == pl.Float64() or t.is_signed_integer() for t in (left, right)):
        return _null_if_either(_DIVIDED[name])
    if name in _ARITHMETIC and same and left == pl.Float64():
        return _null_if_either(_ARITHMETIC[name])
    if name in _ARITHMETIC and same and left.is_signed_integer():
        return _null_if_either(_wrapped(_ARITHMETIC[name], left))
    if name in _COMPARED and same and (left.is_integer() or left in _PLAINLY):
        return _null_if_either(_COMPARED[name])
    if name in _COMPARED and same and left == pl.Float64():
        compare = _COMPARED[name]
        return _null_if_either(lambda a, b: compare(_place(a), _place(b)))
    if name in {"And", "Or"} and same and left == pl.Boolean():
        return _and if name == "And" else _or
    raise _Unknown


_HALVES: dict[pl.DataType, int] = {pl.Int8(): 2**7, pl.Int16(): 2**15, pl.Int32(): 2**31, pl.Int64(): 2**63}


def _wrapped(step: Callable[[int, int], int], dtype: pl.DataType) -> Callable[[int, int], int]:
    half = _HALVES[dtype]
    return lambda a, b: (step(a, b) + half) % (2 * half) - half


def _place(value: float) -> tuple[bool, float]:
    # Polars' order: what is not a number equals itself and is above every number.
    return (True, 0.0) if value != value else (False, value)


def _and(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def _or(a: bool | None, b: bool | None) -> bool | None:
    if a is True or b is True:
        return True
    return None if a is None or b is None else False
