"""The rules of gates about how good the answers are: bounds, slices, the champion, the gap, calibration, fairness."""

from __future__ import annotations

import math

from mulle.core.declare.gates import (
    AtLeast,
    AtMost,
    CalibrationGate,
    EachSlice,
    Fairness,
    GeneralisationGap,
    NoWorseThanChampion,
    Satisfies,
)
from mulle.core.declare.metric import Metric
from mulle.core.records.evaluation import Measured
from mulle.core.records.run import GateResult
from mulle.kernel.metrics import lower_is_better
from mulle.lifecycle.evaluation.compare import Comparison
from mulle.lifecycle.evaluation.evidence import Evidence, lacking, ruled, short, sign

__all__ = [
    "judge_bound",
    "judge_calibration",
    "judge_champion",
    "judge_fairness",
    "judge_function",
    "judge_gap",
    "judge_slices",
]

_NAMED_SLICES = 3


def judge_bound(gate: AtMost | AtLeast, evidence: Evidence) -> GateResult:
    """Hold a metric of the whole holdout against its bound."""
    name, value = _bound_name(gate), evidence.metrics.get(gate.metric)
    if value is None:
        return lacking(name, gate.metric, gate.bound, evidence.why_not(gate.metric), evidence.rows)
    interval = evidence.intervals.get(gate.metric)
    holds, said = _held(gate, value)
    reason = f"{said} on {evidence.rows} rows{_sure(interval)}"
    return ruled(name, gate.metric, value, gate.bound, holds, reason, evidence.rows, interval)


def judge_slices(gate: EachSlice, evidence: Evidence) -> GateResult:
    """Hold a metric of each value of a column with enough rows against its bound."""
    inner, name = gate.gate, f"each_slice({gate.column}, {_bound_name(gate.gate)})"
    enough = _enough(evidence, gate.column, inner.metric, gate.min_rows)
    if not enough:
        why = f"no value of {gate.column} has {gate.min_rows} rows with {inner.metric} measured"
        return lacking(name, inner.metric, inner.bound, why, 0)
    turn = -1 if isinstance(inner, AtMost) else 1
    ranked = sorted(enough.items(), key=lambda s: _worst_first(turn * s[1].metrics[inner.metric]))
    told = {
        value: f"{gate.column} {value}: {_held(inner, part.metrics[inner.metric])[1]} on {part.rows} rows"
        f"{_sure(part.intervals.get(inner.metric))}"
        for value, part in ranked
    }
    broken = [value for value, part in ranked if not _held(inner, part.metrics[inner.metric])[0]]
    if broken:
        reason = f"{len(broken)} of {len(ranked)} slices fail: {'; '.join(told[v] for v in broken[:_NAMED_SLICES])}"
    else:
        reason = f"{len(ranked)} slices hold; worst {told[ranked[0][0]]}"
    worst = ranked[0][1]
    return ruled(
        name, inner.metric, worst.metrics[inner.metric], inner.bound, not broken, reason,
        sum(part.rows for _, part in ranked), worst.intervals.get(inner.metric),
    )  # fmt: skip


def judge_champion(gate: NoWorseThanChampion, evidence: Evidence) -> GateResult:
    """Hold the challenger against the champion, on rows that neither has seen."""
    name = f"no_worse_than_champion({gate.metric}{', proven' if gate.proven else ''})"
    if not evidence.has_champion:
        value = evidence.metrics.get(gate.metric)
        return GateResult(
            gate=name, metric=gate.metric, value=value, bound=None, verdict="pass", reason="no champion yet", rows=evidence.rows
        )
    found = next((c for c in (evidence.comparison, *evidence.further) if c is not None and c.metric == gate.metric), None)
    if found is None:
        why = evidence.failed.get(gate.metric, f"challenger and champion were not compared by {gate.metric}")
        return lacking(name, gate.metric, None, why, 0)
    lower = _lower(gate.metric, gate.own)
    allowed = abs(found.champion) * gate.margin
    bound = found.champion + allowed if lower else found.champion - allowed
    if found.rows < gate.min_rows:
        why = f"{found.rows} {found.of}, {gate.min_rows} are wanted"
        return lacking(name, gate.metric, bound, why, found.rows, value=found.challenger)
    # A challenger with the champion's very answers must not fail by the last bit of a sum.
    slack = 1e-9 * max(1.0, abs(bound))
    worse = found.difference if lower else -found.difference
    worst, best = (found.high, found.low) if lower else (-found.low, -found.high)
    if gate.proven and best <= allowed + slack < worst:
        why = f"the difference may be luck, {_compared(gate, found, lower, worse <= allowed + slack)}"
        return lacking(name, gate.metric, bound, why, found.rows, value=found.challenger)
    holds = worse <= allowed + slack
    away = (found.champion + found.low, found.champion + found.high) if math.isfinite(found.low) else None
    return ruled(name, gate.metric, found.challenger, bound, holds, _compared(gate, found, lower, holds), found.rows, away)


def judge_gap(gate: GeneralisationGap, evidence: Evidence) -> GateResult:
    """Hold the metric on the holdout against that on rows the model was fitted on."""
    name, last = f"generalisation_gap({gate.metric}, {short(gate.most)})", evidence.metrics.get(gate.metric)
    first = None if evidence.train is None else evidence.train.metrics.get(gate.metric)
    if last is None or first is None or evidence.train is None:
        return lacking(name, gate.metric, gate.most, evidence.why_not(gate.metric), evidence.rows)
    gap = last - first if _lower(gate.metric, gate.own) else first - last
    holds = gap <= gate.most
    reason = (
        f"{gate.metric} is {short(last)} on {evidence.rows} rows of the holdout and {short(first)} on {evidence.train.rows} "
        f"rows it was fitted on: worse by {short(gap)} {sign(holds, True)} {short(gate.most)}"
    )
    return ruled(name, gate.metric, gap, gate.most, holds, reason, evidence.rows)


def judge_calibration(gate: CalibrationGate, evidence: Evidence) -> GateResult:
    """Hold the calibration error against its bound."""
    name, found = f"calibration({short(gate.most)})", evidence.calibrations.get(gate.bins)
    if found is None:
        return lacking(name, "calibration", gate.most, "calibration was not measured", evidence.rows)
    holds = found.error <= gate.most
    if found.bias is not None:
        said = f"mean error {short(found.bias)}, {short(found.error)} standard deviations of the target,"
        return ruled(
            name, "bias", found.error, gate.most, holds,
            f"{said} {sign(holds, True)} {short(gate.most)} on {found.rows} rows", found.rows,
        )  # fmt: skip
    worst = max(found.bins, key=lambda b: b.rows * abs(b.said - b.observed))
    reason = (
        f"expected calibration error {short(found.error)} {sign(holds, True)} {short(gate.most)} over {gate.bins} bins on "
        f"{found.rows} rows; most of it from {worst.low:.2g} to {worst.high:.2g}: said {worst.said:.3f}, came true "
        f"{worst.observed:.3f} on {worst.rows} rows"
    )
    return ruled(name, "ece", found.error, gate.most, holds, reason, found.rows)


def judge_fairness(gate: Fairness, evidence: Evidence) -> GateResult:
    """Hold the largest difference of a metric between two values of a column against its bound."""
    name = f"fairness({gate.column}, {gate.metric}, {short(gate.most)})"
    enough = _enough(evidence, gate.column, gate.metric, gate.min_rows)
    if len(enough) < 2:
        why = f"{len(enough)} values of {gate.column} have {gate.min_rows} rows with {gate.metric} measured, 2 are wanted"
        return lacking(name, gate.metric, gate.most, why, sum(part.rows for part in enough.values()))
    ranked = sorted(enough.items(), key=lambda s: _worst_first(s[1].metrics[gate.metric]))
    ends = (ranked[0], ranked[-1])
    difference = ends[1][1].metrics[gate.metric] - ends[0][1].metrics[gate.metric]
    holds = difference <= gate.most
    told = " and ".join(
        f"{short(part.metrics[gate.metric])} for {gate.column} {value} on {part.rows} rows"
        f"{_sure(part.intervals.get(gate.metric))}"
        for value, part in ends
    )
    reason = f"{gate.metric} differs by {short(difference)} {sign(holds, True)} {short(gate.most)}: {told}"
    return ruled(name, gate.metric, difference, gate.most, holds, reason, sum(part.rows for part in enough.values()))


def judge_function(gate: Satisfies, evidence: Evidence) -> GateResult:
    """Ask a user's function."""
    name = f"satisfies({gate.name})"
    try:
        said = gate.function(evidence)
    except Exception as error:
        # What a user's function raises is its way to say no.
        told = str(error)
        said = f"{type(error).__name__}: {told}" if told else type(error).__name__
    if isinstance(said, (str, list, tuple)):
        messages = [said] if isinstance(said, str) else [str(m) for m in said]
        holds, reason = not any(messages), "; ".join(m for m in messages if m) or f"{gate.name} found nothing wrong"
    else:
        holds = said is None or bool(said)
        reason = f"{gate.name} found nothing wrong" if holds else f"{gate.name} gave {said}"
    verdict = "pass" if holds else "fail"
    return GateResult(gate=name, metric=gate.name, value=None, bound=None, verdict=verdict, reason=reason, rows=evidence.rows)


def _compared(gate: NoWorseThanChampion, found: Comparison, lower: bool, holds: bool) -> str:
    margin = f" with a margin of {gate.margin:.2%}" if gate.margin else ""
    return (
        f"{gate.metric} {short(found.challenger)} {sign(holds, lower)} the champion's {short(found.champion)}{margin} "
        f"on {found.rows} {found.of} (difference {short(found.difference)}, 95% {short(found.low)} to {short(found.high)})"
    )


def _enough(evidence: Evidence, column: str, metric: str, min_rows: int) -> dict[str, Measured]:
    parts = evidence.slices.get(column, {})
    return {value: part for value, part in parts.items() if part.rows >= min_rows and metric in part.metrics}


def _worst_first(value: float) -> tuple[bool, float]:
    return (not math.isnan(value), value)


def _lower(metric: str, own: Metric | None) -> bool:
    return lower_is_better(metric) if own is None else own.lower_is_better


def _held(gate: AtMost | AtLeast, value: float) -> tuple[bool, str]:
    below = isinstance(gate, AtMost)
    holds = value <= gate.bound if below else value >= gate.bound
    return holds, f"{gate.metric} {short(value)} {sign(holds, below)} {short(gate.bound)}"


def _bound_name(gate: AtMost | AtLeast) -> str:
    return f"{'at_most' if isinstance(gate, AtMost) else 'at_least'}({gate.metric}, {short(gate.bound)})"


def _sure(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" (95% {short(interval[0])} to {short(interval[1])})"
