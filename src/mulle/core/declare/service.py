"""Bounds on how a model answers, whatever it answers: `Service`; and how much an alert matters: `SEVERITIES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["SEVERITIES", "Service", "service", "severities"]

SEVERITIES = ("info", "warning", "critical")
"""How much an alert matters, rising."""


@dataclass(frozen=True, slots=True)
class Service:
    """Bounds per window of requests.

    Attributes
    ----------
    errors : float or None
        Most that may fail of what was asked, as a share. A row that breaks the contract is the caller's fault and no failure.
    p99 : timedelta or None
        Longest time within which 99 of 100 rows are answered.
    """

    errors: float | None
    p99: timedelta | None


def service(*, errors: float | None = 0.01, p99: str | timedelta | None = None) -> Service:
    """Alarm when too many requests fail, or when they take too long.

    Raises
    ------
    DeclarationError
        When the share is none.

    Examples
    --------
    >>> service(p99="200ms").p99.total_seconds()
    0.2
    """
    if errors is not None and not 0 <= errors < 1:
        raise DeclarationError(f"monitor: a share of errors of {errors}", next="give one from 0 to 1, such as 0.01")
    return Service(errors, None if p99 is None else duration(p99))


def severities(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Read how much the alerts of each signal matter, as a project says it.

    Raises
    ------
    DeclarationError
        On another word than those of `SEVERITIES`.

    Examples
    --------
    >>> severities({"psi": "info"})
    (('psi', 'info'),)
    """
    for signal, severity in given.items():
        if severity not in SEVERITIES:
            raise DeclarationError(f"monitor: severity of {signal} is {severity!r}", next=f"choose from {', '.join(SEVERITIES)}")
    return tuple(sorted(given.items()))
