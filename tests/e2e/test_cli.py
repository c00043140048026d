"""From an empty folder to an answered prediction by commands alone; what makes, trains, serves and asks is a process each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import polars as pl
import pytest
from commands import Ended, command
from tests.ports import free_port

import mulle as ml
from mulle.core.errors import ContractError

MULLE = [sys.executable, "-c", "from mulle.surfaces.cli.main import main; main()"]
APART = {"new", "run", "predict", "label"}
"""Run as a process of its own; what only looks, or is refused, is run here."""


@pytest.fixture(scope="module")
def mulle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    environment = os.environ | {"MULLE_INFERENCE_PORT": str(free_port()), "MULLE_PORT": str(free_port())}

    def run(*arguments: str, cwd: Path = folder / "cells-lab", wanted: int = 0) -> str:
        done: subprocess.CompletedProcess[str] | Ended
        if arguments[0] in APART and wanted == 0:
            done = subprocess.run(
                [*MULLE, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=180
            )
        else:
            done = command(cwd, *arguments, environment=environment)
        assert done.returncode == wanted, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if wanted == 0 else done.stderr

    run("new", "cells-lab", cwd=folder)
    run.folder, run.environment = folder / "cells-lab", environment
    run.trained = json.loads(run("run", "diagnosis", "--json"))
    return run


@pytest.fixture(scope="module")
def server(mulle):
    process = subprocess.Popen([*MULLE, "serve"], cwd=mulle.folder, env=mulle.environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    port = int(mulle.environment["MULLE_INFERENCE_PORT"])
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        process.poll()
    yield process
    process.terminate()
    process.communicate(timeout=20)


def test_a_run_of_the_new_project_succeeds_with_every_stage_and_gate(mulle):
    view = mulle.trained
    assert view["state"] == "succeeded"
    assert [s["name"] for s in view["stages"]] == [
        "ingest", "check", "publish", "features", "search", "evaluate", "bundle", "gate", "register", "roll_out"
    ]  # fmt: skip
    assert {g["verdict"] for g in view["gates"]} == {"pass"}
    assert len(view["trials"]) >= 2
    assert view["data"] == {"cells": 1}
    assert view["serves"] == "diagnosis 1 serves production"


def test_the_search_is_drawn_on_a_page(mulle):
    run = mulle.trained["id"]
    view = json.loads(mulle("runs", "show", run, "--page", "search.html", "--json"))
    assert {"trials", "gates", "evaluation", "notes"} <= view.keys()
    page = (mulle.folder / "search.html").read_text()
    assert run in page
    assert all(trial["candidate"] in page for trial in view["trials"])
    assert 'src="http' not in page


def test_a_version_is_made_again_and_found_by_its_data(mulle):
    view = json.loads(mulle("models", "reproduce", "diagnosis@1", "--json"))
    assert (view["reproduced"], view["agreement"]["rows"]) == (True, 569)
    assert [i["version"] for i in json.loads(mulle("models", "ls", "--data", "cells@1", "--json"))["items"]] == [1]


def test_status_history_and_models_tell_of_the_deployed_version(mulle):
    assert "diagnosis is healthy: version 1 answers all traffic" in mulle("status")
    assert json.loads(mulle("models", "show", "diagnosis@champion", "--json"))["version"] == 1
    assert json.loads(mulle("history", "diagnosis", "--json"))["items"][0]["action"] == "deploy"
    assert json.loads(mulle("data", "versions", "cells", "--json"))["items"][0]["rows"] == 569


def test_moves_that_cannot_be_are_refused_with_the_exit_code_of_a_no(mulle):
    assert "champion" in mulle("deploy", "diagnosis@1", wanted=1)
    assert mulle("rollback", "diagnosis", wanted=1)
    assert mulle("promote", "diagnosis", wanted=1)
    assert mulle("rollback", "nope", wanted=2)


def test_predictions_and_labels_go_through_the_served_model(mulle, server):
    lines = (mulle.folder / "data" / "cells.csv").read_text().splitlines()
    rows = [",".join(line.split(",")[:-1]) for line in lines[:3]]
    (mulle.folder / "two.csv").write_text("\n".join(rows) + "\n")
    answers = json.loads(mulle("predict", "diagnosis", "--input", "two.csv", "--json"))["predictions"]
    assert [a["value"] for a in answers] == ["malignant", "malignant"]
    (mulle.folder / "labels.csv").write_text("sample_id,value\ns0001,malignant\ns0002,benign\n")
    assert json.loads(mulle("label", "diagnosis", "--input", "labels.csv", "--json"))["accepted"] == 2
    assert "mean_texture" in mulle("predict", "diagnosis", "--row", '{"sample_id": "x", "mean_radius": 1}', wanted=1)
    assert "no model 'nope'" in mulle("predict", "nope", "--row", "{}", wanted=2)


def test_the_python_door_answers_like_the_server(mulle, server):
    opened = ml.project(mulle.folder)
    assert list(opened.models) == ["diagnosis"]
    cells = opened.read("cells@1")
    assert not [name for name in cells.columns if name.startswith("_")]
    asked = pl.read_csv(mulle.folder / "two.csv").select(pl.col("sample_id").cast(cells.schema["sample_id"]))
    same = asked.join(cells.drop("diagnosis"), on="sample_id", how="left", maintain_order="left")
    out = opened.load("diagnosis@champion").predict(same)
    served = json.loads(mulle("predict", "diagnosis", "--input", "two.csv", "--json"))["predictions"]
    told = [json.loads(text)["malignant"] for text in out["probabilities"]]
    assert told[:2] == pytest.approx([p["probabilities"]["malignant"] for p in served], abs=1e-6)
    assert set(out["route"]) == {"offline"}
    with pytest.raises(ContractError, match="mean_radius is missing"):
        opened.load("diagnosis").predict(pl.DataFrame({"sample_id": ["x"]}))
    assert opened.history("diagnosis", at="2001-01-01")["routes"] == []


def test_up_serves_page_api_and_predictions_refuses_a_second_engine_and_ends_in_order(mulle):
    ports = {"MULLE_INFERENCE_PORT": str(free_port()), "MULLE_PORT": str(free_port()), "MULLE_TICK": "1s"}
    environment = mulle.environment | ports
    process = subprocess.Popen([*MULLE, "up"], cwd=mulle.folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        page = fetched(f"http://127.0.0.1:{ports['MULLE_PORT']}/", process)
        assert "diagnosis is healthy: version 1 answers all traffic" in page
        fetched(f"http://127.0.0.1:{ports['MULLE_INFERENCE_PORT']}/v2/health/ready", process)
        status = json.loads(mulle("status", "--json"))
        assert (status["engine"]["state"], status["engine"]["pid"]) == ("running", process.pid)
        second = subprocess.run([*MULLE, "up"], cwd=mulle.folder, env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert str(process.pid) in second.stderr
        assert "Ctrl-C stops it" not in second.stderr, "it says of itself that it runs"
    finally:
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert json.loads(mulle("status", "--json"))["engine"]["state"] == "stopped"


def fetched(url: str, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                return str(answer.read().decode())
        except OSError:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_bundle_is_a_model_for_mlflow_too(mulle):
    from mulle.surfaces.pyfunc import _load_pyfunc

    address = json.loads(mulle("models", "show", "diagnosis@1", "--json"))["address"]
    rows = ml.read("cells", path=mulle.folder).head(3)
    assert _load_pyfunc(address).predict(rows) == rows["diagnosis"].to_list()
    assert _load_pyfunc(address).predict(rows.to_dicts()) == rows["diagnosis"].to_list()
