"""Single values in words, shared by the terminal's tables and the status page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mulle.core.records.base import Json

__all__ = ["causes_in_words", "cell", "moment", "routes_in_words"]


def moment(text: str | None) -> str:
    """Write an instant for people: to the second, the zone (always UTC) left out.

    Examples
    --------
    >>> moment("2013-03-01T10:00:00.123Z"), moment(None)
    ('2013-03-01 10:00:00', '-')
    """
    return text.replace("T", " ")[:19].rstrip("Z") if text else "-"


def cell(value: object) -> str:
    """Write a value for a table; nothing is ``-``.

    Examples
    --------
    >>> cell(0.123456), cell([]), cell({"mae": 6.9123456}), cell(True)
    ('0.1235', '-', 'mae 6.912', 'yes')
    """
    if value is None or value == "" or value == [] or value == {} or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(v) for v in value)
    return str(value)


def causes_in_words(view: Json) -> str:
    """Write why a record exists.

    Examples
    --------
    >>> causes_in_words({"causes": [{"type": "person", "id": "ada", "why": "asked"}]})
    'person ada: asked'
    """
    return "; ".join(f"{c['type']} {c['id']}: {c['why']}" for c in view["causes"]) or "-"


def routes_in_words(view: Json) -> str:
    """Write a deployment's routes.

    Examples
    --------
    >>> routes_in_words({"routes": [{"version": 7, "share": 0.95, "mode": "champion"}]})
    'champion 7 95%'
    """
    return ", ".join(f"{r['mode']} {r['version']} {r['share']:.0%}" for r in view["routes"]) or "-"
