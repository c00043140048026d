"""Schedules on local clocks: held against every minute that the time zone database names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.clock import instant
from mulle.loop.monitoring.cron import cron_due, last_cron, next_cron

ZONES = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Pacific/Apia",
    "Asia/Kolkata", "UTC",
)  # fmt: skip
MINUTE = timedelta(minutes=1)


def named(hours: set[int], minutes: set[int], start: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    """What a person would say who walks through every minute of the local calendar, by the rules that the guide states."""
    found: set[datetime] = set()
    local = start.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0) - timedelta(days=2)
    while local < end.astimezone(zone).replace(tzinfo=None) + timedelta(days=2):
        if local.hour in hours and local.minute in minutes:
            moment = local.replace(tzinfo=zone).astimezone(UTC)
            if moment.astimezone(zone).replace(tzinfo=None) != local:
                # Not on any clock: the first minute that is, searched one by one.
                later = local
                while later.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != later:
                    later += MINUTE
                moment = later.replace(tzinfo=zone).astimezone(UTC)
            found.add(moment)
        local += MINUTE
    return sorted(m for m in found if start < m <= end)


@settings(deadline=None, max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2010, 1, 1), datetime(2026, 1, 1)),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=3),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=3),
)
def test_every_local_time_comes_once_and_none_is_left_out(zone, start, hours, minutes):
    begin = start.replace(tzinfo=UTC)
    end = begin + timedelta(days=4)
    cron = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    found, at = [], begin
    while (upcoming := next_cron(cron, at, zone)) is not None and upcoming <= end:
        assert upcoming > at
        found.append(upcoming)
        at = upcoming
    assert found == named(hours, minutes, begin, end, ZoneInfo(zone))
    assert last_cron(cron, end, begin, zone) == (found[-1] if found else None)
    assert cron_due(cron, begin, end, zone) == bool(found)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(ZONES), st.integers(2008, 2026), st.integers(0, 23), st.integers(0, 59))
def test_around_each_change_of_clocks_a_day_has_its_one_run(zone, year, hour, minute):
    at = datetime(year, 1, 1, tzinfo=UTC)
    moments = []
    while (upcoming := next_cron(f"{minute} {hour} * * *", at, zone)) and upcoming.year == year:
        moments.append(upcoming)
        at = upcoming
    # Samoa had no 30 December in 2011: what was due then is due with the instant after it.
    pauses = {b - a for a, b in pairwise(moments)}
    assert 364 <= len(moments) <= 366
    assert all(timedelta(0) < pause <= timedelta(hours=26) for pause in pauses) or zone == "Pacific/Apia"


@pytest.mark.parametrize(
    ("cron", "after", "zone", "expected"),
    [
        ("0 4 * * *", "2026-01-10T04:00:00Z", "Europe/Berlin", "2026-01-11T03:00:00Z"),
        ("0 4 * * *", "2026-07-10T04:00:00Z", "Europe/Berlin", "2026-07-11T02:00:00Z"),
        ("30 2 * * *", "2026-03-29T00:59:00Z", "Europe/Berlin", "2026-03-29T01:00:00Z"),  # 02:30 is not: at the change
        ("30 2 * * *", "2026-03-29T01:00:00Z", "Europe/Berlin", "2026-03-30T00:30:00Z"),  # once
        ("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin", "2026-10-25T00:30:00Z"),  # 02:30 is twice: the first
        ("30 2 * * *", "2026-10-25T00:30:00Z", "Europe/Berlin", "2026-10-26T01:30:00Z"),
        ("*/30 2-3 * * *", "2026-03-29T00:59:00Z", "Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("*/30 2-3 * * *", "2026-03-29T01:00:00Z", "Europe/Berlin", "2026-03-29T01:30:00Z"),
        ("15 2 * * *", "2026-10-03T12:00:00Z", "Australia/Lord_Howe", "2026-10-03T15:30:00Z"),  # half an hour
        ("0 12 30 12 *", "2011-12-29T12:00:00Z", "Pacific/Apia", "2011-12-30T10:00:00Z"),  # a day that was not
    ],
)
def test_clocks_that_are_put_forward_and_back(cron, after, zone, expected):
    assert next_cron(cron, instant(after), zone) == instant(expected)


def test_years_of_downtime_are_caught_up_by_the_last_instant():
    assert last_cron("*/5 * * * *", instant("2026-01-01"), instant("2013-01-01")) == instant("2026-01-01")
    assert last_cron("0 0 29 2 *", instant("2023-06-01"), instant("2019-01-01")) == instant("2020-02-29")
    assert last_cron("0 4 * * *", instant("2026-01-01T03:00"), instant("2025-12-31T05:00")) is None
