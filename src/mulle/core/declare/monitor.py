"""What is watched of a model in service: `Monitor`, and its bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Literal, get_args

from mulle.core.clock import duration
from mulle.core.declare.gates import AtLeast, AtMost
from mulle.core.declare.service import Service, severities
from mulle.core.errors import DeclarationError

__all__ = ["Drift", "Monitor", "NullRate", "Reference", "js", "null_rate", "psi", "wasserstein"]

Reference = Literal["training", "same_weekday", "same_month"]
"""What a window is held against: all training rows, or those of the same weekday or month."""

_LONGEST = timedelta(days=30)
_WITHIN = {"same_weekday": timedelta(days=1), "same_month": timedelta(days=31)}


@dataclass(frozen=True, slots=True)
class Drift:
    """Bounds on how far a distribution may be from the reference's; of several, each alarms by itself.

    Examples
    --------
    >>> psi(0.2) | wasserstein(0.1)
    Drift(psi=0.2, js=None, wasserstein=0.1)
    """

    psi: float | None = None
    js: float | None = None
    wasserstein: float | None = None

    def __or__(self, other: Drift) -> Drift:
        both = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        twice = [name for name, (a, b) in both.items() if a is not None and b is not None]
        if twice:
            raise DeclarationError(f"monitor: {twice[0]} is bound twice", next="bind each measure once")
        return Drift(**{name: b if a is None else a for name, (a, b) in both.items()})


@dataclass(frozen=True, slots=True)
class NullRate:
    """A share of nulls above the reference's by more than a bound is a quality alarm."""

    bound: float


@dataclass(frozen=True, slots=True, init=False)
class Monitor:
    """What is watched, per window of row time.

    Parameters
    ----------
    window : str or int
        Length of a window, or how many answered rows it has. One by count ends after 30 days at the latest.
    drift : Drift
        By default ``psi(0.2)``.
    quality : NullRate
        Holds the share of nulls above the reference's, and the shares of categories never seen, of numbers out of the
        reference's range and of rows refused for a field.
    performance : AtMost or AtLeast, optional
        Bound on one of Mulle's metrics over late labels.
    skew : float
        Share of sampled rows in which a feature may be another than the offline join gives.
    delay : str
        A window is mature this long after its end, or when nearly all labels are in.
    min_rows : int
        A window with fewer rows raises no alarm.
    reference : {"training", "same_weekday", "same_month"}
        Which of the training rows a window is held against.
    slices : sequence of str
        Raw columns; performance is also told for each of their values.
    false_alarms : float
        Chance per window, at most, that any of its signals alarms although nothing has changed.
    service : Service, optional
        Bounds on failed requests and on the time that answers take (``ml.service``).
    severity : mapping of str to {"info", "warning", "critical"}
        How much the alerts of a signal matter; without a word, performance and what is far beyond its bound are critical,
        the rest a warning.

    Raises
    ------
    DeclarationError
        When the performance is bound by a metric of the project's own: windows are judged without its rows; when a window
        is longer than the span that its reference is of; when a number cannot be meant.

    Examples
    --------
    >>> Monitor(window="1d").window.days, Monitor(window=10_000).window
    (1, 10000)
    """

    window: timedelta | int
    drift: Drift
    quality: NullRate
    performance: AtMost | AtLeast | None
    skew: float
    delay: timedelta
    min_rows: int
    reference: Reference
    slices: tuple[str, ...]
    false_alarms: float
    service: Service | None
    severity: tuple[tuple[str, str], ...]

    def __init__(
        self,
        *,
        window: str | timedelta | int = "1d",
        drift: Drift | None = None,
        quality: NullRate | None = None,
        performance: AtMost | AtLeast | None = None,
        skew: float = 0.02,
        delay: str | timedelta = "1d",
        min_rows: int = 200,
        reference: Reference = "training",
        slices: Sequence[str] = (),
        false_alarms: float = 0.0005,
        service: Service | None = None,
        severity: Mapping[str, str] | None = None,
    ) -> None:
        given = {
            "window": window if isinstance(window, int) else duration(window),
            "drift": drift or Drift(psi=0.2),
            "quality": quality or NullRate(0.05),
            "performance": performance,
            "skew": skew,
            "delay": duration(delay),
            "min_rows": min_rows,
            "reference": reference,
            "slices": (slices,) if isinstance(slices, str) else tuple(slices),
            "false_alarms": false_alarms,
            "service": service,
            "severity": severities(dict(severity or {})),
        }
        for attribute, value in given.items():
            object.__setattr__(self, attribute, value)
        _refuse(self)

    @property
    def longest(self) -> timedelta:
        """The longest that a window lasts."""
        return _LONGEST if isinstance(self.window, int) else self.window


def _refuse(monitor: Monitor) -> None:
    if monitor.performance is not None and monitor.performance.own is not None:
        raise DeclarationError(
            f"monitor: performance is bound by '{monitor.performance.metric}', a metric of your own",
            next="bound one of Mulle's metrics here, and use your own in gates",
        )
    if isinstance(monitor.window, int) and monitor.window < 1:
        raise DeclarationError(f"monitor: a window of {monitor.window} rows", next="give a length or a number of rows")
    if monitor.reference not in get_args(Reference):
        raise DeclarationError(
            f"monitor: no reference '{monitor.reference}'", next=f"choose from {', '.join(get_args(Reference))}"
        )
    within = _WITHIN.get(monitor.reference)
    if within is not None and (isinstance(monitor.window, int) or monitor.window > within):
        raise DeclarationError(
            f"monitor: a window of {monitor.window} has no {monitor.reference.removeprefix('same_')}",
            next=f"with reference='{monitor.reference}' declare a window of {within.days} days or less",
        )
    if not 0 < monitor.false_alarms < 1 or not 0 <= monitor.skew <= 1:
        raise DeclarationError(
            f"monitor: false_alarms {monitor.false_alarms} and skew {monitor.skew} are shares", next="give them between 0 and 1"
        )


def psi(bound: float = 0.2) -> Drift:
    """Alarm on drift above a population stability index.

    Examples
    --------
    >>> psi(0.2).psi
    0.2
    """
    return Drift(psi=bound)


def js(bound: float = 0.1) -> Drift:
    """Alarm on drift above a Jensen-Shannon distance, 0 to 1.

    Examples
    --------
    >>> (psi(0.2) | js(0.1)).js
    0.1
    """
    return Drift(js=bound)


def wasserstein(bound: float = 0.1) -> Drift:
    """Alarm on drift of numbers above a Wasserstein distance, in standard deviations of the reference.

    Examples
    --------
    >>> wasserstein(0.1).wasserstein
    0.1
    """
    return Drift(wasserstein=bound)


def null_rate(bound: float = 0.05) -> NullRate:
    """Alarm when the share of nulls rises above the reference's by more than a bound.

    Examples
    --------
    >>> null_rate().bound
    0.05
    """
    return NullRate(bound)
