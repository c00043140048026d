"""How a new version is released: `immediate` or `canary`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["Canary", "Immediate", "Rollout", "canary", "immediate"]


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
