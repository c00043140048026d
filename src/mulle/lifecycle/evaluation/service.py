"""The rules of gates about serving: parity, latency, throughput, memory, size, and what hostile rows do."""

from __future__ import annotations

from dataclasses import replace

from mulle.core.declare.gates import P50, P99, BadInput, BundleSize, ParityGate, PeakMemory, Throughput
from mulle.core.records.run import GateResult
from mulle.lifecycle.evaluation.evidence import Evidence, lacking, ruled, short, sign

__all__ = [
    "judge_bad_input",
    "judge_latency",
    "judge_memory",
    "judge_parity",
    "judge_size",
    "judge_throughput",
    "recorded",
]


def judge_parity(gate: ParityGate, evidence: Evidence) -> GateResult:
    """Hold the worst difference of served and fitted answers against the tolerance."""
    proof = evidence.parity
    if proof is None or not proof.rows:
        return lacking("parity", "parity", gate.tolerance, "parity was not measured", 0)
    holds = proof.worst <= gate.tolerance
    share = "" if holds else f", {proof.outside:.2%} of the rows outside {short(proof.tolerance)}"
    reason = (
        f"served and fitted answers differ by at most {proof.worst:.2g} {sign(holds, True)} {short(gate.tolerance)} "
        f"of the target's spread on {proof.rows} rows{share}"
    )
    return ruled("parity", "parity", proof.worst, gate.tolerance, holds, reason, proof.rows)


def judge_latency(gate: P50 | P99, evidence: Evidence) -> GateResult:
    """Hold a percentile of one-row latency against its bound."""
    name, bound = ("p50" if isinstance(gate, P50) else "p99"), gate.bound.total_seconds()
    found = evidence.service
    value = found.p50_seconds if isinstance(gate, P50) else found.p99_seconds
    if value is None:
        return lacking(name, f"{name}_seconds", bound, "latency was not measured", 0)
    holds = value <= bound
    reason = f"{name} {_milliseconds(value)} {sign(holds, True)} {_milliseconds(bound)}"
    return ruled(name, f"{name}_seconds", value, bound, holds, reason, found.answers)


def judge_throughput(gate: Throughput, evidence: Evidence) -> GateResult:
    """Hold rows a second against their bound."""
    found = evidence.service
    if found.rows_per_second is None:
        return lacking("throughput", "rows_per_second", gate.least, "throughput was not measured", 0)
    holds = found.rows_per_second >= gate.least
    reason = (
        f"{found.rows_per_second:,.0f} rows a second {sign(holds, False)} {gate.least:,.0f} in batches of {found.batch_rows:,}"
    )
    return ruled("throughput", "rows_per_second", found.rows_per_second, gate.least, holds, reason, found.batch_rows)


def judge_memory(gate: PeakMemory, evidence: Evidence) -> GateResult:
    """Hold a serving process's memory against its bound."""
    found = evidence.service
    if found.peak_bytes is None:
        return lacking("peak_memory", "peak_bytes", gate.most, "memory was not measured", 0)
    holds = found.peak_bytes <= gate.most
    reason = (
        f"a process that answered {found.batch_rows:,} rows held {_megabytes(found.peak_bytes)} {sign(holds, True)} "
        f"{_megabytes(gate.most)}"
    )
    return ruled("peak_memory", "peak_bytes", found.peak_bytes, gate.most, holds, reason, found.batch_rows)


def judge_size(gate: BundleSize, evidence: Evidence) -> GateResult:
    """Hold the bundle's size against its bound."""
    value = evidence.service.bundle_bytes
    if value is None:
        return lacking("bundle_size", "bundle_bytes", gate.most, "the bundle's size was not measured", 0)
    holds = value <= gate.most
    reason = f"the bundle has {_megabytes(value)} {sign(holds, True)} {_megabytes(gate.most)}"
    return ruled("bundle_size", "bundle_bytes", value, gate.most, holds, reason, 0)


def judge_bad_input(gate: BadInput, evidence: Evidence) -> GateResult:
    """Want no kind of hostile row to fail otherwise than by the contract."""
    del gate
    found = evidence.bad_input
    if found is None or not found.rows:
        return lacking("bad_input", "kinds_that_fail", 0, "no hostile row was tried", 0)
    counted = f"{found.rows} hostile rows: {found.answered} answered, {found.refused} refused by the contract"
    told = "; ".join(f"{kind}: {why}" for kind, why in found.failed.items())
    reason = f"{counted}, {found.rows - found.answered - found.refused} failed. {told}" if told else counted
    return ruled("bad_input", "kinds_that_fail", float(len(found.failed)), 0, not found.failed, reason, found.rows)


def recorded(result: GateResult) -> GateResult:
    """Turn a verdict on what the machine's load decides into a note."""
    said = result.reason.removeprefix("not enough evidence: ")
    return replace(result, verdict="recorded", reason=f"{said}; on a replay clock it is recorded and does not decide")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.3g} MB" if size < 1e9 else f"{size / 1e6:,.0f} MB"
