"""A run, a version and an alias that MLflow missed are told when it is back, and nothing waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.ports import free_port

from mulle.adapters.tracking.mlflow import MlflowTracking
from mulle.core.hashing import hash_folder
from mulle.core.records.base import Cause
from mulle.core.records.deployment import champion_of
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import Run
from mulle.loop.keeping.doctor import _tracking
from mulle.loop.operate import deploy, snapshot_code
from mulle.loop.parts import Parts
from mulle.loop.place import ENGINE
from mulle.loop.training.tracked import catch_up, tell_run, untold

SOURCE = """
rows = ml.Dataset("rows", ml.Files("rows.csv"), key="id")

@ml.features(rows)
def shape(rows):
    return rows.select("x")

m = ml.Model("m", features=shape, target="y", task="regression")
"""
RESULTS = {"publish": {"versions": {}}, "search": {}, "evaluate": {"metrics": {"mae": 1.0}}}


def made(parts: Parts, folder: Path) -> tuple[Run, ModelVersion]:
    now, why = parts.clock.now(), (Cause(type="person", id="ada", why="asked"),)
    run = Run(id="r1", created_at=now, causes=why, model="m", cutoff=now, code=snapshot_code(parts), git=None)
    parts.metadata.runs.add(run)
    folder.mkdir()
    (folder / "bundle.json").write_text("{}")
    version = ModelVersion(
        id="r1", created_at=now, causes=why, model="m", version=0, run="r1", bundle=hash_folder(folder), address=str(folder),
        compiled="onnx", parity=None, metrics={}, size_bytes=1, features=("x",), data={}, data_cutoff=now, refit_cutoff=now,
    )  # fmt: skip
    return run, parts.metadata.models.add(version)


def test_what_mlflow_missed_is_told_when_it_is_back(
    opened: Callable[[str], Parts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    parts = opened(SOURCE)
    home = parts.settings.home
    gone = MlflowTracking(f"http://127.0.0.1:{free_port()}", home / "artifacts")
    away = replace(parts, tracking=lambda: gone)
    run, version = made(parts, tmp_path / "bundle")
    assert tell_run(away, run, RESULTS, version) == {}
    assert champion_of(deploy(away, "m", 1, by="ada")) == 1, "a pointer does not wait for MLflow"
    assert [path.name.partition("-")[0] for path in untold(home)] == ["run", "then"]
    assert "is told 2 things later" in _tracking(away)
    assert catch_up(away) == 0
    assert len(untold(home)) == 2
    # What cannot be told for another reason is put aside, and keeps the rest no longer than itself.
    (home / "tracking" / "run-0.json").write_text(json.dumps({"run": "nobody", "model": "m", "results": RESULTS}))
    assert catch_up(parts) == 2
    assert (untold(home), len(list((home / "tracking").glob("*.refused")))) == ([], 1)
    told = parts.metadata.models.get("m", 1)
    assert told is not None
    assert told.tracking["version"] == "1"
    assert parts.tracking().aliases("m") == {"champion": "1"}
    assert parts.tracking().held().keys() == {"r1"}
    assert catch_up(parts) == 0


def test_where_a_loop_runs_it_tells_mlflow_and_a_command_does_not_wait(opened: Callable[[str], Parts], tmp_path: Path) -> None:
    parts = opened(SOURCE)
    run, version = made(parts, tmp_path / "bundle")
    tell_run(parts, run, RESULTS, version)
    asked: list[str] = []

    def tracking() -> MlflowTracking:
        asked.append("opened")
        return parts.tracking()

    hold = "import sys, pathlib, mulle.loop.lock as l; h = l.hold(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
    loop = subprocess.Popen(
        [sys.executable, "-c", hold, str(parts.settings.home / ENGINE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "held\n"
        deploy(replace(parts, tracking=tracking), "m", 1, by="ada")
        assert (asked, parts.tracking().aliases("m")) == ([], {})
    finally:
        loop.communicate("\n")
    assert catch_up(parts) == 1
    assert parts.tracking().aliases("m") == {"champion": "1"}
