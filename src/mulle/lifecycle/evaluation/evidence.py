"""What gates are judged by: measurements that the loop took, and the words in which verdicts are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mulle.core.records.evaluation import Calibration, Failures, Measured, Service, WeakSlice
from mulle.core.records.model import Parity
from mulle.core.records.run import GateResult
from mulle.lifecycle.evaluation.compare import Comparison

__all__ = ["Evidence", "lacking", "ruled", "short", "sign"]

Slices = Mapping[str, Mapping[str, Measured]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured of a challenger; a gate without its measurement says "not enough evidence".

    Attributes
    ----------
    metrics : mapping
        On the holdout, the project's own among them.
    rows : int
        Of the holdout.
    intervals : mapping
        Metric to its 95% interval.
    failed : mapping
        Metric of the project's own to what went wrong with it.
    slices : mapping
        Column to value to what was measured.
    weak_slices : tuple of WeakSlice
        Found without being asked for; worst first.
    train : Measured or None
        On rows that the model was fitted on.
    calibrations : mapping
        Number of bins to what was measured.
    parity : Parity or None
    service : Service
    bad_input : Failures or None
    has_champion : bool
    comparison : Comparison or None
        With the champion, on rows that neither has seen.
    further : tuple of Comparison
        By other metrics, when gates ask for them.
    """

    metrics: Mapping[str, float]
    rows: int
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    slices: Slices = field(default_factory=dict)
    weak_slices: tuple[WeakSlice, ...] = ()
    train: Measured | None = None
    calibrations: Mapping[int, Calibration] = field(default_factory=dict)
    parity: Parity | None = None
    service: Service = field(default_factory=Service)
    bad_input: Failures | None = None
    has_champion: bool = False
    comparison: Comparison | None = None
    further: tuple[Comparison, ...] = ()

    def why_not(self, metric: str) -> str:
        """Say why a metric has no value."""
        return self.failed.get(metric, f"{metric} was not measured")


def ruled(
    gate: str,
    metric: str,
    value: float,
    bound: float,
    holds: bool,
    reason: str,
    rows: int,
    interval: tuple[float, float] | None = None,
) -> GateResult:
    """Give the verdict of a gate that had its evidence."""
    low, high = interval or (None, None)
    return GateResult(
        gate=gate, metric=metric, value=value, bound=bound, verdict="pass" if holds else "fail", reason=reason, rows=rows,
        low=low, high=high,
    )  # fmt: skip


def lacking(gate: str, metric: str, bound: float | None, why: str, rows: int, value: float | None = None) -> GateResult:
    """Give the verdict of a gate that had not enough evidence."""
    reason = f"not enough evidence: {why}"
    return GateResult(gate=gate, metric=metric, value=value, bound=bound, verdict="not_enough_evidence", reason=reason, rows=rows)


def sign(holds: bool, below: bool) -> str:
    """Write how a value stands to its bound."""
    return ("<=" if below else ">=") if holds else (">" if below else "<")


def short(value: float) -> str:
    """Write a number in few digits."""
    return f"{value:.4g}"
