"""Several workers on one home, with PostgreSQL: who dies or hangs loses its runs, and no effect is doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.clock import WallClock
from mulle.core.hashing import new_id

WORKER = Path(__file__).with_name("engine_worker.py")
POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")

pytestmark = pytest.mark.skipif(not POSTGRES, reason="MULLE_TEST_POSTGRES names no server")


@pytest.fixture
def database() -> Iterator[str]:
    """A database of its own, which goes with the test."""
    name = f"engine_{new_id(WallClock().now()).lower()}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield POSTGRES.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, database: str) -> Iterator[Start]:
    found: list[subprocess.Popen[str]] = []

    def begin(seconds: float = 0.0) -> subprocess.Popen[str]:
        command = [sys.executable, str(WORKER), str(tmp_path), database, str(seconds)]
        found.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return found[-1]

    yield begin
    for process in found:
        process.kill()
        process.wait()


def ready(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"


def until(done: Callable[[], bool], seconds: float = 30.0) -> float:
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < seconds, f"not within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def lines(home: Path) -> list[tuple[int, str, str]]:
    path = home / "lines.txt"
    split = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(pid), run, stage) for pid, run, stage in split]


def test_runs_are_shared_out_and_none_is_done_twice(tmp_path: Path, database: str, start: Start) -> None:
    store = open_metadata(database)
    workers = [start(0.01), start(0.01), start(0.01)]
    ready(*workers)
    for number in range(60):
        store.queue.put(f"run-{number}", model=f"m{number % 7}")
    until(lambda: not store.queue.unfinished())
    seen = lines(tmp_path)
    assert Counter((run, stage) for _, run, stage in seen) == Counter(
        {(f"run-{n}", stage): 1 for n in range(60) for stage in ("ingest", "features", "register", "roll_out")}
    )
    assert {pid for pid, *_ in seen} == {worker.pid for worker in workers}
    assert sorted(path.name for path in (tmp_path / "workers").iterdir()) == ["0.lock", "1.lock", "2.lock"]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_the_runs_of_a_worker_that_is_gone_go_on_elsewhere_and_no_effect_is_doubled(
    tmp_path: Path, database: str, start: Start, fault: signal.Signals
) -> None:
    store = open_metadata(database)
    store.queue.put("run", model="m")
    first = start(1.5)
    ready(first)
    until(lambda: ("run", "features") in [(run, stage) for _, run, stage in lines(tmp_path)])
    os.kill(first.pid, fault)
    second = start(0.1)
    ready(second)
    took = until(lambda: not store.queue.unfinished(), 30)
    assert took < 30
    if fault == signal.SIGSTOP:
        # It wakes in the middle of a stage that another worker has done since.
        os.kill(first.pid, signal.SIGCONT)
        until(lambda: (first.pid, "run", "refused:features") in lines(tmp_path))
        # And it is a worker like the others again.
        second.kill()
        store.queue.put("later")
        until(lambda: not store.queue.unfinished())
    effects = {name: len(store.models.list(f"run.{name}")) for name in ("ingest", "features", "register", "roll_out")}
    assert effects == dict.fromkeys(effects, 1)
    done = [(pid, stage) for pid, run, stage in lines(tmp_path) if run == "run" and not stage.startswith("refused")]
    # What was committed was not done again; what was under way was, once.
    assert done[:2] == [(first.pid, "ingest"), (first.pid, "features")]
    assert done[2:] == [(second.pid, "features"), (second.pid, "register"), (second.pid, "roll_out")]


def test_a_worker_that_starts_again_takes_its_place_and_its_runs_at_once(tmp_path: Path, database: str, start: Start) -> None:
    store = open_metadata(database)
    store.queue.put("run")
    first = start(1.0)
    ready(first)
    until(lambda: len(lines(tmp_path)) == 2)
    first.kill()
    first.wait()
    again = start(0.0)
    ready(again)
    assert until(lambda: not store.queue.unfinished()) < 3.0
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["0.lock"]
    assert [stage for _, _, stage in lines(tmp_path)] == ["ingest", "features", "features", "register", "roll_out"]


def test_the_journal_is_in_a_schema_of_its_own(database: str, start: Start) -> None:
    ready(start())
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT table_schema, count(*) FROM information_schema.tables "
            "WHERE table_name IN ('workflow_status', 'operation_outputs', 'runs') GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert found == [("mulle_engine", 2), ("public", 1)]
