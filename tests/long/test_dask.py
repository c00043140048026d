"""A run on a Dask cluster by the setting alone: the same trials, gates and version as on plain processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from distributed import LocalCluster

MULLE = [sys.executable, "-c", "from mulle.surfaces.cli.main import main; main()"]
PROJECT = """
import mulle as ml

cells = ml.Dataset("cells", ml.Files("cells.parquet"), key="cell", outcome=["size"])


@ml.features(cells)
def cell_features(rows):
    return rows.select("a", "b")


size = ml.Model(
    "size", features=cell_features, target="size", task="regression", gates=[ml.parity()],
    search=ml.Search([ml.ridge(), ml.lightgbm(n_estimators=5)], trials=3, timeout="10m", parallel=2, memory="2GB"),
)
"""


def ran(folder: Path, compute: str, wanted: int = 0) -> Any:
    """Run the model in a home of its own."""
    environment = os.environ | {"MULLE_COMPUTE": compute}
    done = subprocess.run(
        [*MULLE, "run", "size", "--json", "--home", f".{compute.partition(':')[0]}"], cwd=folder, env=environment,
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == wanted, done.stderr
    return json.loads(done.stdout) if done.stdout else json.loads(done.stderr.splitlines()[-1])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    dice = np.random.default_rng(0)
    a, b = dice.normal(size=(2, 300))
    table = {"cell": range(300), "a": a, "b": b, "size": 3 * a + b + dice.normal(0, 0.1, 300)}
    pl.DataFrame(table).write_parquet(tmp_path / "cells.parquet")
    (tmp_path / "project.py").write_text(PROJECT)
    return tmp_path


def test_a_run_goes_to_the_cluster_by_its_url_alone(project: Path) -> None:
    def told(view: Any) -> Any:
        kept = ("number", "candidate", "params", "score", "state", "folds")
        return view["state"], [{name: t[name] for name in kept} for t in view["trials"]], [g["verdict"] for g in view["gates"]]

    # One place, which the run's own task must leave to its trials.
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as cluster:
        there = ran(project, "dask://" + cluster.scheduler_address.removeprefix("tcp://"))
    assert told(there) == told(ran(project, "local"))
    assert there["state"] == "succeeded"
    assert all(t["memory"] > 50_000_000 for t in there["trials"])


def test_a_cluster_of_its_own_serves_a_run_and_is_gone_after_it(project: Path) -> None:
    assert ran(project, "dask://local")["state"] == "succeeded"


def test_a_compute_that_is_none_ends_the_run_before_a_row_is_read(project: Path) -> None:
    view = ran(project, "spark://x", wanted=1)
    assert view["state"] == "failed"
    assert "compute is 'spark://x'" in view["reason"]
