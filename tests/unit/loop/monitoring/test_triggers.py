"""Schedules: which instants a cron line names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulle.core.clock import instant
from mulle.core.errors import DeclarationError
from mulle.loop.monitoring.cron import cron_due, next_cron


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 4 * * *", "2013-03-01T04:00:00Z", "2013-03-02T04:00:00Z"),
        ("*/15 * * * *", "2013-03-01T04:07:00Z", "2013-03-01T04:15:00Z"),
        ("30 2 1 * *", "2013-03-01T02:30:00Z", "2013-04-01T02:30:00Z"),
        ("0 0 * * 1", "2013-03-01T00:00:00Z", "2013-03-04T00:00:00Z"),
        ("0 0 * * 7", "2013-03-01T00:00:00Z", "2013-03-03T00:00:00Z"),
        ("0 9-17/4 * 3,5 *", "2013-03-31T17:00:00Z", "2013-05-01T09:00:00Z"),
        ("0 0 13 * 5", "2013-09-01T00:00:00Z", "2013-09-06T00:00:00Z"),  # the 13th or a Friday, as cron has it
        ("0 0 29 2 *", "2013-03-01T00:00:00Z", "2016-02-29T00:00:00Z"),
    ],
)
def test_the_next_instant_of_a_schedule(cron: str, after: str, expected: str) -> None:
    assert next_cron(cron, instant(after)) == instant(expected)


def test_a_day_that_never_comes_gives_none() -> None:
    assert next_cron("0 0 31 2 *", instant("2013-01-01")) is None


@given(st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)), st.integers(0, 59), st.integers(0, 23))
def test_a_daily_schedule_comes_within_a_day_and_at_its_minute(moment: datetime, minute: int, hour: int) -> None:
    after = moment.replace(tzinfo=UTC)
    upcoming = next_cron(f"{minute} {hour} * * *", after)
    assert upcoming is not None
    assert timedelta(0) < upcoming - after <= timedelta(days=1)
    assert (upcoming.hour, upcoming.minute, upcoming.second) == (hour, minute, 0)


def test_many_missed_instants_are_due_once() -> None:
    assert cron_due("0 4 * * *", instant("2013-01-01"), instant("2013-02-01"))
    assert not cron_due("0 4 * * *", instant("2013-01-01T04:00:00Z"), instant("2013-01-02T03:59:00Z"))


@pytest.mark.parametrize("cron", ["61 * * * *", "* 24 * * *", "a * * * *", "* * 0 * *", "5-1 * * * *"])
def test_a_field_out_of_its_range_is_refused(cron: str) -> None:
    with pytest.raises(DeclarationError, match="cron field"):
        next_cron(cron, instant("2013-01-01"))
