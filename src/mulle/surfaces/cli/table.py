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


def coloured(value: object) -> Text:
    """Write a value, states and verdicts in their colour."""
    text = cell(value)
    return Text(text, style=COLOURS.get(text, ""))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Lay rows out in columns; says ``none`` when there is no row."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(coloured(value) for value in row))
    if not made.row_count:
        return Text(f"{title}: none" if title else "none", style="dim")
    return made


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
