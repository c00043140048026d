"""The part of the card that says what the answers rest on: importance, partial dependence, learning curve."""

from __future__ import annotations

from mulle.core.records.evaluation import CurvePoint, Dependence, Importance, Inspection
from mulle.lifecycle.registry.markdown import bar, spark, table, text

__all__ = ["inspected"]

_MOST = 20


def inspected(found: Inspection) -> list[str]:
    """Write the sections.

    Parameters
    ----------
    found : Inspection

    Returns
    -------
    list of str
        Markdown, one a section; empty parts are left out.
    """
    parts = [_importance(found)] if found.importance else []
    if found.dependence:
        parts.append(_dependence(found.dependence))
    if len(found.curve) > 1:
        parts.append(_curve(found.metric, found.curve))
    if found.notes:
        parts.append("\n".join(f"- {note}." for note in found.notes))
    return parts


def _importance(found: Inspection) -> str:
    shown: tuple[Importance, ...] = found.importance[:_MOST]
    told = (
        f"How much the {found.metric} of {found.rows} holdout rows grows when one feature is shuffled among them, "
        f"{found.repeats} times (permutation importance: Breiman 2001; Fisher, Rudin and Dominici 2019). Of features that tell "
        "the same, each looks less important than they are together."
    )
    most = max(i.worse for i in shown)
    rows = [(f"`{i.column}`", text(i.worse), f"{text(i.low)} to {text(i.high)}", bar(i.worse, most)) for i in shown]
    more = len(found.importance) - len(shown)
    left = f"\n\n{more} more matter less." if more else ""
    return f"## What the answers rest on\n\n{told}\n\n" + table(("feature", "worse by", "95%", ""), rows) + left


def _dependence(shown: tuple[Dependence, ...]) -> str:
    told = (
        "The mean answer when every row is given the same value of one feature (partial dependence: Friedman 2001). Where "
        "features go together, that asks about rows that cannot be."
    )
    parts = [f"## How the answers follow a feature\n\n{told}"]
    for one in shown:
        lines = ", ".join(f"{name} {spark(values)}" for name, values in one.answers.items())
        rows = [(at, *(text(values[i]) for values in one.answers.values())) for i, at in enumerate(one.at)]
        parts.append(f"`{one.column}`: {lines}\n\n" + table((one.kind, *one.answers), rows))
    return "\n\n".join(parts)


def _curve(metric: str, points: tuple[CurvePoint, ...]) -> str:
    told = f"The {metric} of the same settings fitted on fewer rows, evenly spaced over the training rows; last the model."
    rows = [
        (str(p.rows), text(p.train), text(p.holdout), f"{text(p.low)} to {text(p.high)}", bar(p.holdout, points[0].holdout))
        for p in points
    ]
    return f"## Learning curve\n\n{told}\n\n" + table(("rows", "on them", "on the holdout", "95%", ""), rows)
