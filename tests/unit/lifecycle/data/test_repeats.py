"""Of rows given more than once in a batch the last one counts, in whatever order they are written."""

from __future__ import annotations

import polars as pl
import pytest

from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files
from mulle.lifecycle.data.repeats import last_given

T = [instant(f"2024-01-0{day}") for day in range(1, 10)]


def kept(rows: pl.DataFrame, *, live: bool, key: str | None = "id", **times: str) -> list[int]:
    found = last_given(rows.lazy(), Dataset("d", Files("d.csv"), key=key, **times), live=live).collect()  # type: ignore[arg-type]
    assert found.columns == rows.columns
    return found["x"].to_list()


@pytest.mark.parametrize("live", [True, False])
def test_the_last_row_of_a_key_stays_and_the_rest_keep_their_places(live: bool) -> None:
    rows = pl.DataFrame({"id": ["a", "b", "a", "c", "b"], "x": [1, 2, 3, 4, 5]})
    assert kept(rows, live=live) == [3, 4, 5]


@pytest.mark.parametrize("live", [True, False])
def test_another_time_is_another_row(live: bool) -> None:
    rows = pl.DataFrame({"id": ["a", "a", "a"], "at": [T[0], T[1], T[0]], "x": [1, 2, 3]})
    assert kept(rows, live=live, time="at") == [2, 3]


def test_history_keeps_what_was_known_when_and_live_rows_the_latest() -> None:
    rows = pl.DataFrame({"id": ["a"] * 4, "at": [T[0]] * 4, "known": [T[3], T[1], T[3], T[2]], "x": [1, 2, 3, 4]})
    assert kept(rows, live=False, time="at", known_at="known") == [2, 3, 4]
    assert kept(rows, live=True, time="at", known_at="known") == [3]


def test_rows_without_an_identity_all_stay() -> None:
    rows = pl.DataFrame({"id": [None, "a", None, "a"], "x": [1, 2, 3, 4]})
    assert kept(rows, live=True) == [1, 3, 4]
    assert kept(rows, live=True, key=None) == [1, 2, 3, 4]
