"""The queue of runs: one suite, run on every database (PostgreSQL too when MULLE_TEST_POSTGRES gives a URL)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.clock import WallClock
from mulle.core.errors import LostFence
from mulle.core.hashing import new_id
from mulle.core.ports.metadata import Metadata
from mulle.core.records.base import Cause
from mulle.core.records.run import Run, RunEvent

POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")
T0 = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Metadata]:
    if request.param == "sqlite":
        yield open_metadata(f"sqlite:///{tmp_path}/mulle.db")
        return
    if not POSTGRES:
        pytest.skip("MULLE_TEST_POSTGRES names no server")
    import psycopg

    name = f"queue_{new_id(WallClock().now()).lower()}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield open_metadata(POSTGRES.rpartition("/")[0] + f"/{name}")
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def take(store: Metadata, worker: str = "w", **more: object) -> str | None:
    store.queue.beat(worker, 1, {})
    claim = store.queue.take(worker, **more)  # type: ignore[arg-type]
    return None if claim is None else claim.run


def test_runs_go_by_priority_then_age_and_those_of_a_model_one_after_another(store: Metadata) -> None:
    for run, model, priority in (("a", "m", 3), ("b", "m", 1), ("c", "n", 2), ("d", "n", 1), ("e", "", 9), ("f", "", 9)):
        store.queue.put(run, model=model, priority=priority)
    store.queue.put("b", model="other", priority=0)
    assert [take(store) for _ in range(5)] == ["b", "d", "e", "f", None]
    assert [claim.run for claim in store.queue.held("w")] == ["b", "d", "e", "f"]
    assert store.queue.end("b", "succeeded")
    assert not store.queue.end("b", "failed")
    assert [take(store) for _ in range(2)] == ["a", None]
    assert store.queue.unfinished() == ["a", "c", "d", "e", "f"]
    assert [store.queue.ended(run) for run in ("a", "b", "nobody")] == ["", "succeeded", None]


def test_no_more_run_at_once_than_may_whoever_takes_them(store: Metadata) -> None:
    for run in "abc":
        store.queue.put(run)
    assert [take(store, "v", at_most=2), take(store, "w", at_most=2), take(store, "w", at_most=2)] == ["a", "b", None]


def test_what_a_dead_worker_held_goes_first_and_its_fence_is_lost(store: Metadata) -> None:
    for run in "ab":
        store.queue.put(run, model="m", given={"of": run})
    store.queue.beat("dead", 1, {"pid": 7})
    claim = store.queue.take("dead")
    assert claim is not None
    assert claim.given == {"of": "a"}
    store.queue.put("hand", priority=-1)
    assert store.queue.beats()["dead"] == (1, {"pid": 7})
    # It lives: only what is no other's may be taken.
    assert [take(store), take(store)] == ["hand", None]
    with store.queue.fence("a", claim.token):
        store.queue.put("in time")
    assert take(store, dead=["dead"]) == "a"
    with pytest.raises(LostFence, match="taken over"), store.queue.fence("a", claim.token):
        store.queue.put("too late")
    assert store.queue.ended("too late") is None
    assert store.queue.ended("in time") == ""
    assert not store.queue.end("a", "succeeded", claim.token)


def test_who_leaves_in_order_leaves_its_runs_to_the_others_at_once(store: Metadata) -> None:
    store.queue.put("a")
    assert take(store, "v") == "a"
    assert take(store, "w") is None
    store.queue.leave("v")
    assert take(store, "w") == "a"


def test_a_run_that_was_cancelled_takes_no_more_and_keeps_its_state(store: Metadata) -> None:
    run = Run(id="r", created_at=T0, causes=(Cause(type="person", id="ada", why=""),), model="m", cutoff=T0, code="c")
    store.runs.add(run)
    store.queue.put("r", model="m")
    store.queue.beat("w", 1, {})
    claim = store.queue.take("w")
    assert claim is not None
    store.runs.add_events(RunEvent(id="1", run="r", at=T0, kind="state", name="cancelled"))
    assert store.queue.held("w") == []
    with pytest.raises(LostFence, match="has ended"), store.queue.fence("r", claim.token):
        store.runs.add_events(RunEvent(id="2", run="r", at=T0, kind="stage", name="register", state="done"))
    store.runs.add_events(RunEvent(id="3", run="r", at=T0, kind="state", name="succeeded"))
    assert [event.name for event in store.runs.events("r")] == ["cancelled"]
    assert store.runs.states(["r"]) == {"r": "cancelled"}


def test_of_many_that_take_at_once_each_gets_another(store: Metadata) -> None:
    for number in range(40):
        store.queue.put(f"r{number:02}", model=f"m{number}")
    for worker in range(8):
        store.queue.beat(f"w{worker}", 1, {})
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: store.queue.take(f"w{n % 8}"), range(40)))
    assert sorted(claim.run for claim in taken if claim) == [f"r{number:02}" for number in range(40)]


def test_rows_of_runs_that_ended_can_be_forgotten(store: Metadata) -> None:
    for run in ("a", "b", "c"):
        store.queue.put(run)
    for run in ("a", "c"):
        store.queue.end(run, "failed")
    assert store.queue.finished("c", 10) == ["a"]
    store.queue.forget(["a", "b"])
    assert store.queue.unfinished() == ["b"]
    assert store.queue.ended("a") is None
