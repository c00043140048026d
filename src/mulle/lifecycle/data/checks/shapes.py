"""Shapes of values: ranges with round bounds, and patterns that texts share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

__all__ = ["range_of", "shapes_of"]

_CLASSES = (("[0-9]", str.isdigit), ("[A-Z]", str.isupper), ("[a-z]", str.islower))
_RUNS = 20
"""Runs of one kind of character up to which a shape is worth a pattern."""
_SYMBOLS = 6
_ENOUGH = 10
"""Different texts from which on what they share is no chance."""


def range_of(low: float, high: float) -> tuple[float, float]:
    """Widen a range by a tenth at each end, to round numbers; it does not cross zero.

    Examples
    --------
    >>> range_of(17, 4983), range_of(0.021, 0.968), range_of(-3.2, 3.9), range_of(5, 5)
    ((0, 5500), (0, 1.07), (-4, 4.7), (4, 6))
    """
    span = high - low or abs(high) or 1
    if not 1e-300 < span < 1e300:
        return low, high
    margin = span / 10
    power = math.floor(math.log10(span)) - 1
    if isinstance(low, int) and isinstance(high, int):
        step = 10 ** max(0, power)
        near, far = math.floor((low - math.ceil(margin)) // step) * step, -(-(high + math.ceil(margin)) // step) * step
        return max(near, 0) if low >= 0 else near, min(far, 0) if high <= 0 else far
    near, far = _rounded(low - margin, power, math.floor), _rounded(high + margin, power, math.ceil)
    return _plain(max(near, 0) if low >= 0 else near), _plain(min(far, 0) if high <= 0 else far)


def shapes_of(texts: Sequence[str]) -> list[str]:
    r"""Give patterns that all texts match, the narrowest first; none where they share no shape.

    Parameters
    ----------
    texts : sequence of str
        Different ones.

    Examples
    --------
    >>> shapes_of([f"N{i}-x" for i in range(10, 300)])[0]
    '^N[0-9]+\\-x$'
    >>> shapes_of(["one", "two"])
    []
    """
    if len(texts) < _ENOUGH or any(not t.isprintable() for t in texts):
        return []
    found = []
    runs = [[(kind, "".join(part)) for kind, part in groupby(text, _kind)] for text in texts]
    kinds = {tuple(kind for kind, _ in run) for run in runs}
    if len(kinds) == 1 and 0 < len(runs[0]) <= _RUNS:
        found.append("^" + "".join(_run([run[i][1] for run in runs]) for i in range(len(runs[0]))) + "$")
    used = {kind for run in runs for kind, _ in run}
    symbols = sorted(kind for kind in used if len(kind) == 1)
    if used and len(symbols) <= _SYMBOLS:
        classes = [kind.strip("[]") for kind, _ in _CLASSES if kind in used]
        found.append(f"^[{''.join(classes)}{''.join(_escaped(s) for s in symbols)}]{'+' if all(texts) else '*'}$")
    return found


def _kind(character: str) -> str:
    return next((kind for kind, test in _CLASSES if character.isascii() and test(character)), character)


def _run(parts: list[str]) -> str:
    kind, lengths = _kind(parts[0][0]), {len(p) for p in parts}
    if len(set(parts)) == 1:
        return "".join(_escaped(c) for c in parts[0])
    least = min(lengths)
    return f"{kind if len(kind) > 1 else _escaped(kind)}{'+' if len(lengths) > 1 else f'{{{least}}}' if least > 1 else ''}"


def _escaped(character: str) -> str:
    plain = character.isalnum() or character in " _<>" or not character.isascii()
    return character if plain else f"\\{character}"


def _rounded(value: float, power: int, how: Callable[[float], int]) -> float:
    step = 10.0**power
    return round(how(value / step) * step, max(0, -power))


def _plain(value: float) -> float:
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value)
