"""Identifiers made in bulk are ULIDs like those made one by one."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mulle.core.hashing import new_id
from mulle.lifecycle.serving.ids import fresh_ids, repeatable_ids


@given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)), st.integers(0, 40))
def test_they_sort_by_time_like_other_ids(now: datetime, count: int) -> None:
    made = fresh_ids(int(now.timestamp() * 1000) * 1000, count)
    assert len(set(made)) == count
    assert {id[:10] for id in made} <= {new_id(now)[:10]}
    assert all(len(id) == 26 and not set(id) - set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for id in made)


def test_played_again_they_are_the_same_and_differ_by_row_and_version() -> None:
    once = repeatable_ids([5_000_000, 5_000_000], [b"a", b"b"], "m@1")
    assert once == repeatable_ids([5_000_000, 5_000_000], [b"a", b"b"], "m@1")
    assert len({*once, *repeatable_ids([5_000_000, 5_000_000], [b"a", b"b"], "m@2")}) == 4


def test_they_are_what_they_were_in_earlier_releases() -> None:
    # A message that is scored again after an upgrade must have the id that it had.
    moments = [1_362_096_000_000_000, 1_362_096_123_456_789, 5_000_000]
    assert repeatable_ids(moments, [b"a", b"b", b"c"], "m@1") == [
        "017MHKZ300XWJFE5DY8N20A2RK", "017MHM2VJ0X37TFMWW36W4ZC7E", "00000004W89R4AH29D30B3CY20",
    ]  # fmt: skip
    assert repeatable_ids([], [], "m@1") == []
