"""A fleet's run that is killed among its members goes on with those that are missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "loop" / "training"))

from test_fleet import OWN, opened, write_project

from mulle.core.records.run import run_stages
from mulle.loop.runner import open_engine

KILLED = """
import sys
from pathlib import Path
import mulle.loop.training.fleet as fleet
from mulle.bootstrap.parts import wire
from mulle.core.records.base import Cause
from mulle.core.settings import load_settings
from mulle.loop.runner import run_model
fleet.CHUNK = 1
parts = wire(load_settings({"project": Path(sys.argv[1])}, {}))
run_model(parts, "demand", causes=(Cause(type="person", id="ada", why="asked"),))
"""


@pytest.mark.parametrize("fault", ["during:members", "during:members:recorded"])
def test_a_run_killed_among_its_members_goes_on_with_those_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write_project(tmp_path / "project")
    environment = {**os.environ, "MULLE_FAULT": fault, "MULLE_PROCESSES": "1"}
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "project")], env=environment, check=False, timeout=300)
    assert died.returncode == -signal.SIGKILL
    parts = opened(tmp_path / "project")
    run = parts.metadata.runs.list("demand")[0]
    left = {p: p.stat().st_mtime_ns for p in (parts.settings.home / "runs" / run.id / "members" / "done").glob("*.json")}
    assert len(left) == (1 if fault == "during:members" else 4)
    monkeypatch.setattr("mulle.loop.training.fleet.CHUNK", 1)
    with open_engine(parts) as engine:
        assert engine.wait(run.id, 300) == "succeeded"
    assert {p: p.stat().st_mtime_ns for p in left} == left
    assert [s.name for s in run_stages(parts.metadata.runs.events(run.id))][-1] == "members"
    outcomes = [m.outcome for m in parts.metadata.runs.members(run.id)]
    assert sorted(outcomes) == ["failed", "small", "trained", "trained", "trained"]
    for store in OWN:
        assert len(parts.metadata.models.list(f"demand/{store}")) == 1
        assert len(parts.metadata.deployments.of(f"demand/{store}")) == 1
    parts.online.close()
