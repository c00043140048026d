"""Gates: what a challenger must show before it may serve. Declared here, judged by `lifecycle.evaluation`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.declare.metric import Metric
from mulle.core.errors import DeclarationError

__all__ = [
    "AtLeast", "AtMost", "BadInput", "BundleSize", "CalibrationGate", "EachSlice", "Fairness", "Gate", "GeneralisationGap",
    "NoWorseThanChampion", "P50", "P99", "ParityGate", "PeakMemory", "Satisfies", "Throughput",
    "at_least", "at_most", "bad_input", "bundle_size", "calibration", "each_slice", "fairness", "generalisation_gap",
    "no_worse_than_champion", "p50", "p99", "parity", "peak_memory", "satisfies", "throughput",
]  # fmt: skip

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True)
class AtMost:
    """A metric may not be above a bound; `own` is there when it is a metric of the project's own."""

    metric: str
    bound: float
    own: Metric | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A metric may not be below a bound."""

    metric: str
    bound: float
    own: Metric | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NoWorseThanChampion:
    """On rows neither has seen, the challenger is not worse than the champion by more than a relative margin."""

    metric: str
    margin: float
    min_rows: int
    proven: bool = False
    own: Metric | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EachSlice:
    """A bound holds on every value of a raw column with at least `min_rows` rows."""

    column: str
    gate: AtMost | AtLeast
    min_rows: int


@dataclass(frozen=True, slots=True)
class GeneralisationGap:
    """A metric on the holdout is not worse than on the rows the model was fitted on by more than `most`."""

    metric: str
    most: float
    own: Metric | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CalibrationGate:
    """Probabilities are what is observed, answers are right on average."""

    most: float
    bins: int


@dataclass(frozen=True, slots=True)
class Fairness:
    """Between any two values of a raw column a metric differs by at most `most`."""

    column: str
    metric: str
    most: float
    min_rows: int
    own: Metric | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ParityGate:
    """The served path answers like the fitted pipeline, relative to the target's spread."""

    tolerance: float


@dataclass(frozen=True, slots=True)
class P50:
    """The median of one-row latency inside the runtime is at most a bound."""

    bound: timedelta


@dataclass(frozen=True, slots=True)
class P99:
    """The 99th percentile of one-row latency inside the runtime is at most a bound."""

    bound: timedelta


@dataclass(frozen=True, slots=True)
class Throughput:
    """In batches the runtime answers at least so many rows a second, the model on one thread."""

    least: float


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """A process that loads the bundle and answers a batch never holds more bytes than this."""

    most: int


@dataclass(frozen=True, slots=True)
class BundleSize:
    """The bundle's files together are at most so many bytes."""

    most: int


@dataclass(frozen=True, slots=True)
class BadInput:
    """Hostile rows get an answer or are refused by the contract; nothing else happens."""


@dataclass(frozen=True, slots=True)
class Satisfies:
    """A function of the evidence finds nothing wrong."""

    name: str
    function: Callable[..., object] = field(repr=False)


Gate = (
    AtMost | AtLeast | NoWorseThanChampion | EachSlice | GeneralisationGap | CalibrationGate | Fairness | ParityGate
    | P50 | P99 | Throughput | PeakMemory | BundleSize | BadInput | Satisfies
)  # fmt: skip


def at_most(metric: str | Metric, bound: float) -> AtMost:
    """Bound a metric from above (as a gate, or as a performance alarm).

    Examples
    --------
    >>> at_most("mae", 12)
    AtMost(metric='mae', bound=12)
    """
    return AtMost(*_named(metric, bound))


def at_least(metric: str | Metric, bound: float) -> AtLeast:
    """Bound a metric from below.

    Examples
    --------
    >>> at_least("auc", 0.8).bound
    0.8
    """
    return AtLeast(*_named(metric, bound))


def no_worse_than_champion(
    metric: str | Metric, *, margin: float = 0.0, min_rows: int = 100, proven: bool = False
) -> NoWorseThanChampion:
    """Want the challenger no worse than the champion on rows that neither has seen.

    Parameters
    ----------
    metric : str or Metric
    margin : float
        Relative: 0.01 allows the challenger to be one per cent worse.
    min_rows : int
        With fewer rows the verdict is "not enough evidence" and the champion stays.
    proven : bool
        Want the whole 95% interval of the paired difference within the margin, not its middle alone; an interval that
        reaches over the margin is "not enough evidence". With a margin of 0 the challenger must be better beyond noise.
    """
    name, own = (metric.name, metric) if isinstance(metric, Metric) else (metric, None)
    return NoWorseThanChampion(name, margin, min_rows, proven, own)


def each_slice(column: str, gate: AtMost | AtLeast, *, min_rows: int = 30) -> EachSlice:
    """Want a bound to hold on every value of a raw column.

    Examples
    --------
    >>> each_slice("origin", at_most("mae", 15)).column
    'origin'
    """
    return EachSlice(column, gate, min_rows)


def generalisation_gap(metric: str | Metric, *, most: float) -> GeneralisationGap:
    """Bound by how much a metric is worse on the holdout than on the rows that the model was fitted on.

    Parameters
    ----------
    metric : str or Metric
    most : float
        In the metric's own units. A model that is better on the holdout has a negative gap.

    Examples
    --------
    >>> generalisation_gap("mae", most=3).most
    3
    """
    return GeneralisationGap(*_named(metric, most))


def calibration(*, most: float, bins: int = 10) -> CalibrationGate:
    """Bound how far answers are from what is observed, on average.

    Parameters
    ----------
    most : float
        For classes the expected calibration error, 0 to 1; for regression the mean error, either way, in standard
        deviations of the target.
    bins : int
        Equal in width, over the probability of the second of two classes, or of the answered one of more.

    Examples
    --------
    >>> calibration(most=0.05).bins
    10
    """
    if bins < 2:
        raise DeclarationError(f"calibration(bins={bins})", next="name at least 2 bins, such as 10")
    return CalibrationGate(most, bins)


def fairness(column: str, metric: str | Metric, *, most: float, min_rows: int = 30) -> Fairness:
    """Bound the difference of a metric between the values of a raw column.

    Parameters
    ----------
    column : str
        It need not be a feature.
    metric : str or Metric
        ``recall`` bounds the difference of true positive rates (equal opportunity).
    most : float
        Between the best and the worst value.
    min_rows : int
        A value with fewer rows is left out; with fewer than two left there is not enough evidence.

    Examples
    --------
    >>> fairness("sex", "recall", most=0.1).column
    'sex'
    """
    name, bound, own = _named(metric, most)
    return Fairness(column, name, bound, min_rows, own)


def parity(tolerance: float = 1e-4) -> ParityGate:
    """Want offline and served answers to agree, relative to the target's standard deviation.

    Examples
    --------
    >>> parity().tolerance
    0.0001
    """
    return ParityGate(tolerance)


def p50(bound: str | timedelta) -> P50:
    """Bound the median of one-row latency.

    Examples
    --------
    >>> p50("1ms").bound.total_seconds()
    0.001
    """
    return P50(duration(bound))


def p99(bound: str | timedelta) -> P99:
    """Bound the 99th percentile of one-row latency.

    Examples
    --------
    >>> p99("5ms").bound.total_seconds()
    0.005
    """
    return P99(duration(bound))


def throughput(at_least: float) -> Throughput:
    """Want so many rows a second in batches, the model on one thread.

    Examples
    --------
    >>> throughput(10_000).least
    10000
    """
    return Throughput(at_least)


def peak_memory(most: str | int) -> PeakMemory:
    """Bound the memory of a process that loads the bundle and answers a batch.

    Parameters
    ----------
    most : str or int
        Bytes, or text such as ``"500MB"`` or ``"1GiB"``.

    Examples
    --------
    >>> peak_memory("500MB").most
    500000000
    """
    return PeakMemory(_bytes(most))


def bundle_size(most: str | int) -> BundleSize:
    """Bound the size of the bundle's files.

    Examples
    --------
    >>> bundle_size("1KiB").most
    1024
    """
    return BundleSize(_bytes(most))


def bad_input() -> BadInput:
    """Want hostile rows to get an answer or to be refused by the contract: no other error, and no answer that is no number.

    Tried are nulls, codes never seen, extremes, empty and long text, and infinities: in each column alone, and in all.
    """
    return BadInput()


def satisfies(function: Callable[..., object], *, name: str | None = None) -> Satisfies:
    """Want a function of the evidence to find nothing wrong.

    Parameters
    ----------
    function : callable
        Takes what was measured (``metrics``, ``intervals``, ``rows``, ``slices``, ``weak_slices``, ``parity``,
        ``service`` ...). Gives nothing or True when all is well, False when not, or messages; what it raises is a
        failure.
    name : str, optional
        By default the function's.

    Examples
    --------
    >>> def steady(evidence):
    ...     return evidence.metrics["rmse"] < 2 * evidence.metrics["mae"]
    >>> satisfies(steady).name
    'steady'
    """
    if not callable(function):
        raise DeclarationError(f"satisfies({function!r}) is no function", next="give a function of the evidence")
    return Satisfies(name or str(getattr(function, "__name__", type(function).__name__)), function)


def _named(metric: str | Metric, bound: float) -> tuple[str, float, Metric | None]:
    return (metric.name, bound, metric) if isinstance(metric, Metric) else (metric, bound, None)


def _bytes(text: str | int) -> int:
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if not found or found[2].upper() not in _BYTES:
        raise DeclarationError(f"{text!r} is not a size", next="write a number and a unit, such as 500MB or 1GiB")
    return int(float(found[1]) * _BYTES[found[2].upper()])
