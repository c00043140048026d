"""What was measured, as a table to read and as JSON to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.claim import GIB, Claim, Outcome, Size

__all__ = ["as_json", "as_text", "table", "verdict"]

_UNITS = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (0.0, "us", 1e6))


def as_text(claim: Claim, size: Size, outcomes: Mapping[str, Outcome]) -> str:
    """Write one claim as Markdown: a table of its sides, then its targets."""
    ours = outcomes[claim.sides[0].name]
    rows = [("", "best", "of", "x Mulle", "CPU", "peak memory", "")]
    for outcome in outcomes.values():
        if outcome.failed:
            rows.append((outcome.side.name, "-", "-", "-", "-", "-", outcome.failed))
            continue
        ratio = "-" if ours.failed else f"{outcome.best / ours.best:.2f}"
        note = outcome.side.note
        peak = f"{outcome.peak_bytes / GIB:.2f} GiB"
        rows.append((outcome.side.name, _time(outcome.best), str(len(outcome.runs)), ratio, _time(outcome.cpu), peak, note))
    lines = [f"### {claim.name}", "", claim.says.format_map(_Thousands(claim.sizes[size])), "", *table(rows), ""]
    return "\n".join([*lines, *_targets(claim, size, outcomes), ""])


def as_json(claim: Claim, size: Size, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Give one claim as a JSON object."""
    good = _good(outcomes)
    sides = [
        {
            "name": o.side.name,
            "peer": o.side.peer,
            "seconds": [wall for wall, _ in o.runs],
            "cpu_seconds": [cpu for _, cpu in o.runs],
            "best": None if o.failed else o.best,
            "peak_bytes": o.peak_bytes,
            "versions": dict(o.versions),
            "failed": o.failed or None,
        }
        for o in outcomes.values()
    ]
    targets = [
        {"says": t.says, "bound": t.bound, "figure": t.figure(good), "met": t.met(good) if size == "full" else None}
        for t in claim.targets
    ]
    return {"name": claim.name, "size": size, "numbers": dict(claim.sizes[size]), "sides": sides, "targets": targets}


def _targets(claim: Claim, size: Size, outcomes: Mapping[str, Outcome]) -> list[str]:
    good = _good(outcomes)
    return [f"- {t.says}: {verdict(t.figure(good), t.met(good), size)}" for t in claim.targets]


def verdict(figure: float | None, met: bool | None, size: Size) -> str:
    """Write what a target's figure is, and whether it is met."""
    said = "not measured" if met is None else "no verdict at this size" if size != "full" else "met" if met else "**missed**"
    return f"{'-' if figure is None else _figure(figure)}, {said}"


def _figure(figure: float) -> str:
    return f"{figure:.2f}" if figure >= 0.1 or figure <= 0 else f"{figure:.2g}"


def _good(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {n: o for n, o in outcomes.items() if not o.failed}


def _time(seconds: float) -> str:
    _, unit, factor = next(u for u in _UNITS if seconds >= u[0])
    return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of cells as a Markdown table; the first is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


class _Thousands(dict[str, str]):
    """Fills a sentence's numbers with separators."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        super().__init__({name: f"{number:,}" for name, number in numbers.items()})
