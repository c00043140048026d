"""Policies side by side: one table and one line by month out of the accounts of their replays."""

from __future__ import annotations

from collections.abc import Mapping

from mulle.core.records.base import Json

__all__ = ["FIGURES", "by_span", "compared"]

FIGURES = (
    "score", "retrainings", "promotions", "held_back", "alerts", "requests", "failed_requests", "compute_seconds",
    "cpu_seconds", "seconds",
)  # fmt: skip
"""What is told of each policy, in this order."""


def compared(accounts: Mapping[str, Json]) -> Json:
    """Put the accounts of several policies together.

    Parameters
    ----------
    accounts : mapping
        By policy: what `loop.replay.replay` gives.

    Returns
    -------
    dict
        ``policies`` (by name: `FIGURES`) and ``by_month`` (``month``, ``rows``, and the score of each policy by its name).
        A frozen model that was not played is there with the score that it would have had on the rows of the first policy,
        and nulls where nothing was watched.
    """
    first = next(iter(accounts.values()))
    policies = {name: _figures(account) for name, account in accounts.items()}
    if "frozen" not in accounts:
        beside = first["policies"]["frozen"]["score"]
        trained = first["runs"][0]["seconds"] if first["runs"] else None
        none = {**dict.fromkeys(FIGURES), "retrainings": 0, "promotions": 0, "requests": 0, "failed_requests": 0}
        policies = {"frozen": {**none, "score": beside, "compute_seconds": trained}, **policies}
    return {"policies": policies, "by_month": by_span(accounts, "month")}


def by_span(accounts: Mapping[str, Json], span: str) -> list[Json]:
    """Give the score of each policy by ``month`` or ``day``.

    Examples
    --------
    >>> account = {"by_month": [{"month": "2013-03", "rows": 2, "frozen": 3.0, "mulle": 1.0}]}
    >>> by_span({"declared": account}, "month")
    [{'month': '2013-03', 'rows': 2, 'frozen': 3.0, 'declared': 1.0}]
    """
    found: dict[str, Json] = {}
    for number, (name, account) in enumerate(accounts.items()):
        for scores in account[f"by_{span}"]:
            row = found.setdefault(scores[span], {span: scores[span], "rows": scores["rows"]})
            if number == 0 and "frozen" not in accounts:
                row["frozen"] = scores["frozen"]
            row[name] = scores["mulle"]
    return [found[at] for at in sorted(found)]


def _figures(account: Json) -> Json:
    told = {**account["policies"]["declared"], **account}
    counts = {name: len(told[name]) if isinstance(told[name], list) else told[name] for name in FIGURES if name != "score"}
    return {"score": account["policies"]["declared"]["score"], **counts, "retrainings": max(0, len(account["runs"]) - 1)}
