"""One clock: every rule that depends on time takes ``now`` from a clock that is passed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Protocol

from mulle.core.errors import DeclarationError, UsageError

__all__ = ["EPOCH", "Clock", "ReplayClock", "WallClock", "duration", "instant", "rfc3339"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")


class Clock(Protocol):
    """Tells the time; always UTC and time-zone aware."""

    def now(self) -> datetime:
        """Return the present instant, in UTC."""
        ...


class WallClock:
    """The clock on the wall.

    Examples
    --------
    >>> WallClock().now().tzinfo is UTC
    True
    """

    def now(self) -> datetime:
        """Return the present instant, in UTC."""
        return datetime.now(UTC)


class ReplayClock:
    """A clock that stands still until it is moved; it never goes back.

    Examples
    --------
    >>> clock = ReplayClock(instant("2013-03-01"))
    >>> clock.advance(instant("2013-03-02")); rfc3339(clock.now())
    '2013-03-02T00:00:00Z'
    """

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """Return the instant the clock was last moved to, in UTC."""
        return self._now

    def advance(self, to: datetime) -> None:
        """Move the clock forward; an earlier instant leaves it where it is.

        Parameters
        ----------
        to : datetime
            The new instant, time-zone aware.
        """
        self._now = max(self._now, to.astimezone(UTC))


def duration(text: str | timedelta) -> timedelta:
    """Read a duration such as ``"14d"``, ``"90s"``, ``"1h30m"`` or ``"5ms"``.

    Parameters
    ----------
    text : str or timedelta
        Numbers with units ``us ms s m h d w``; a timedelta is returned as it is.

    Returns
    -------
    timedelta

    Raises
    ------
    DeclarationError
        When the text is not a duration.

    Examples
    --------
    >>> duration("1h30m").total_seconds()
    5400.0
    """
    if isinstance(text, timedelta):
        return text
    parts = _DURATION.findall(text)
    if not parts or "".join(a + b for a, b in parts) != text.replace(" ", ""):
        raise DeclarationError(f"'{text}' is not a duration", next="write a number and a unit, such as 14d, 3h or 5ms")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def instant(text: str | datetime) -> datetime:
    """Read an instant (RFC 3339, or a date); without an offset it is UTC.

    Parameters
    ----------
    text : str or datetime
        For example ``"2013-03-01"``, ``"2013-03-01 12:00"`` or ``"2013-03-01T12:00:00+01:00"``.

    Returns
    -------
    datetime
        Time-zone aware, in UTC.

    Raises
    ------
    UsageError
        When the text is not an instant.

    Examples
    --------
    >>> rfc3339(instant("2013-03-01T12:00:00+01:00"))
    '2013-03-01T11:00:00Z'
    """
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(f"'{text}' is not a time", next="write it as 2013-03-01 or 2013-03-01T12:00:00Z") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def rfc3339(moment: datetime) -> str:
    """Write an instant as RFC 3339 in UTC, with ``Z`` and no needless zeros.

    Parameters
    ----------
    moment : datetime
        Time-zone aware.

    Returns
    -------
    str

    Examples
    --------
    >>> rfc3339(instant("2013-03-01 12:00"))
    '2013-03-01T12:00:00Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
