"""Durations, instants and the replay clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulle.core.clock import ReplayClock, duration, instant, rfc3339
from mulle.core.errors import DeclarationError, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("14d", 14 * 86400), ("5ms", 0.005), ("1h30m", 5400), ("1w", 604800), ("0.5s", 0.5), ("250us", 0.00025)]
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "14", "d", "14 days", "-3d", "3d4x"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DeclarationError) as error:
        duration(text)
    assert "14d" in error.value.next


def test_an_instant_without_offset_is_utc_and_one_with_offset_is_converted() -> None:
    assert instant("2013-03-01 12:00") == datetime(2013, 3, 1, 12, tzinfo=UTC)
    assert instant("2013-03-01T12:00:00+02:00") == datetime(2013, 3, 1, 10, tzinfo=UTC)


def test_what_is_no_instant_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError):
        instant("yesterday")


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-14, 14))
def test_an_instant_survives_being_written_and_read(moment: datetime, hours: int) -> None:
    zoned = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert instant(rfc3339(zoned)) == zoned


def test_a_replay_clock_stands_still_and_never_goes_back() -> None:
    clock = ReplayClock(instant("2013-03-02"))
    clock.advance(instant("2013-03-01"))
    assert clock.now() == instant("2013-03-02")
    clock.advance(instant("2013-03-03"))
    assert clock.now() == instant("2013-03-03")
