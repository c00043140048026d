"""What a study found: ranks, the goals it is held to, a table to read and JSON to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.claim import Size
from benchmarks.report import table, verdict
from benchmarks.study import Cell, Goal, Study

__all__ = ["ahead_of", "as_json", "as_text", "mean_ranks", "no_failures"]

_LOADED = 0.1
"""A round in which others took more of the machine than this is marked."""


def mean_ranks(found: Sequence[Cell]) -> dict[str, float]:
    """Rank the sides on each table by their mean score over seeds, ties alike, a failure last; give each side's mean rank."""
    ranks: dict[str, list[float]] = {c.side: [] for c in found}
    for scores in _by_table(found).values():
        for side, own in scores.items():
            ranks[side].append(1 + sum(o < own for o in scores.values()) + (sum(o == own for o in scores.values()) - 1) / 2)
    return {side: sum(own) / len(own) for side, own in ranks.items()}


def _by_table(found: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Give each table's mean score over seeds by side; infinite where a seed failed."""
    sides, tables = (list(dict.fromkeys(names)) for names in zip(*((c.side, c.table) for c in found), strict=True))
    return {t: {s: _mean([c.score for c in found if (c.table, c.side) == (t, s)]) for s in sides} for t in tables}


def _mean(scores: Sequence[float | None]) -> float:
    return float("inf") if None in scores or not scores else sum(s for s in scores if s is not None) / len(scores)


def ahead_of(peer: str) -> Goal:
    """Promise a mean rank ahead of a peer's."""

    def difference(found: Sequence[Cell]) -> float | None:
        if not any(c.side == peer and not c.failed for c in found):
            return None
        ranks = mean_ranks(found)
        return ranks[found[0].side] - ranks[peer]

    return Goal(says=f"mean rank ahead of {peer} (ours less theirs, under 0)", bound=-1e-9, figure=difference)


def no_failures() -> Goal:
    """Promise that our side never fails."""

    def failures(found: Sequence[Cell]) -> float:
        return float(sum(bool(c.failed) for c in found if c.side == found[0].side))

    return Goal(says="failures", bound=0, figure=failures)


def as_text(study: Study, size: Size, found: Sequence[Cell]) -> str:
    """Write a study as Markdown: for each round the scores by table, the sides' standing, the goals, then the settings."""
    lines = [f"### {study.name}", "", study.says, ""]
    for seconds, cells in _rounds(found).items():
        seeds = len({c.seed for c in cells})
        lines += [f"**{seconds:g} s, {seeds} seed{'s' * (seeds > 1)}.** {_load(cells)}", ""]
        lines += [*table(_scores(cells)), "", *table(_sides(study, cells)), ""]
        lines += [f"- {g.says}: {verdict(g.figure(cells), g.met(cells), size)}" for g in study.targets] + [""]
    return "\n".join([*lines, *_settings(found), ""])


def as_json(study: Study, size: Size, found: Sequence[Cell]) -> dict[str, Any]:
    """Give a study as a JSON object."""
    rounds, targets = _rounds(found), []
    for seconds, cells in rounds.items():
        for g in study.targets:
            met = g.met(cells) if size == "full" else None
            targets.append({"says": f"{seconds:g} s: {g.says}", "bound": g.bound, "figure": g.figure(cells), "met": met})
    sides = [{"name": s.name, "peer": s.peer, "versions": _versions(found, s.name)} for s in study.sides]
    ranks = {f"{seconds:g}": mean_ranks(cells) for seconds, cells in rounds.items()}
    cells = [asdict(c) for c in found]
    return {"name": study.name, "size": size, "sides": sides, "mean_ranks": ranks, "cells": cells, "targets": targets}


def _rounds(found: Sequence[Cell]) -> dict[float, list[Cell]]:
    rounds: dict[float, list[Cell]] = {}
    for cell in found:
        rounds.setdefault(cell.seconds, []).append(cell)
    return rounds


def _load(cells: Sequence[Cell]) -> str:
    busy = max(c.busy for c in cells)
    return f"**Under load**: others took up to {busy:.0%} of the machine during a cell." if busy > _LOADED else ""


def _scores(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    sides = list(dict.fromkeys(c.side for c in cells))
    rows = [("table", "origin", "rows", "score, lower is better", *sides)]
    for name, scores in _by_table(cells).items():
        best, first = min(scores.values()), next(c for c in cells if c.table == name)
        said = [("failed" if v == float("inf") else f"**{v:.4g}**" if v == best else f"{v:.4g}") for v in scores.values()]
        metric = "mean absolute error" if first.task == "regression" else "log loss"
        rows.append((name, first.origin, f"{first.rows:,}", metric, *said))
    return rows


def _sides(study: Study, cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    rows = [("", "mean rank", "beaten by Mulle", "failures", "mean time", "longest", "")]
    notes = {s.name: s.note for s in study.sides}
    scores, tables = _by_table(cells), len({c.table for c in cells})
    for side, rank in mean_ranks(cells).items():
        own = [c for c in cells if c.side == side]
        walls, failures = [c.wall for c in own if not c.failed], [c.failed for c in own if c.failed]
        times = (f"{sum(walls) / len(walls):.1f} s", f"{max(walls):.1f} s") if walls else ("-", "-")
        said = "; ".join([notes[side], *dict.fromkeys(failures)])
        beaten = sum(found[cells[0].side] < found[side] for found in scores.values())
        ahead = "-" if side == cells[0].side else f"{beaten} of {tables}"
        rows.append((side, f"{rank:.2f}" if walls else "-", ahead, f"{len(failures)} of {len(own)}", *times, said))
    return rows


def _settings(found: Sequence[Cell]) -> list[str]:
    """Print what each side was called with: once, and what differs between tables after it."""
    lines = ["Settings:", ""]
    for side in dict.fromkeys(c.side for c in found):
        own = [c.settings for c in found if c.side == side and c.settings]
        names = dict.fromkeys(n for settings in own for n in settings)
        said = {n: list(dict.fromkeys(str(settings.get(n)) for settings in own)) for n in names}
        lines.append(f"- {side}: " + "; ".join(f"{n} = {' or '.join(values)}" for n, values in said.items()))
    return lines


def _versions(found: Sequence[Cell], side: str) -> dict[str, str]:
    return {n: v for c in found if c.side == side for n, v in c.versions.items()}
