"""Schedules: which instants a cron line names, on the clock of its time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from mulle.core.errors import DeclarationError

__all__ = ["cron_due", "last_cron", "next_cron"]

_YEARS = 8
"""How far is looked ahead: 29 February may be this long away, where a century has none."""


def next_cron(cron: str, after: datetime, timezone: str = "UTC") -> datetime | None:
    """Return the first instant after `after` that a five-field cron names, in UTC; None within eight years.

    Fields take ``*``, numbers, ranges, lists and steps. As in cron, when both day fields are restricted either may
    match (POSIX crontab). A local time that a change of clocks leaves out is taken at the instant of the change; one that
    comes twice counts the first time.

    Parameters
    ----------
    cron : str
    after : datetime
        Time-zone aware.
    timezone : str
        Of the IANA database.

    Examples
    --------
    >>> next_cron("30 2 * * *", datetime(2026, 3, 29, 0, 0, tzinfo=UTC), "Europe/Berlin").isoformat()
    '2026-03-29T01:00:00+00:00'
    """
    minutes, hours, days, months, weekdays = _fields(cron)
    free_day, free_weekday = cron.split()[2] == "*", cron.split()[4] == "*"
    zone = ZoneInfo(timezone)
    # A day earlier than the local one: an instant may be the first of a day that is over on the clock.
    day = after.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(days=1)
    for _ in range(_YEARS * 366):
        by_day, by_weekday = day.day in days, (day.isoweekday() % 7) in weekdays
        chosen = by_day and by_weekday if free_day or free_weekday else by_day or by_weekday
        if day.month in months and chosen:
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    moment = _instant(day.replace(hour=hour, minute=minute), zone)
                    if moment > after:
                        return moment
        day += timedelta(days=1)
    return None


def last_cron(cron: str, before: datetime, after: datetime, timezone: str = "UTC") -> datetime | None:
    """Return the last instant in ``(after, before]`` that a cron names, or None.

    Examples
    --------
    >>> last_cron("0 4 * * *", datetime(2013, 3, 5, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC)).day
    4
    """
    # The span doubles from the end backwards, so that years of downtime cost no more than a look at its last days.
    span = timedelta(hours=2)
    while True:
        start = max(after, before - span)
        found, upcoming = None, next_cron(cron, start, timezone)
        while upcoming is not None and upcoming <= before:
            found, upcoming = upcoming, next_cron(cron, upcoming, timezone)
        if found is not None or start == after:
            return found
        span *= 2


def cron_due(cron: str, last: datetime, now: datetime, timezone: str = "UTC") -> bool:
    """Tell whether a schedule's tick lies in ``(last, now]``; many missed ticks count once.

    Examples
    --------
    >>> cron_due("0 4 * * *", datetime(2013, 3, 1, 5, tzinfo=UTC), datetime(2013, 3, 2, 4, tzinfo=UTC))
    True
    """
    upcoming = next_cron(cron, last, timezone)
    return upcoming is not None and upcoming <= now


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    first = local.replace(tzinfo=zone, fold=0)
    before, behind = first.utcoffset(), local.replace(tzinfo=zone, fold=1).utcoffset()
    found = first.astimezone(UTC)
    if before is None or behind is None or behind <= before:  # no change of clocks, or a time that comes twice
        return found
    # Clocks were put forward over this time, somewhere in the two readings' span: the instant is found by halving.
    low, high = (local - behind).replace(tzinfo=UTC), found
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        low, high = (low, middle) if middle.astimezone(zone).utcoffset() == behind else (middle, high)
    return high


def _fields(cron: str) -> tuple[set[int], ...]:
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    parsed = [_field(text, low, high) for text, (low, high) in zip(cron.split(), bounds, strict=True)]
    parsed[4] = {0 if d == 7 else d for d in parsed[4]}
    return tuple(parsed)


def _field(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        try:
            start = low if span == "*" else int(first)
            end = high if span == "*" or (step and not last) else int(last or first)
            chosen = range(start, end + 1, int(step or 1))
        except ValueError as error:
            raise DeclarationError(
                f"cron field {text!r} cannot be read", next="use numbers, *, ranges, lists and steps"
            ) from error
        if start < low or end > high or not chosen:
            raise DeclarationError(f"cron field {text!r} is outside {low}-{high}", next="mend the schedule")
        values.update(chosen)
    return values
