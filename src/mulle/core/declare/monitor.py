"""What is watched of a model in service: `Monitor`, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.declare.gates import AtLeast, AtMost
from mulle.core.errors import DeclarationError

__all__ = ["Monitor", "NullRate", "Psi", "null_rate", "psi"]


@dataclass(frozen=True, slots=True)
class Psi:
    """Population stability index above a bound is drift."""

    bound: float


@dataclass(frozen=True, slots=True)
class NullRate:
    """A share of nulls above the reference's by more than a bound is a quality alarm."""

    bound: float


@dataclass(frozen=True, slots=True, init=False)
class Monitor:
    """What is watched, per window of row time.

    Parameters
    ----------
    window : str
        Length of a window.
    drift : Psi
    quality : NullRate
    performance : AtMost or AtLeast, optional
        Bound on one of Mulle's metrics over late labels.
    delay : str
        A window is mature this long after its end, or when nearly all labels are in.
    min_rows : int
        A window with fewer rows raises no alarm.

    Raises
    ------
    DeclarationError
        When the performance is bound by a metric of the project's own: windows are judged without its rows.

    Examples
    --------
    >>> Monitor(window="1d").window.days
    1
    """

    window: timedelta
    drift: Psi
    quality: NullRate
    performance: AtMost | AtLeast | None
    delay: timedelta
    min_rows: int

    def __init__(
        self,
        *,
        window: str | timedelta = "1d",
        drift: Psi | None = None,
        quality: NullRate | None = None,
        performance: AtMost | AtLeast | None = None,
        delay: str | timedelta = "1d",
        min_rows: int = 200,
    ) -> None:
        if performance is not None and performance.own is not None:
            raise DeclarationError(
                f"monitor: performance is bound by '{performance.metric}', a metric of your own",
                next="bound one of Mulle's metrics here, and use your own in gates",
            )
        object.__setattr__(self, "window", duration(window))
        object.__setattr__(self, "drift", drift or Psi(0.2))
        object.__setattr__(self, "quality", quality or NullRate(0.05))
        object.__setattr__(self, "performance", performance)
        object.__setattr__(self, "delay", duration(delay))
        object.__setattr__(self, "min_rows", min_rows)


def psi(bound: float = 0.2) -> Psi:
    """Alarm on drift above a population stability index.

    Examples
    --------
    >>> psi(0.2).bound
    0.2
    """
    return Psi(bound)


def null_rate(bound: float = 0.05) -> NullRate:
    """Alarm when the share of nulls rises above the reference's by more than a bound.

    Examples
    --------
    >>> null_rate().bound
    0.05
    """
    return NullRate(bound)
