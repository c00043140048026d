"""Gates: what a challenger must show before it may serve. Declared here, judged by `lifecycle.evaluation`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration

__all__ = [
    "AtLeast",
    "AtMost",
    "EachSlice",
    "Gate",
    "NoWorseThanChampion",
    "ParityGate",
    "P99",
    "at_least",
    "at_most",
    "each_slice",
    "no_worse_than_champion",
    "p99",
    "parity",
]


@dataclass(frozen=True, slots=True)
class AtMost:
    """A metric may not be above a bound."""

    metric: str
    bound: float


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A metric may not be below a bound."""

    metric: str
    bound: float


@dataclass(frozen=True, slots=True)
class NoWorseThanChampion:
    """On rows neither has seen, the challenger is not worse than the champion by more than a relative margin."""

    metric: str
    margin: float
    min_rows: int


@dataclass(frozen=True, slots=True)
class EachSlice:
    """A bound holds on every value of a raw column with at least `min_rows` rows."""

    column: str
    gate: AtMost | AtLeast
    min_rows: int


@dataclass(frozen=True, slots=True)
class ParityGate:
    """The served path answers like the fitted pipeline, relative to the target's spread."""

    tolerance: float


@dataclass(frozen=True, slots=True)
class P99:
    """The 99th percentile of one-row latency inside the runtime is at most a bound."""

    bound: timedelta


Gate = AtMost | AtLeast | NoWorseThanChampion | EachSlice | ParityGate | P99


def at_most(metric: str, bound: float) -> AtMost:
    """Bound a metric from above (as a gate, or as a performance alarm).

    Examples
    --------
    >>> at_most("mae", 12)
    AtMost(metric='mae', bound=12)
    """
    return AtMost(metric, bound)


def at_least(metric: str, bound: float) -> AtLeast:
    """Bound a metric from below.

    Examples
    --------
    >>> at_least("auc", 0.8).bound
    0.8
    """
    return AtLeast(metric, bound)


def no_worse_than_champion(metric: str, *, margin: float = 0.0, min_rows: int = 100) -> NoWorseThanChampion:
    """Want the challenger no worse than the champion on rows that neither has seen.

    Parameters
    ----------
    metric : str
    margin : float
        Relative: 0.01 allows the challenger to be one per cent worse.
    min_rows : int
        With fewer rows the verdict is "not enough evidence" and the champion stays.
    """
    return NoWorseThanChampion(metric, margin, min_rows)


def each_slice(column: str, gate: AtMost | AtLeast, *, min_rows: int = 30) -> EachSlice:
    """Want a bound to hold on every value of a raw column.

    Examples
    --------
    >>> each_slice("origin", at_most("mae", 15)).column
    'origin'
    """
    return EachSlice(column, gate, min_rows)


def parity(tolerance: float = 1e-4) -> ParityGate:
    """Want offline and served answers to agree, relative to the target's standard deviation.

    Examples
    --------
    >>> parity().tolerance
    0.0001
    """
    return ParityGate(tolerance)


def p99(bound: str | timedelta) -> P99:
    """Bound the 99th percentile of one-row latency.

    Examples
    --------
    >>> p99("5ms").bound.total_seconds()
    0.005
    """
    return P99(duration(bound))
