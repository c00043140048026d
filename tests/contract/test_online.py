"""The suite that every online store meets."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.adapters.online.lmdb import LmdbOnline
from mulle.core.clock import instant
from mulle.core.errors import Conflict
from mulle.core.ports.online import Online


@pytest.fixture(params=["lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Online]:
    made = {"lmdb": lambda: LmdbOnline(f"lmdb://{tmp_path / 'online.lmdb'}")}[request.param]()
    yield made
    made.close()


def test_the_last_entry_not_after_the_instant_is_given(store: Online) -> None:
    assert store.put("t", [("a", 10, {"v": 1}), ("a", 20, {"v": 2}), ("b", 15, {"v": None})]) == 3
    assert store.get("t", ["a", "a", "a", "b", "c"], [9, 10, 25, 99, 99]) == [
        None, (10, {"v": 1}), (20, {"v": 2}), (15, {"v": None}), None,
    ]  # fmt: skip


def test_an_entry_of_the_same_key_and_instant_is_replaced(store: Online) -> None:
    store.put("t", [("a", 10, {"v": 1})])
    store.put("t", [("a", 10, {"v": 2})])
    assert store.get("t", ["a"], [10]) == [(10, {"v": 2})]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.integers(-(2**40), 2**40)), max_size=20),
    st.text(max_size=2, alphabet="ab\0"),
    st.integers(-(2**40), 2**40),
)
def test_no_key_is_taken_for_another(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, int]], key: str, at: int
) -> None:
    store = LmdbOnline(tmp_path_factory.mktemp("o"), map_size=2**22)
    entries = [*made, (key + "x", at), (key + "\0", at)]
    store.put("t", [(k, i, {"k": k}) for k, i in entries])
    store.put("t\1", [(key, at, {"k": "other table"})])
    expected = max((i for k, i in entries if k == key and i <= at), default=None)
    assert store.get("t", [key], [at]) == [None if expected is None else (expected, {"k": key})]
    store.close()


def test_long_keys_fit(store: Online) -> None:
    store.put("t", [("x" * 2000, 1, {"v": 1}), ("x" * 2001, 1, {"v": 2})])
    assert store.get("t", ["x" * 2000, "x" * 2001], [1, 1]) == [(1, {"v": 1}), (1, {"v": 2})]


def test_trimming_keeps_each_keys_last_entry(store: Online) -> None:
    store.put("t", [("a", i, {}) for i in range(10)] + [("b", 1, {}), ("b", 2, {})])
    store.put("tt", [("a", 1, {}), ("a", 2, {})])
    assert store.trim("t", 5) == 6
    assert store.get("t", ["a", "a", "b", "b"], [4, 5, 9, 1]) == [None, (5, {}), (2, {}), None]
    assert store.get("tt", ["a"], [1]) == [(1, {})]


def test_a_mark_is_kept(store: Online) -> None:
    assert store.marked("t") is None
    store.mark("t", instant("2013-03-01T10:00:00.000001Z"))
    assert store.marked("t") == instant("2013-03-01T10:00:00.000001Z")
    assert store.get("t", ["a"], [1]) == [None]


def test_a_put_that_fails_writes_nothing(store: Online) -> None:
    with pytest.raises(TypeError):
        store.put("t", [("a", 1, {"v": 1}), ("a", 2, {"v": object()})])
    assert store.get("t", ["a"], [5]) == [None]


def test_lmdb_grows_when_it_is_full(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, map_size=2**17)
    store.put("t", [(f"k{i}", i, {"v": "x" * 500}) for i in range(2000)])
    assert store.get("t", ["k1999"], [2000]) == [(1999, {"v": "x" * 500})]
    store.close()


def _write(folder: str) -> None:
    store = LmdbOnline(folder)
    store.put("t", [(f"k{i}", 1, {"v": "x" * 500}) for i in range(3000)])
    store.close()


def test_a_reader_that_came_first_sees_what_another_process_writes(tmp_path: Path) -> None:
    reader = LmdbOnline(tmp_path / "new" / "store", readonly=True, map_size=2**17)
    assert reader.get("t", ["k1"], [1]) == [None]
    child = multiprocessing.get_context("spawn").Process(target=_write, args=(str(tmp_path / "new" / "store"),))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert reader.get("t", ["k2999"], [1]) == [(1, {"v": "x" * 500})]
    with pytest.raises(Conflict):
        reader.put("t", [("a", 1, {})])
    reader.close()
