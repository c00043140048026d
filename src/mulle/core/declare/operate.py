"""How a model is released, watched and retrained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.declare.gates import AtLeast, AtMost
from mulle.core.errors import DeclarationError

__all__ = [
    "Canary",
    "Immediate",
    "Log",
    "Monitor",
    "NullRate",
    "Psi",
    "Retrain",
    "Rollout",
    "canary",
    "immediate",
    "null_rate",
    "psi",
]

TRIGGERS = ("new_data", "drift", "performance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Immediate:
    """The new version takes all traffic at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The new version takes growing shares while its paired losses are watched.

    Attributes
    ----------
    steps : tuple of float
        Shares of traffic, 0 to 1, rising; the last is 1.
    hold : timedelta
        Least time at each step.
    min_rows : int
        Least labelled pairs before a verdict.
    max_wait : timedelta
        Longest time at a step without a verdict; then the champion stays.
    margin : float
        Relative loss above the champion's that still counts as no worse.
    alpha : float
        Error level of the confidence sequence.
    """

    steps: tuple[float, ...]
    hold: timedelta
    min_rows: int
    max_wait: timedelta
    margin: float
    alpha: float


Rollout = Immediate | Canary


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


@dataclass(frozen=True, slots=True, init=False)
class Log:
    """What of a model's answers is logged, and for how long.

    Parameters
    ----------
    sample : float
        Share of the keys (of requests, where rows have no key) whose rows are logged, above 0 and up to 1. Whether a key is
        one of them never changes. While several versions score the same rows all of them are logged.
    redact : iterable of str
        Raw columns and features whose values never reach the disk. Of a key the log keeps a pseudonym, by which labels
        still find their row.
    keep : str, optional
        ``mulle gc`` removes predictions and labels that are older, as far as no window waits for them; kept for ever by
        default.

    Raises
    ------
    DeclarationError
        On a sample outside its range.

    Examples
    --------
    >>> Log(sample=0.1, redact=["name"], keep="400d").keep.days
    400
    """

    sample: float
    redact: tuple[str, ...]
    keep: timedelta | None

    def __init__(self, *, sample: float = 1.0, redact: Iterable[str] = (), keep: str | timedelta | None = None) -> None:
        if not 0.0 < sample <= 1.0:
            raise DeclarationError(f"Log(sample={sample}) is no share", next="write a number above 0, up to 1")
        names = (redact,) if isinstance(redact, str) else tuple(redact)
        object.__setattr__(self, "sample", float(sample))
        object.__setattr__(self, "redact", names)
        object.__setattr__(self, "keep", None if keep is None else duration(keep))


@dataclass(frozen=True, slots=True, init=False)
class Retrain:
    """What causes a new run.

    Parameters
    ----------
    cron : str, optional
        Five fields, UTC.
    on : iterable of {"new_data", "drift", "performance"}
    cooldown : str
        Least time between two runs that the loop causes.
    takes : str
        On a replay clock: how long a run takes before its model may serve.

    Examples
    --------
    >>> Retrain(on=["drift"], cooldown="1d").on
    ('drift',)
    """

    cron: str | None
    on: tuple[str, ...]
    cooldown: timedelta
    takes: timedelta = field(default=timedelta(hours=1))

    def __init__(
        self,
        *,
        cron: str | None = None,
        on: Iterable[str] = ("drift", "performance"),
        cooldown: str | timedelta = "1d",
        takes: str | timedelta = "1h",
    ) -> None:
        causes = tuple(on)
        for cause in causes:
            if cause not in TRIGGERS:
                raise DeclarationError(f"Retrain(on=...): unknown cause {cause!r}", next=f"choose from {', '.join(TRIGGERS)}")
        if cron is not None and len(cron.split()) != 5:
            raise DeclarationError(
                f"cron {cron!r} has not five fields", next="write minute hour day month weekday, such as '0 4 * * *'"
            )
        object.__setattr__(self, "cron", cron)
        object.__setattr__(self, "on", causes)
        object.__setattr__(self, "cooldown", duration(cooldown))
        object.__setattr__(self, "takes", duration(takes))


def canary(
    *steps: float,
    hold: str | timedelta = "10m",
    min_rows: int = 200,
    max_wait: str | timedelta = "3d",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> Canary:
    """Release in growing shares of traffic, in per cent; the last step is 100.

    Examples
    --------
    >>> canary(5, 25, 100, hold="10m").steps
    (0.05, 0.25, 1.0)
    """
    shares = steps or (5, 25, 100)
    if list(shares) != sorted(set(shares)) or shares[-1] != 100 or shares[0] <= 0:
        raise DeclarationError(f"canary{shares}: steps must rise to 100", next="write for example ml.canary(5, 25, 100)")
    return Canary(
        steps=tuple(s / 100 for s in shares),
        hold=duration(hold),
        min_rows=min_rows,
        max_wait=duration(max_wait),
        margin=margin,
        alpha=alpha,
    )


def immediate() -> Immediate:
    """Release to all traffic at once, once the gates have passed."""
    return Immediate()


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
