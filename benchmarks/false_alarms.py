"""Alarms where nothing has changed, and how soon one comes where something has: Mulle's own rules, beside Evidently's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.claim import OURS, Side, Size
from benchmarks.drifting import GRADES, Rows, categories, numbers, reference, windows
from benchmarks.measure import outcome_of
from benchmarks.side import Work

if TYPE_CHECKING:
    from mulle.core.declare.monitor import Monitor

__all__ = ["CLAIMS", "SENSITIVE", "Quiet", "as_text", "mulle", "watched"]

SENSITIVE = "Mulle, bounds of 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Models watched over many windows, by several sides."""

    name: str
    says: str
    sizes: Mapping[Size, Mapping[str, int]]
    sides: tuple[Side, ...]
    most: float


def mulle(folder: Path) -> Work:
    """Watch by what a model has without a word, and by bounds of nothing, so that what is not by chance alarms."""
    import mulle as ml

    # The mean absolute error of standard normal noise, and a fifth.
    bound = ml.at_most("mae", 1.2 * float(np.sqrt(2 / np.pi)))
    every = ml.psi(0.0) | ml.js(0.0) | ml.wasserstein(0.0)
    monitors = {
        OURS: ml.Monitor(performance=bound),
        SENSITIVE: ml.Monitor(drift=every, quality=ml.null_rate(0.0), performance=bound),
    }
    size = json.loads((folder / "size.json").read_text())

    def run() -> dict:
        quiet = [_first(seed, size, monitors, size["windows"]) for seed in range(size["seeds"])]
        drifting = {
            kind: {
                str(g): [_first(1_000 + seed, size, monitors, size["horizon"], kind, g) for seed in range(size["drifting"])]
                for g in grades
            }
            for kind, grades in GRADES.items()
        }
        return {
            name: {
                "alarmed": [found[name] is not None for found in quiet],
                "delays": {k: {g: [f[name] for f in found] for g, found in by.items()} for k, by in drifting.items()},
                "note": note,
            }
            for name, note in ((OURS, "as a model has it without a word"), (SENSITIVE, "chance alone decides"))
        }

    return Work(run=run, keep=lambda told, path: path.with_suffix(".json").write_text(json.dumps(told)))


def _first(
    seed: int, size: Mapping[str, int], monitors: Mapping[str, Monitor], count: int, kind: str = "", grade: float = 0.0
) -> dict[str, int | None]:
    """Give the number of the first window that alarms, by each monitor."""
    from mulle.core.records.bundle import FeatureSpec
    from mulle.kernel.histograms import build_reference, count_values, merge
    from mulle.kernel.histograms import count as counted_by
    from mulle.lifecycle.monitoring.drift import Seen, signals_of
    from mulle.lifecycle.monitoring.window import RECENT

    specs = [FeatureSpec(name=n, kind="number") for n in numbers(size)]
    specs += [FeatureSpec(name=n, kind="category") for n in categories(size)]
    known = _frame(reference(seed, size))
    held = build_reference(known, specs, known["answer"])
    before: list[dict] = []
    found: dict[str, int | None] = dict.fromkeys(monitors)
    for number, rows in enumerate(windows(seed, size, count, kind, grade), 1):
        frame = _frame(rows)
        counted = counted_by(frame, held)
        counted["prediction"] = count_values(frame["answer"], held["prediction"])
        recent = reduce(merge, before[-RECENT:]) if before else None
        seen = Seen(counted=counted, recent=recent, before=len(before[-RECENT:]), unseen={}, refused={})
        for name in (n for n, first in found.items() if first is None):
            signals = signals_of(monitors[name], seen, held)
            if any(s.verdict == "alarm" for s in signals) or _performs_badly(frame, monitors[name]):
                found[name] = number
        if all(found.values()):
            break
        before.append(counted)
    return found


def _performs_badly(frame: pl.DataFrame, monitor: Monitor) -> bool:
    import mulle as ml
    from mulle.lifecycle.monitoring.performance import judge_performance

    rows = ml.Dataset("rows", ml.Files("rows.parquet"), key="id", outcome=["y"])
    shape = ml.features(rows)(lambda given: given)
    model = ml.Model("m", features=shape, target="y", task="regression", monitor=monitor)
    known = frame.select(truth="y", value="answer", labelled=pl.lit(True), never=pl.lit(False))
    return judge_performance(model, known, mature=True).verdict == "alarm"


def _frame(rows: Rows) -> pl.DataFrame:
    names = np.array([f"k{i}" for i in range(8)])
    return pl.DataFrame({n: names[values].tolist() if n.startswith("c") else values for n, values in rows.items()})


def watched(claim: Quiet, size: Size, *, peers: bool, say: Callable[[str], None]) -> dict:
    """Let every side watch the same models.

    Returns
    -------
    dict
        ``claim``, ``size``, ``sides`` (name, rate of false alarms, power and delay by kind and grade, versions, failed) and
        ``targets``.
    """
    told: list[dict] = []
    with TemporaryDirectory(prefix="mulle-bench-") as temporary:
        folder = Path(temporary)
        (folder / "size.json").write_text(json.dumps(dict(claim.sizes[size])))
        for side in claim.sides:
            if side.peer and not peers:
                continue
            say(f"{claim.name}: {side.name}")
            outcome = outcome_of(side, folder)
            shown = {"name": side.name, "note": side.note, "peer": side.peer, "failed": outcome.failed}
            shown["versions"] = dict(outcome.versions)
            if outcome.failed:
                told.append(shown)
                continue
            answer = json.loads((folder / f"{side.slug}.json").read_text())
            for name, part in (answer if OURS in answer else {side.name: answer}).items():
                note = "; ".join(filter(None, (side.note, part["note"])))
                told.append({**shown, "name": name, "note": note, **_figures(part, claim.sizes[size]["horizon"])})
    return {"claim": claim.name, "size": size, "sides": told, "targets": list(_targets(claim, size, told))}


def _figures(answer: dict, horizon: int) -> dict:
    grades = {
        kind: {
            grade: {
                "power": float(np.mean([d is not None for d in delays])),
                "delay": float(np.mean([horizon + 1 if d is None else d for d in delays])),
                "delays": [horizon + 1 if d is None else d for d in delays],
            }
            for grade, delays in by_grade.items()
        }
        for kind, by_grade in answer["delays"].items()
    }
    return {"false_alarms": float(np.mean(answer["alarmed"])), "models": len(answer["alarmed"]), "grades": grades}


def _targets(claim: Quiet, size: Size, told: list[dict]) -> list[dict]:
    found = []
    for side in (s for s in told if s["name"].startswith(OURS)):
        value = side.get("false_alarms")
        met = None if value is None or size != "full" else value <= claim.most
        found.append({"says": f"{side['name']}: at most {claim.most:g} of models ever alarm", "value": value, "met": met})
    ours, theirs = (next((s for s in told if s["name"] == n and not s["failed"]), None) for n in (SENSITIVE, "Evidently"))
    if ours and theirs:
        behind = {
            f"{kind} {grade}": np.subtract(have["delays"], theirs["grades"][kind][grade]["delays"])
            for kind, grades in ours["grades"].items()
            for grade, have in grades.items()
        }
        later = [drift for drift, windows in behind.items() if _beyond_chance(windows)]
        says = f"{SENSITIVE}: later than Evidently, beyond two standard errors of the same models' delays, on no drift"
        says += f" (later on {', '.join(later)})" if later else ""
        found.append({"says": says, "value": float(len(later)), "met": not later if size == "full" else None})
        for what, more in (("delay", -1), ("power", 1)):
            mine, other = (
                float(np.mean([cell[what] for grades in side["grades"].values() for cell in grades.values()]))
                for side in (ours, theirs)
            )
            says = f"{SENSITIVE}: over all drifts {what} no worse than Evidently's ({mine:.3f} and {other:.3f})"
            found.append({"says": says, "value": mine, "met": more * (mine - other) >= 0 if size == "full" else None})
    return found


def _beyond_chance(behind: NDArray[np.int64]) -> bool:
    error = behind.std(ddof=1) / np.sqrt(len(behind)) if len(behind) > 1 else 0.0
    return bool(behind.mean() > 2 * error)


def _rate(side: dict) -> str:
    if side["failed"]:
        return f"| {side['name']} | {side['failed']} | | |"
    return f"| {side['name']} | {side['false_alarms']:.2f} | {side['models']} | {side['note']} |"


def as_text(claim: Quiet, told: dict) -> str:
    """Write it as Markdown: false alarms by side, then power and delay by kind and grade of drift."""
    size = claim.sizes[told["size"]]
    shown = [s for s in told["sides"] if not s["failed"]]
    lines = [f"### {claim.name}", "", claim.says.format(**size), "", "| side | models that ever alarm | of | |"]
    lines += ["|---|---|---|---|", *map(_rate, told["sides"])]
    head = " | ".join(f"{s['name']}: power, windows" for s in shown)
    lines += ["", f"Share found within {size['horizon']} windows, and after how many (not found is one more than all).", ""]
    lines += [f"| drift | by | {head} |", "|---|---|" + "---|" * len(shown)]
    for kind, grades in GRADES.items():
        for grade in map(str, grades):
            cells = [s["grades"][kind][grade] for s in shown]
            lines.append(f"| {kind} | {grade} | " + " | ".join(f"{c['power']:.2f}, {c['delay']:.1f}" for c in cells) + " |")
    verdicts = {True: "met", False: "MISSED", None: "no verdict at this size"}
    lines += ["", *(f"- {t['says']}: {verdicts[t['met']]}" for t in told["targets"]), ""]
    return "\n".join(lines)


CLAIMS = (
    Quiet(
        name="False alarms",
        says="Models with {features} features, {windows} windows of {rows} rows, against {reference} rows of reference.",
        sizes={
            "small": {"features": 10, "rows": 300, "reference": 2_000, "windows": 5, "seeds": 3, "drifting": 2, "horizon": 3},
            "full": {"features": 50, "rows": 500, "reference": 5_000, "windows": 60, "seeds": 100, "drifting": 40, "horizon": 10},
        },
        sides=(
            Side(name=OURS, call="benchmarks.false_alarms:mulle", repeat=1),
            Side(name="Evidently", call="benchmarks.peers.evidently_alarms:watch", peer="evidently", repeat=1,
                 note="tuned on these very models"),
        ),
        most=0.05,
    ),
)  # fmt: skip
