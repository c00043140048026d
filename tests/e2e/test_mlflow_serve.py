"""`mlflow models serve` on a registered version answers as our own door does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import mulle as ml

PROJECT = """
import polars as pl
import mulle as ml

trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["minutes"])

@ml.features(trips)
def shape(rows):
    return rows.select("origin", "distance", hour=pl.col("at").dt.hour())

minutes = ml.Model(
    "minutes", features=shape, target="minutes", task="regression",
    search=ml.Search([ml.ridge()], trials=2), gates=[ml.parity(1e-4)],
)
"""
_PATIENCE = 180.0


def trips(n: int = 400) -> pl.DataFrame:
    dice = np.random.default_rng(0)
    distance, start = dice.uniform(50, 2000, n), datetime(2013, 3, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "id": [f"t{i}" for i in range(n)],
            "at": pl.datetime_range(start, start + timedelta(hours=n - 1), "1h", eager=True),
            "origin": dice.choice(["EWR", "JFK", "LGA"], n),
            "distance": [None if i % 17 == 0 else d for i, d in enumerate(distance)],
            "minutes": distance / 8 + dice.normal(0, 5, n),
        }
    )


def asked(port: int, path: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        assert server.poll() is None, "the server went away"
        try:
            asked(port, "/ping")
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # another program starts: nothing tells us when
            continue
        return
    pytest.fail("mlflow models serve did not start")


def test_mlflow_models_serve_gives_the_same_answers(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    trips().write_parquet(tmp_path / "trips.parquet")
    project = ml.project(tmp_path)
    assert project.run("minutes")["state"] == "succeeded"
    rows = trips().drop("minutes").head(30)
    ours = project.load("minutes@champion").predict(rows)["value"].to_list()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"sqlite:///{tmp_path}/.mulle/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/minutes@champion", "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it looks for uvicorn there
    server = subprocess.Popen(
        [*command, "--env-manager", "local"], cwd=tmp_path, start_new_session=True,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri, "PATH": path},
    )  # fmt: skip
    try:
        wait_for(port, server)
        records = json.loads(rows.write_json())
        told = json.loads(asked(port, "/invocations", json.dumps({"dataframe_records": records}).encode()))
        assert told["predictions"] == pytest.approx(ours, rel=1e-6)
        split = {"columns": rows.columns, "data": [list(record.values()) for record in records]}
        told = json.loads(asked(port, "/invocations", json.dumps({"dataframe_split": split}).encode()))
        assert told["predictions"] == pytest.approx(ours, rel=1e-6)
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)
