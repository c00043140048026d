"""Judging the gates: measurements in, one recorded verdict per gate out. To add a gate, add its rule to `_RULES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mulle.core.declare.gates import (
    P50,
    P99,
    AtLeast,
    AtMost,
    BadInput,
    BundleSize,
    CalibrationGate,
    EachSlice,
    Fairness,
    Gate,
    GeneralisationGap,
    NoWorseThanChampion,
    ParityGate,
    PeakMemory,
    Satisfies,
    Throughput,
)
from mulle.core.records.run import GateResult
from mulle.lifecycle.evaluation import quality, service
from mulle.lifecycle.evaluation.evidence import Evidence

__all__ = ["Evidence", "accepted", "judge"]

_RULES: Mapping[type, Callable[[Any, Evidence], GateResult]] = {
    AtMost: quality.judge_bound,
    AtLeast: quality.judge_bound,
    EachSlice: quality.judge_slices,
    NoWorseThanChampion: quality.judge_champion,
    GeneralisationGap: quality.judge_gap,
    CalibrationGate: quality.judge_calibration,
    Fairness: quality.judge_fairness,
    Satisfies: quality.judge_function,
    ParityGate: service.judge_parity,
    BundleSize: service.judge_size,
    BadInput: service.judge_bad_input,
    P50: service.judge_latency,
    P99: service.judge_latency,
    Throughput: service.judge_throughput,
    PeakMemory: service.judge_memory,
}

_ON_THE_WALL_CLOCK = (P50, P99, Throughput, PeakMemory)
"""What depends on the machine and its load: in a replay, the same seed must give the same verdicts."""


def judge(gates: Sequence[Gate], evidence: Evidence, *, replay: bool = False) -> tuple[GateResult, ...]:
    """Judge each gate.

    Parameters
    ----------
    gates : sequence of Gate
    evidence : Evidence
    replay : bool
        On a replay clock latency, throughput and memory are recorded and do not decide.

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
    found: dict[str, GateResult] = {}
    for gate in gates:
        result = _RULES[type(gate)](gate, evidence)
        result = service.recorded(result) if replay and isinstance(gate, _ON_THE_WALL_CLOCK) else result
        # A run keeps one verdict by a name: two gates that differ only in what their names leave out are told apart.
        same = sum(r.gate.split(" #")[0] == result.gate for r in found.values())
        result = replace(result, gate=f"{result.gate} #{same + 1}") if same else result
        found[result.gate] = result
    return tuple(found.values())


def accepted(results: Sequence[GateResult]) -> bool:
    """Tell whether a challenger may be registered: every gate passed, or only recorded."""
    return all(r.verdict in ("pass", "recorded") for r in results)
