"""What table and report both tell of a demo's account: sentences and rows, no layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mulle.core.clock import instant
from mulle.core.records.base import Json

__all__ = ["alert_counts", "day", "held_by", "number", "scored_span", "verdict", "whys"]


def number(value: object, digits: int = 2) -> str:
    """Write a measured value; nothing is ``-``.

    Examples
    --------
    >>> number(7.126), number(None), number(1234567, 0)
    ('7.13', '-', '1,234,567')
    """
    return f"{value:,.{digits}f}" if isinstance(value, (int, float)) else "-"


def day(text: object) -> str:
    """Write an instant by its date, with the time where it is not midnight.

    Examples
    --------
    >>> day("2013-03-01T00:00:00Z"), day("2013-03-01T06:30:00Z")
    ('2013-03-01', '2013-03-01 06:30')
    """
    words = str(text)[:16].replace("T", " ")
    return words.removesuffix(" 00:00")


def scored_span(account: Json) -> str:
    """Name the span that the headline covers.

    Examples
    --------
    >>> scored_span({"score_from": "2013-05-01T00:00:00Z", "to": "2014-01-01T00:00:00Z"})
    'May to December 2013'
    >>> scored_span({"score_from": "2013-03-01T00:00:00Z", "to": "2013-03-20T00:00:00Z"})
    '2013-03-01 to 2013-03-20'
    """
    first, last = instant(str(account["score_from"])), instant(str(account["to"]))
    if first.day != 1 or last.day != 1:
        return f"{day(account['score_from'])} to {day(account['to'])}"
    final = last.replace(year=last.year - (last.month == 1), month=(last.month - 2) % 12 + 1)
    return f"{first:%B} {final:%Y}" if first.month == final.month else f"{first:%B} to {final:%B %Y}"


def whys(record: Json) -> str:
    """Give the reasons of a record in words.

    Examples
    --------
    >>> whys({"causes": [{"type": "alert", "id": "1", "why": "drift of wind"}]})
    'drift of wind'
    """
    return "; ".join(str(c["why"]) for c in record["causes"]) or "-"


def held_by(run: Json) -> list[Json]:
    """List the gates that held a run back."""
    return [g for g in run["gates"] if g["verdict"] in ("fail", "not_enough_evidence")]


def verdict(run: Json) -> str:
    """Say what became of a run, with the gate that held it back."""
    if run["model_version"]:
        return f"version {run['model_version']}"
    reasons = "; ".join(f"{g['gate']}: {g['reason']}" for g in held_by(run)) or str(run["reason"]) or "no reason given"
    return f"{run['state']} by {reasons}"


def alert_counts(alerts: Sequence[Json]) -> list[tuple[str, int, int, str]]:
    """Count alerts by what they watch: name, how many, how many still open, the first day; most frequent first."""
    names = [(f"{a['signal']} of {a['feature']}" if a["feature"] else str(a["signal"])) for a in alerts]
    opened = Counter(n for n, a in zip(names, alerts, strict=True) if a["state"] == "open")
    first = {n: day(a["created_at"]) for n, a in reversed(list(zip(names, alerts, strict=True)))}
    return [(n, count, opened[n], first[n]) for n, count in Counter(names).most_common()]
