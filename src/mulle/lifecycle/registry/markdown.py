"""The pieces of Markdown that a card is put together from: tables, and plots of one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["bar", "spark", "table", "text"]

_STEPS = "▁▂▃▄▅▆▇█"
_WIDTH = 20


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out as a table; a bar in a cell is no end of it.

    Examples
    --------
    >>> print(table(["a"], [["x|y"]]))
    | a |
    | --- |
    | x\\|y |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def text(value: object) -> str:
    """Write a number to four digits, all else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def bar(value: float, largest: float) -> str:
    """Draw a value as a bar, the largest over the whole width.

    Examples
    --------
    >>> bar(0.5, 2.0)
    '█████'
    """
    return "█" * round(_WIDTH * max(0.0, value) / largest) if largest > 0 else ""


def spark(values: Sequence[float]) -> str:
    """Draw values as a line of blocks, from the least to the largest.

    Examples
    --------
    >>> spark([0.0, 1.0, 0.5])
    '▁█▅'
    """
    low, high = min(values), max(values)
    if high <= low:
        return _STEPS[0] * len(values)
    return "".join(_STEPS[round((len(_STEPS) - 1) * (v - low) / (high - low))] for v in values)
