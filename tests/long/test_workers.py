"""Two workers and commands on one home with PostgreSQL: a run outlives the worker that began it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mulle.core.clock import WallClock
from mulle.core.hashing import new_id

MULLE = [sys.executable, "-c", "from mulle.surfaces.cli.main import main; main()"]
POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")

PROJECT = """
import os
import time
from pathlib import Path

import polars as pl

import mulle as ml

cells = ml.Dataset("cells", ml.Files("cells.csv"), key="id")


@ml.features(cells)
def cell_features(rows):
    if Path("hold").exists():
        Path("held").touch()
        time.sleep(600)
    return rows.select("size", "age")


weight = ml.Model(
    "weight", features=cell_features, target="weight", task="regression",
    search=ml.Search([ml.ridge()], trials=2), gates=[ml.at_most("mae", 5)],
)
"""

pytestmark = pytest.mark.skipif(not POSTGRES, reason="MULLE_TEST_POSTGRES names no server")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    name = f"workers_{new_id(WallClock().now()).lower()}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    (tmp_path / "project.py").write_text(PROJECT)
    rows = [f"{n},{n % 17},{n % 5},{2 * (n % 17) + n % 5}" for n in range(200)]
    (tmp_path / "cells.csv").write_text("id,size,age,weight\n" + "\n".join(rows) + "\n")
    yield os.environ | {"MULLE_DATABASE": POSTGRES.rpartition("/")[0] + f"/{name}", "MULLE_PROJECT": str(tmp_path)}
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def worker(tmp_path: Path, environment: dict[str, str]) -> Iterator[object]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen([*MULLE, "worker"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        assert "waiting for runs" in process.stderr.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_outlives_its_worker_and_a_command_reaches_whichever_has_it(tmp_path: Path, environment, worker) -> None:
    def mulle(*arguments: str, wanted: int = 0) -> dict:
        done = subprocess.run(
            [*MULLE, *arguments, "--json"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == wanted, f"{arguments}: {done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout))

    def until(path: Path) -> None:
        end = time.monotonic() + 120
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.05)

    hold, held = tmp_path / "hold", tmp_path / "held"
    hold.touch()
    first = worker()
    asked = subprocess.Popen(
        [*MULLE, "run", "weight", "--json"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    until(held)
    worker()
    hold.unlink()
    first.send_signal(signal.SIGKILL)
    told = json.loads(asked.communicate(timeout=240)[0])
    assert told["state"] == "succeeded"
    assert told["model_version"] == 1
    assert [stage["name"] for stage in told["stages"]][:4] == ["ingest", "check", "publish", "features"]
    assert mulle("data", "versions", "cells")["items"][0]["version"] == 1

    # Asked for and not waited for; cancelled by another command while a worker computes.
    held.unlink()
    hold.touch()
    again = mulle("runs", "repeat", told["id"], "--set", "trials=3", "--detach")
    assert again["state"] in ("queued", "running")
    until(held)
    assert mulle("runs", "cancel", again["id"], "--why", "enough")["state"] == "cancelled"
    hold.unlink()
    assert mulle("runs", "resume", again["id"])["state"] == "succeeded"
    states = [run["state"] for run in mulle("runs", "ls")["items"]]
    assert states == ["succeeded", "cancelled", "succeeded"]
    assert mulle("status")["engine"]["state"] == "running"
