"""Ranges: what a search may choose a parameter from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mulle.core.errors import DeclarationError

__all__ = ["Choices", "Floats", "Ints", "Range", "choices", "floats", "ints"]


@dataclass(frozen=True, slots=True)
class Floats:
    """Numbers from `low` to `high`, tried first at `start`; evenly, or evenly by their logarithm."""

    low: float
    high: float
    start: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Ints:
    """Whole numbers from `low` to `high`, tried first at `start`; evenly, or evenly by their logarithm."""

    low: int
    high: int
    start: int
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """One of several values: numbers, texts, truths or None."""

    values: tuple[Any, ...]
    start: Any


Range = Floats | Ints | Choices


def floats(low: float, high: float, *, start: float | None = None, log: bool = False) -> Floats:
    """Search numbers from `low` to `high`, both of them included.

    Parameters
    ----------
    low, high : float
    start : float, optional
        Tried first; the middle by default (of the logarithms, with `log`).
    log : bool
        Tenths and thousands are looked at alike; `low` must be above 0.

    Raises
    ------
    DeclarationError
        When the range is empty, `start` is outside, or `log` meets a `low` that is not above 0.

    Examples
    --------
    >>> floats(0.01, 1.0, log=True).start
    0.1
    """
    _refuse(low, high, start, log)
    middle = (low * high) ** 0.5 if log else (low + high) / 2
    return Floats(float(low), float(high), float(middle if start is None else start), log)


def ints(low: int, high: int, *, start: int | None = None, log: bool = False) -> Ints:
    """Search whole numbers from `low` to `high`, both of them included; see `floats`.

    Examples
    --------
    >>> ints(1, 9).start
    5
    """
    _refuse(low, high, start, log)
    middle = round((low * high) ** 0.5 if log else (low + high) / 2)
    return Ints(int(low), int(high), middle if start is None else int(start), log)


def choices(*values: Any) -> Choices:
    """Search one of several values; the first is tried first.

    Raises
    ------
    DeclarationError
        When there is none, or one that is no number, text, truth or None (a choice is recorded with its trial).

    Examples
    --------
    >>> choices("l1", "l2").start
    'l1'
    """
    strange = [v for v in values if not isinstance(v, (int, float, str, bool, type(None)))]
    if not values or strange:
        found = f"{strange[0]!r} is none of them" if strange else "there is none"
        raise DeclarationError(f"choices are numbers, texts, truths or None: {found}", next='write ml.choices("a", "b")')
    return Choices(values, values[0])


def _refuse(low: float, high: float, start: float | None, log: bool) -> None:
    if not low <= high or (log and low <= 0):
        raise DeclarationError(
            f"no range from {low} to {high}{' by logarithm' if log else ''}", next="write the lower bound first"
        )
    if start is not None and not low <= start <= high:
        raise DeclarationError(f"start {start} is not between {low} and {high}", next="start inside the range")
