"""What every answer in a terminal is made of: tables, lists of facts, coloured words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mulle.surfaces.words import cell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = ["COLOURS", "coloured", "facts", "more", "table"]

COLOURS = {
    "pass": "green", "succeeded": "green", "healthy": "green", "done": "green", "closed": "green", "running": "cyan",
    "fail": "red", "failed": "red", "rejected": "red", "alarm": "red", "alarmed": "red", "open": "red",
    "warn": "yellow", "canary": "yellow", "queued": "yellow", "not_enough_evidence": "yellow", "too_few": "yellow",
}  # fmt: skip

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def coloured(value: object) -> Text:
    """Write a value, states and verdicts in their colour."""
    text = cell(value)
    # What data holds must not steer the terminal.
    return Text(text.translate(_CONTROLS), style=COLOURS.get(text, ""))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Lay rows out in columns, numbers to the right; says ``none`` when there is no row."""
    laid = [tuple(row) for row in rows]
    if not laid:
        return Text(f"{title}: none" if title else "none", style="dim")
    # Text, because a column's or check's name may hold brackets, which Rich takes for markup.
    named = Text(title.translate(_CONTROLS)) if title else None
    made = Table(title=named, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        right = _numbers(row[number] for row in laid)
        made.add_column(Text(column.translate(_CONTROLS)), overflow="fold", justify="right" if right else "left")
    for row in laid:
        made.add_row(*(coloured(value) for value in row))
    return made


def _numbers(values: Iterable[object]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)


def facts(pairs: Mapping[str, object]) -> RenderableType:
    """Lay one thing's facts out, a line each."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        made.add_row(name, coloured(value))
    return made


def more(view: Json) -> list[RenderableType]:
    """Say how a listing goes on, if it does."""
    return [f"[dim]more: --after {view['next']}[/]"] if view.get("next") is not None else []
