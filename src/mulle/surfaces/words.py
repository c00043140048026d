"""Single values in words, shared by the terminal's tables and the status page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mulle.core.records.base import Json

__all__ = ["causes_in_words", "cell", "moment", "routes_in_words", "server_in_words", "turned_away_in_words"]


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


def server_in_words(status: Mapping[str, Any]) -> str:
    """Say what is wrong with the inference server and what to do; empty where it answers, was not asked or has nothing to answer.

    Examples
    --------
    >>> away = {"state": "silent", "url": "http://127.0.0.1:8801"}
    >>> server_in_words({"server": away, "models": [{"champion": 1}], "engine": {"state": "stopped"}})
    'no inference server answers at http://127.0.0.1:8801: start it with `mulle up` (or `mulle serve` alone)'
    """
    server = status.get("server")
    if server is None or server["state"] == "answers" or not any(model["champion"] for model in status["models"]):
        return ""
    next_ = "start it with `mulle up` (or `mulle serve` alone)"
    if status["engine"]["state"] == "running":
        next_ = "the loop starts it again; where that goes on, serve.log in the home says why it ends"
    return f"no inference server answers at {server['url']}: {next_}"


def turned_away_in_words(batch: Mapping[str, Any]) -> str:
    """Say which rows of a dataset were turned away, why, and where to look.

    Examples
    --------
    >>> turned_away_in_words({"dataset": "planes", "rows": 5, "created_at": "2013-03-01T10:00:00Z", "failed": ["unique(tailnum)"],
    ...                       "next": "mulle data versions planes"})
    '5 rows of planes were turned away 2013-03-01 10:00:00 by unique(tailnum): `mulle data versions planes`'
    """
    when, why = moment(batch["created_at"]), ", ".join(batch["failed"])
    return f"{batch['rows']} rows of {batch['dataset']} were turned away {when} by {why}: `{batch['next']}`"
