"""Engines of one home that start at the same moment: with files one of them wins, with PostgreSQL they share the runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.clock import WallClock
from mulle.core.hashing import new_id
from mulle.core.ports.metadata import Metadata

WORKER = Path(__file__).parents[1] / "unit" / "loop" / "engine_worker.py"
POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")
STAGES = ("ingest", "features", "register", "roll_out")
RUNS = [f"run-{number}" for number in range(8)]

Engines = dict[int, str]
"""Process id to the first thing that it says."""


@contextmanager
def started_at_once(home: Path, database: str, many: int = 3) -> Iterator[Engines]:
    """Start engines that have imported all and wait for one word; give what each says to it."""
    command = [sys.executable, str(WORKER), str(home), database, "0.01", "go"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(many)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "warm\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield {process.pid: process.stdout.readline().strip() for process in processes if process.stdout is not None}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def done_by(home: Path, store: Metadata) -> set[int]:
    """Queue runs, wait for their ends, see that each step was done once; give the processes that did them."""
    for number, run in enumerate(RUNS):
        store.queue.put(run, model=f"m{number % 4}")
    deadline = time.monotonic() + 90
    while store.queue.unfinished():
        assert time.monotonic() < deadline, "the runs do not end"
        time.sleep(0.02)
    split = [line.split() for line in (home / "lines.txt").read_text().splitlines()]
    assert Counter((run, stage) for _, run, stage in split) == Counter({(run, stage): 1 for run in RUNS for stage in STAGES})
    assert all(len(store.models.list(f"{run}.{stage}")) == 1 for run in RUNS for stage in STAGES)
    return {int(pid) for pid, *_ in split}


def test_with_files_exactly_one_wins_and_the_others_are_told_who(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mulle.db"
    with started_at_once(tmp_path, database) as said:
        (winner,) = [pid for pid, word in said.items() if word == "ready"]
        refused = [word for word in said.values() if word != "ready"]
        assert [word.startswith(f"refused an engine already runs on {tmp_path}, pid ") for word in refused] == [True, True]
        assert done_by(tmp_path, open_metadata(database)) == {winner}


@pytest.mark.skipif(not POSTGRES, reason="MULLE_TEST_POSTGRES names no server")
def test_with_postgresql_all_of_them_share_the_runs(tmp_path: Path) -> None:
    name = f"engine_{new_id(WallClock().now()).lower()}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    database = POSTGRES.rpartition("/")[0] + f"/{name}"
    try:
        # Nothing is there yet: they make the records' tables and the journal's at one moment too.
        with started_at_once(tmp_path, database) as said:
            assert set(said.values()) == {"ready"}
            assert done_by(tmp_path, open_metadata(database)) <= said.keys()
    finally:
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
