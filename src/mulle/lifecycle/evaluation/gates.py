"""Judging the gates: measurements in, one recorded verdict per gate out. To add a gate, add its rule to `_judge`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mulle.core.declare.gates import P99, AtLeast, AtMost, EachSlice, Gate, NoWorseThanChampion, ParityGate
from mulle.core.records.model import Parity
from mulle.core.records.run import GateResult
from mulle.kernel.metrics import lower_is_better
from mulle.lifecycle.evaluation.compare import Comparison

__all__ = ["Evidence", "accepted", "judge"]

Slices = Mapping[str, Mapping[str, tuple[int, Mapping[str, float]]]]

_NAMED_SLICES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured of a challenger; a gate without its measurement says "not enough evidence".

    Attributes
    ----------
    metrics : mapping
        On the holdout.
    rows : int
        Of the holdout.
    slices : mapping
        Column to value to (rows, metrics).
    parity : Parity or None
    p99_seconds : float or None
        One row, inside the runtime.
    has_champion : bool
    comparison : Comparison or None
        With the champion, on rows that neither has seen.
    further : tuple of Comparison
        By other metrics, when gates ask for them.
    """

    metrics: Mapping[str, float]
    rows: int
    slices: Slices = field(default_factory=dict)
    parity: Parity | None = None
    p99_seconds: float | None = None
    has_champion: bool = False
    comparison: Comparison | None = None
    further: tuple[Comparison, ...] = ()


def judge(gates: Sequence[Gate], evidence: Evidence, *, replay: bool = False) -> tuple[GateResult, ...]:
    """Judge each gate.

    Parameters
    ----------
    gates : sequence of Gate
    evidence : Evidence
    replay : bool
        On a replay clock latency is recorded and does not decide.

    Returns
    -------
    tuple of GateResult
        In the gates' order; each reason says what was compared with what.

    Examples
    --------
    >>> from mulle.core.declare.gates import at_most
    >>> judge([at_most("mae", 12)], Evidence(metrics={"mae": 7.914}, rows=100))[0].reason
    'mae 7.914 <= 12 on 100 rows'
    """
    return tuple(_judge(gate, evidence, replay) for gate in gates)


def accepted(results: Sequence[GateResult]) -> bool:
    """Tell whether a challenger may be registered: every gate passed, or only recorded."""
    return all(r.verdict in ("pass", "recorded") for r in results)


def _judge(gate: Gate, evidence: Evidence, replay: bool) -> GateResult:
    if isinstance(gate, (AtMost, AtLeast)):
        return _judge_bound(gate, evidence)
    if isinstance(gate, EachSlice):
        return _judge_slices(gate, evidence)
    if isinstance(gate, NoWorseThanChampion):
        return _judge_champion(gate, evidence)
    if isinstance(gate, ParityGate):
        return _judge_parity(gate, evidence)
    return _judge_latency(gate, evidence, replay)


def _judge_bound(gate: AtMost | AtLeast, evidence: Evidence) -> GateResult:
    name, value = _bound_name(gate), evidence.metrics.get(gate.metric)
    if value is None:
        return _lacking(name, gate.metric, gate.bound, f"{gate.metric} was not measured", evidence.rows)
    verdict, said = _held(gate, value)
    return GateResult(
        gate=name, metric=gate.metric, value=value, bound=gate.bound, verdict=verdict,
        reason=f"{said} on {evidence.rows} rows", rows=evidence.rows,
    )  # fmt: skip


def _judge_slices(gate: EachSlice, evidence: Evidence) -> GateResult:
    inner, name = gate.gate, f"each_slice({gate.column}, {_bound_name(gate.gate)})"
    measured = [
        (value, rows, metrics[inner.metric])
        for value, (rows, metrics) in evidence.slices.get(gate.column, {}).items()
        if rows >= gate.min_rows and inner.metric in metrics
    ]
    if not measured:
        why = f"no value of {gate.column} has {gate.min_rows} rows with {inner.metric} measured"
        return _lacking(name, inner.metric, inner.bound, why, 0)
    worst_first = sorted(measured, key=lambda m: (not math.isnan(m[2]), -m[2] if isinstance(inner, AtMost) else m[2]))
    broken = [(value, rows, metric) for value, rows, metric in worst_first if _held(inner, metric)[0] == "fail"]
    if broken:
        named = "; ".join(f"{gate.column} {v}: {_held(inner, m)[1]} on {r} rows" for v, r, m in broken[:_NAMED_SLICES])
        reason = f"{len(broken)} of {len(measured)} slices fail: {named}"
    else:
        value, rows, metric = worst_first[0]
        reason = f"{len(measured)} slices hold; worst {gate.column} {value}: {_held(inner, metric)[1]} on {rows} rows"
    return GateResult(
        gate=name, metric=inner.metric, value=worst_first[0][2], bound=inner.bound,
        verdict="fail" if broken else "pass", reason=reason, rows=sum(rows for _, rows, _ in measured),
    )  # fmt: skip


def _judge_champion(gate: NoWorseThanChampion, evidence: Evidence) -> GateResult:
    name = f"no_worse_than_champion({gate.metric})"
    if not evidence.has_champion:
        value = evidence.metrics.get(gate.metric)
        return GateResult(gate=name, metric=gate.metric, value=value, bound=None, verdict="pass", reason="no champion yet")
    taken = [c for c in (evidence.comparison, *evidence.further) if c is not None and c.metric == gate.metric]
    if not taken:
        return _lacking(name, gate.metric, None, f"challenger and champion were not compared by {gate.metric}", 0)
    found = taken[0]
    lower = lower_is_better(gate.metric)
    allowed = abs(found.champion) * gate.margin
    bound = found.champion + allowed if lower else found.champion - allowed
    if found.rows < gate.min_rows:
        why = f"{found.rows} rows that neither has seen, {gate.min_rows} are wanted"
        return _lacking(name, gate.metric, bound, why, found.rows, value=found.challenger)
    # A challenger with the champion's very answers must not fail by the last bit of a sum.
    slack = 1e-9 * max(1.0, abs(bound))
    holds = found.challenger <= bound + slack if lower else found.challenger >= bound - slack
    sign = _sign(holds, lower)
    margin = f" with a margin of {gate.margin:.2%}" if gate.margin else ""
    return GateResult(
        gate=name, metric=gate.metric, value=found.challenger, bound=bound, verdict="pass" if holds else "fail",
        reason=(
            f"{gate.metric} {_short(found.challenger)} {sign} the champion's {_short(found.champion)}{margin} "
            f"on {found.rows} rows (difference {_short(found.difference)}, 95% {_short(found.low)} to {_short(found.high)})"
        ),
        rows=found.rows,
    )  # fmt: skip


def _judge_parity(gate: ParityGate, evidence: Evidence) -> GateResult:
    proof = evidence.parity
    if proof is None or not proof.rows:
        return _lacking("parity", "parity", gate.tolerance, "parity was not measured", 0)
    holds = proof.worst <= gate.tolerance
    share = "" if holds else f", {proof.outside:.2%} of the rows outside {_short(proof.tolerance)}"
    return GateResult(
        gate="parity", metric="parity", value=proof.worst, bound=gate.tolerance, verdict="pass" if holds else "fail",
        reason=(
            f"served and fitted answers differ by at most {proof.worst:.2g} {_sign(holds, True)} {_short(gate.tolerance)} "
            f"of the target's spread on {proof.rows} rows{share}"
        ),
        rows=proof.rows,
    )  # fmt: skip


def _judge_latency(gate: P99, evidence: Evidence, replay: bool) -> GateResult:
    bound, value = gate.bound.total_seconds(), evidence.p99_seconds
    if value is None and not replay:
        return _lacking("p99", "p99_seconds", bound, "latency was not measured", 0)
    if replay:
        said = "not measured" if value is None else f"p99 {_milliseconds(value)}"
        reason = f"{said}; on a replay clock latency is recorded and does not decide"
        return GateResult(gate="p99", metric="p99_seconds", value=value, bound=bound, verdict="recorded", reason=reason)
    assert value is not None
    holds = value <= bound
    reason = f"p99 {_milliseconds(value)} {_sign(holds, True)} {_milliseconds(bound)}"
    return GateResult(
        gate="p99", metric="p99_seconds", value=value, bound=bound, verdict="pass" if holds else "fail", reason=reason
    )


def _held(gate: AtMost | AtLeast, value: float) -> tuple[str, str]:
    below = isinstance(gate, AtMost)
    holds = value <= gate.bound if below else value >= gate.bound
    return ("pass" if holds else "fail"), f"{gate.metric} {_short(value)} {_sign(holds, below)} {_short(gate.bound)}"


def _sign(holds: bool, below: bool) -> str:
    return ("<=" if below else ">=") if holds else (">" if below else "<")


def _bound_name(gate: AtMost | AtLeast) -> str:
    return f"{'at_most' if isinstance(gate, AtMost) else 'at_least'}({gate.metric}, {_short(gate.bound)})"


def _lacking(gate: str, metric: str, bound: float | None, why: str, rows: int, value: float | None = None) -> GateResult:
    reason = f"not enough evidence: {why}"
    return GateResult(gate=gate, metric=metric, value=value, bound=bound, verdict="not_enough_evidence", reason=reason, rows=rows)


def _short(value: float) -> str:
    return f"{value:.4g}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
