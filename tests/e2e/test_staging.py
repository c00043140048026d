"""A version goes to staging, answers there, passes its check and is released in production; a pause keeps the next one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import command

from mulle.bootstrap.parts import wire
from mulle.core.records.deployment import champion_of
from mulle.core.settings import load_settings
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.tick import tick

MULLE = [sys.executable, "-c", "from mulle.surfaces.cli.main import main; main()"]
PROJECT = """import mulle as ml
trips = ml.Dataset("trips", ml.Files("trips*.parquet"), key="id", outcome="y")
@ml.features(trips)
def shape(rows):
    return rows.select("size")
trip = ml.Model(
    "trip", features=shape, target="y", task="regression", search=ml.Search([ml.ridge()], trials=1), gates=[ml.parity(1e-4)],
    rollout=ml.immediate(staging=True),
)
"""

Run = Callable[..., dict]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staging")
    (folder / "project.py").write_text(PROJECT)
    write(folder, 1)
    return folder


def write(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    size = rng.normal(size=300)
    ids = [f"{number}-{n}" for n in range(300)]
    pl.DataFrame({"id": ids, "size": size, "y": 2 * size + rng.normal(size=300)}).write_parquet(folder / f"trips{number}.parquet")


@pytest.fixture(scope="module")
def mulle(project: Path) -> Run:
    def run(*arguments: str, code: int = 0) -> dict:
        done = command(project, *arguments, "--json")
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout if code == 0 else done.stderr))

    return run


@pytest.fixture
def served(project: Path) -> Iterator[str]:
    """A server of staging."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MULLE_INFERENCE_PORT": str(port)}
    process = subprocess.Popen([*MULLE, "serve", "--environment", "staging"], cwd=project, env=environment)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2) as answer:
                if answer.status == 200:
                    break
        except OSError:
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(20)


def test_what_a_run_made_goes_to_staging_and_passes_to_production_and_a_pause_keeps_the_next(
    project: Path, mulle: Run, served: str
) -> None:
    assert mulle("run", "trip")["release"] == ""
    assert mulle("history", "trip")["items"] == []
    (staged,) = mulle("history", "trip", "--environment", "staging")["items"]
    assert (staged["environment"], staged["to"], staged["by"]) == ("staging", 1, "loop")

    deadline = time.monotonic() + 20
    while True:
        try:
            body = json.dumps({"rows": [{"id": "a", "size": 1.0}]}).encode()
            request = urllib.request.Request(f"{served}/v1/models/trip/predict", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["predictions"][0]["version"] == 1
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    home = project / ".mulle"
    assert list((home / "staging" / "log").glob("predictions-*"))
    assert not list((home / "log").glob("predictions-*")), "what staging answers is no evidence of production"

    parts = wire(load_settings({"project": project}, {}))
    now = parts.clock.now()
    assert drain(log_folder(home / "staging"), parts.lake, now=now, environment="staging").predictions == 1
    (found,) = tick(parts, drain=lambda: None).happenings
    assert found[:2] == ("deploy", "trip")
    (made,) = mulle("history", "trip")["items"]
    assert (made["environment"], made["to"], made["causes"][0]["id"]) == ("production", 1, staged["id"])
    checked = made["evidence"]["staging"]
    assert checked["rows"] > 0
    assert checked["p99"] > 0
    assert checked["problem"] == ""
    assert checked["service"]["batches"] == 1
    assert tick(parts, drain=lambda: None).happenings == ()

    at = mulle("history", "trip", "--at", made["effective_at"])
    (version,) = at["served"]
    assert [(d["dataset"], d["version"], d["rows"]) for d in version["data"]] == [("trips", 1, 300)]
    assert len(version["code"]) >= 12
    assert version["share"] == 1.0

    assert mulle("pause", "trip", "--why", "an audit")["paused"] is True
    assert mulle("status")["models"][0]["paused"]["why"] == "an audit"
    write(project, 2)
    kept = mulle("run", "trip")
    assert kept["state"] == "succeeded"
    assert "paused" in kept["release"]
    assert "an audit" in kept["release"]
    assert [s["state"] for s in kept["stages"] if s["name"] == "roll_out"] == ["skipped"]
    assert champion_of(parts.metadata.deployments.of("trip", "staging")[-1]) == 1
    assert mulle("resume", "trip")["action"] == "resume"
    assert mulle("deploy", "trip@2", "--environment", "staging")["environment"] == "staging"
    promoted = mulle("promote", "trip", "--environment", "production")
    assert (promoted["action"], promoted["to"], promoted["environment"]) == ("deploy", 2, "production")
    assert mulle("deploy", "trip@2", "--environment", "nowhere", code=2)["next"] == "choose from production, staging"
    parts.online.close()
