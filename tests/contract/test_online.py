"""The suite that every online store meets (Redis too when MULLE_TEST_REDIS gives a URL)."""

from __future__ import annotations

import multiprocessing
import os
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulle.adapters.online.lmdb import LmdbOnline
from mulle.adapters.online.open import open_online
from mulle.core.clock import instant
from mulle.core.errors import Conflict, Unavailable, UsageError
from mulle.core.ports.online import Mark, Online

EVER = -(2**62)
FAR = 253_402_300_799_000_000
"""The end of the year 9999 in microseconds: above 2^53, where doubles have gaps."""

REDIS = os.environ.get("MULLE_TEST_REDIS", "")


def redis_url(prefix: str) -> str:
    if not REDIS:
        pytest.skip("MULLE_TEST_REDIS is not set")
    return f"{REDIS}{'&' if '?' in REDIS else '?'}prefix={prefix}"


def swept(prefix: str) -> None:
    import redis

    with redis.Redis.from_url(REDIS) as client:
        for key in client.scan_iter(match=f"{prefix}*"):
            client.delete(key)


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "lmdb":
        yield f"lmdb://{tmp_path / 'online.lmdb'}"
        return
    prefix = f"t{uuid4().hex[:12]}"
    yield redis_url(prefix)
    swept(prefix)


@pytest.fixture
def store(url: str) -> Iterator[Online]:
    made = open_online(url)
    yield made
    made.close()


def test_the_last_entry_not_after_the_instant_is_given(store: Online) -> None:
    assert store.put("t", [("a", 10, {"v": 1}), ("a", 20, {"v": 2}), ("b", 15, {"v": None})]) == 3
    asks = [("t", "a", 9), ("t", "a", 10), ("t", "a", 25), ("t", "b", 99), ("t", "c", 99)]
    assert store.get(asks) == [None, (10, {"v": 1}), (20, {"v": 2}), (15, {"v": None}), None]
    assert store.get([]) == []


def test_one_read_answers_for_several_tables(store: Online) -> None:
    store.put("f.weather.1", [("JFK", 10, {"wind": 3.5})])
    store.put("f.plane.2", [("N1", EVER, {"year": 1999})])
    asks = [("f.plane.2", "N1", 5), ("f.weather.1", "JFK", 11), ("f.weather.1", "N1", 11), ("f.none.3", "JFK", 11)]
    assert store.get(asks) == [(EVER, {"year": 1999}), (10, {"wind": 3.5}), None, None]


def test_a_read_of_very_many_asks_answers_each_in_its_place(store: Online) -> None:
    store.put("t", [(f"k{i}", i, {"v": i}) for i in range(0, 4_500, 2)])
    answers = store.get([("t", f"k{i}", 5_000) for i in range(4_500)])
    assert answers == [(i, {"v": i}) if i % 2 == 0 else None for i in range(4_500)]


def test_a_read_that_fails_holds_nothing_back(store: Online) -> None:
    store.put("t", [("a", 1, {"v": 1})])
    with pytest.raises(struct.error):
        store.get([("t", "a", 1), ("t", "a", 2**70)])
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(store.put, "t", [("a", 1, {"v": 2})]).result(10) == 1
        assert elsewhere.submit(store.get, [("t", "a", 1)]).result(10) == [(1, {"v": 2})]


def test_an_entry_of_the_same_key_and_instant_is_replaced(store: Online) -> None:
    store.put("t", [("a", 10, {"v": 1}), ("a", 11, {"v": "next"})])
    store.put("t", [("a", 10, {"v": 2, "much": "longer than before"})])
    store.put("t", [("a", 10, {})])
    assert store.get([("t", "a", 10), ("t", "a", 11)]) == [(10, {}), (11, {"v": "next"})]
    assert store.forget("t", ["a"]) == 2


def test_instants_beyond_the_doubles_are_told_apart(store: Online) -> None:
    store.put("t", [("a", FAR, {"v": 1}), ("a", FAR + 1, {"v": 2}), ("a", -FAR, {"v": 0}), ("a", EVER, {"v": -1})])
    asks = [("t", "a", at) for at in (FAR - 1, FAR, FAR + 1, -FAR, -FAR - 1, EVER, EVER - 1)]
    assert [f and f[1]["v"] for f in store.get(asks)] == [0, 1, 2, 0, -1, -1, None]


def test_values_come_back_as_they_went(store: Online) -> None:
    values = {"f": 0.1 + 0.2, "i": 2**63 - 1, "u": 2**64 - 1, "b": True, "n": None, "s": "\xff\0\n\ud7ff물레", "e": 1e-300}
    store.put("t", [("\xff|\\", 5, values)])
    found = store.get([("t", "\xff|\\", 5)])
    assert found == [(5, values)]
    assert isinstance(found[0][1]["b"], bool)


keys = st.text(st.sampled_from("ab:%*[\0\1|"), max_size=3)
tables = st.sampled_from(["t", "t:a", "t%3Aa", "t*", "t\1", "u"])
moments = st.one_of(st.integers(-20, 20), st.sampled_from([EVER, FAR, FAR + 1]))
puts = st.tuples(st.just("put"), tables, st.lists(st.tuples(keys, moments), max_size=8))
trims = st.tuples(st.just("trim"), tables, moments)
forgets = st.tuples(st.just("forget"), tables, st.lists(keys, max_size=3, unique=True))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(puts, trims, forgets), max_size=12), st.lists(st.tuples(tables, keys, moments), max_size=12))
def test_it_does_what_a_dictionary_would(url: str, steps: list[tuple], asks: list[tuple[str, str, int]]) -> None:
    store = open_online(url)
    for table in ("t", "t:a", "t%3Aa", "t*", "t\1", "u"):
        store.forget(table, sorted({k for _, t, made in steps if _ == "put" and t == table for k, _ in made}))
    model: dict[tuple[str, str], dict[int, dict[str, int]]] = {}
    for number, (kind, table, what) in enumerate(steps):
        if kind == "put":
            assert store.put(table, [(k, at, {"n": number, "i": i}) for i, (k, at) in enumerate(what)]) == len(what)
            for i, (k, at) in enumerate(what):
                model.setdefault((table, k), {})[at] = {"n": number, "i": i}
        elif kind == "trim":
            gone = [(k, at) for (t, k), es in model.items() if t == table for at in es if at < what and at != max(es)]
            assert store.trim(table, what) == len(gone)
            for k, at in gone:
                del model[table, k][at]
        else:
            assert store.forget(table, what) == sum(len(model.pop((table, k), {})) for k in what)
    expected = []
    for table, key, at in [*asks, *((t, k, FAR + 9) for t, k in model)]:
        held = [i for i in model.get((table, key), {}) if i <= at]
        expected.append((max(held), model[table, key][max(held)]) if held else None)
    assert store.get([*asks, *((t, k, FAR + 9) for t, k in model)]) == expected
    for table, key in model:
        store.forget(table, [key])
    store.close()


def test_long_keys_fit(store: Online) -> None:
    store.put("t", [("x" * 2000, 1, {"v": 1}), ("x" * 2001, 1, {"v": 2})])
    assert store.get([("t", "x" * 2000, 1), ("t", "x" * 2001, 1)]) == [(1, {"v": 1}), (1, {"v": 2})]
    assert store.forget("t", ["x" * 2000]) == 1
    assert store.get([("t", "x" * 2000, 1), ("t", "x" * 2001, 1)]) == [None, (1, {"v": 2})]


def test_trimming_keeps_each_keys_last_entry(store: Online) -> None:
    store.put("t", [("a", i, {}) for i in range(10)] + [("b", 1, {}), ("b", 2, {})])
    store.put("tt", [("a", 1, {}), ("a", 2, {})])
    assert store.trim("t", 5) == 6
    assert store.get([("t", k, at) for k, at in (("a", 4), ("a", 5), ("b", 9), ("b", 1))]) == [None, (5, {}), (2, {}), None]
    assert store.get([("tt", "a", 1)]) == [(1, {})]
    assert store.trim("t", 5) == 0


def test_trimming_reaches_every_portion(store: Online) -> None:
    store.put("t", ((f"k{i % 7_000}", i, {}) for i in range(24_000)))
    assert store.trim("t", 24_000) == 17_000
    assert store.trim("t", 24_000) == 0
    assert store.get([("t", "k0", 24_000), ("t", "k0", 14_000), ("t", "k6999", 24_000)]) == [(21_000, {}), None, (20_999, {})]


def test_a_forgotten_key_is_gone(store: Online) -> None:
    store.put("t", [("a", 1, {}), ("a", 2, {}), ("ab", 1, {}), ("b", 1, {})])
    store.put("u", [("a", 1, {})])
    assert store.forget("t", ["a", "never"]) == 2
    assert store.get([("t", "a", 9), ("t", "ab", 9), ("t", "b", 9), ("u", "a", 9)]) == [None, (1, {}), (1, {}), (1, {})]
    assert store.forget("t", []) == 0


def test_a_mark_is_kept(url: str, store: Online) -> None:
    assert store.marked("t") is None
    store.mark("t", Mark(instant("2013-03-01T10:00:00.000001Z"), 7))
    store.mark("u", Mark(instant("2013-03-02")))
    again = open_online(url, readonly=True)
    assert again.marked("t") == Mark(instant("2013-03-01T10:00:00.000001Z"), 7)
    assert again.marked("u") == Mark(instant("2013-03-02"), 0)
    again.close()
    assert store.get([("t", "a", 1)]) == [None]
    assert store.trim("t", 2**60) == store.forget("t", ["mark"]) == 0


def test_a_portion_that_fails_is_not_written(store: Online) -> None:
    with pytest.raises(TypeError):
        store.put("t", [("a", 1, {"v": 1}), ("a", 2, {"v": object()})])
    assert store.get([("t", "a", 5)]) == [None]


def test_a_feed_is_never_held_whole(store: Online) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        assert store.put("t", ((f"k{i}", i, {"v": "x" * 500}) for i in range(count))) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40_000) < 1.2 * peak(10_000)
    assert store.get([("t", "k39999", 99_999)]) == [(39_999, {"v": "x" * 500})]


def test_a_reader_may_not_write(url: str, store: Online) -> None:
    reader = open_online(url, readonly=True)
    attempts: list[Callable[[], object]] = [
        lambda: reader.put("t", [("a", 1, {})]),
        lambda: reader.mark("t", Mark(instant("2013-03-01"))),
        lambda: reader.trim("t", 5),
        lambda: reader.forget("t", ["a"]),
    ]
    store.put("t", [("a", 1, {}), ("a", 2, {})])
    for attempt in attempts:
        with pytest.raises(Conflict, match="reading only"):
            attempt()
    assert reader.get([("t", "a", 1)]) == [(1, {})]
    reader.close()


def test_readers_and_a_writer_share_it(store: Online) -> None:
    store.put("t", [("a", 1, {"v": 0})])

    def read(_: int) -> bool:
        return all(store.get([("t", "a", 9)])[0] is not None for _ in range(100))

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, i) for i in range(4)]
        for i in range(200):
            store.put("t", [("a", 1, {"v": i})])
        assert all(r.result(30) for r in readers)
    assert store.get([("t", "a", 9)]) == [(1, {"v": 199})]


def test_lmdb_grows_when_it_is_full(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path, map_size=2**17)
    store.put("t", [(f"k{i}", i, {"v": "x" * 500}) for i in range(2000)])
    assert store.get([("t", "k1999", 2000)]) == [(1999, {"v": "x" * 500})]
    store.close()


def _write(folder: str) -> None:
    store = LmdbOnline(folder)
    store.put("t", [(f"k{i}", 1, {"v": "x" * 500}) for i in range(3000)])
    store.close()


def test_a_reader_that_came_first_sees_what_another_process_writes(tmp_path: Path) -> None:
    reader = LmdbOnline(tmp_path / "new" / "store", readonly=True, map_size=2**17)
    assert reader.get([("t", "k1", 1)]) == [None]
    child = multiprocessing.get_context("spawn").Process(target=_write, args=(str(tmp_path / "new" / "store"),))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert reader.get([("t", "k2999", 1)]) == [(1, {"v": "x" * 500})]
    reader.close()


def test_two_projects_on_one_redis_keep_apart() -> None:
    prefix = f"t{uuid4().hex[:12]}"
    one, other = open_online(redis_url(prefix)), open_online(redis_url(prefix + "*"))
    one.put("t", [("a", 1, {"v": 1}), ("a", 2, {"v": 2})])
    one.mark("t", Mark(instant("2013-03-01"), 1))
    assert other.get([("t", "a", 9)]) == [None]
    assert other.marked("t") is None
    assert other.trim("t", 9) == other.forget("t", ["a"]) == 0
    assert one.get([("t", "a", 1)]) == [(1, {"v": 1})]
    one.close()
    other.close()
    swept(prefix)


def test_redis_is_found_again_after_its_connections_broke() -> None:
    import redis

    prefix = f"t{uuid4().hex[:12]}"
    store = open_online(redis_url(f"{prefix}&client_name={prefix}"))
    store.put("t", [("a", 1, {"v": 1})])
    with redis.Redis.from_url(REDIS) as admin:
        for client in admin.client_list():
            if client["name"] == prefix:
                admin.client_kill_filter(_id=client["id"])
        admin.script_flush()
    assert store.get([("t", "a", 1)]) == [(1, {"v": 1})]
    assert store.put("t", [("a", 2, {"v": 2})]) == 1
    store.close()
    swept(prefix)


def test_a_read_of_redis_is_one_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = f"t{uuid4().hex[:12]}"
    store = open_online(redis_url(prefix))
    store.put("t", [("a", 1, {"v": 1}), ("b", 1, {"v": 2})])
    asks = [("t", "a", 1), ("t", "b", 0), ("u", "a", 1), ("t", "b", 9)]
    found = store.get(asks)
    import redis

    sent = []
    send = redis.Connection.send_packed_command

    def told(connection: redis.Connection, *arguments: object, **options: object) -> object:
        sent.append(arguments)
        return send(connection, *arguments, **options)

    monkeypatch.setattr(redis.Connection, "send_packed_command", told)
    assert store.get(asks) == found == [(1, {"v": 1}), None, None, (1, {"v": 2})]
    assert len(sent) == 1
    store.close()
    swept(prefix)


def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    pytest.importorskip("redis")
    store = open_online("redis://ada:secret@127.0.0.1:1/0?socket_connect_timeout=0.2")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/") as caught:
        store.get([("t", "a", 1)])
    assert "secret" not in str(caught.value) + caught.value.next
    with pytest.raises(Unavailable):
        store.put("t", [("a", 1, {})])


def test_a_url_that_no_store_speaks_is_refused() -> None:
    with pytest.raises(UsageError, match="mongodb"):
        open_online("mongodb://x")


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "mulle.adapters.online.redis", raising=False)
    with pytest.raises(UsageError) as caught:
        open_online("redis://localhost")
    assert caught.value.next == "pip install 'mulle[redis]'"
