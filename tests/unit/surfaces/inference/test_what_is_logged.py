"""What a running server writes: samples, hidden columns, refusals, and what happens when it cannot write at all."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import psutil
import pytest
from serving_parts import Server, bundle, route, row, version

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.kernel.redact import pseudonym
from mulle.kernel.routes import ROUTES, LogRule, ModelRoutes, RoutingTable, read_routes, write_routes
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def drained(home: Path, table: str = "predictions") -> pl.DataFrame:
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    return lake.scan(table).collect()


def declare(home: Path, rule: LogRule) -> int:
    """Say what is logged, as the loop does when the project changes."""
    table = read_routes(home / ROUTES)
    models = {name: ModelRoutes(deployments=found.deployments, log=rule) for name, found in table.models.items()}
    write_routes(home / ROUTES, RoutingTable(generation=table.generation + 1, models=models))
    return table.generation + 1


def test_a_sample_and_hidden_columns_hold_from_the_next_look_at_the_routes(home: Path, tmp_path: Path) -> None:
    route(home, version(1, bundle(tmp_path / "b")))
    with Server(home) as server:
        assert server.predict(*[row(n) for n in range(100)]).status == 200
        assert drained(home).height == 100
        server.until(declare(home, LogRule(sample=0.2, redact=("kind", "id"))))
        said = server.predict(*[row(n) for n in range(1000, 1500)]).json["predictions"]
        assert len(said) == 500
        labels = [{"key": {"id": n}, "value": 1.0} for n in range(1000, 1500)]
        assert server.ask("POST", "/v1/labels", {"model": "trip", "labels": labels}).json["accepted"] == 500
        assert server.ask("POST", "/v1/labels", {"model": "trip", "labels": labels}).json["duplicates"] == 500
    written = b"".join(p.read_bytes() for p in log_folder(home).glob("*.seg"))
    found = drained(home).filter(pl.col("id").is_in([p["id"] for p in said]))
    assert 60 < found.height < 150
    assert drained(home).height == 100 + found.height
    assert set(found["key_text"]) <= {pseudonym(n) for n in range(1000, 1500)}
    assert set(found["key_text"]) <= set(drained(home, "labels")["key_text"])
    assert not re.search(rb'"id":1\d{3}\b', written), "a hidden key is on the disk"
    assert found["features"].str.contains("kind").sum() == 0
    assert found["row"].str.contains('"size":2.0').all()


def test_a_canarys_rows_are_all_logged_for_they_are_compared(home: Path, tmp_path: Path) -> None:
    made = [bundle(tmp_path / str(n), offset=float(n)) for n in range(2)]
    route(home, version(1, made[0], share=0.5), version(2, made[1], share=0.5, mode="canary"))
    declare(home, LogRule(sample=0.01))
    with Server(home) as server:
        assert server.predict(*[row(n) for n in range(50)]).status == 200
    assert drained(home).group_by("version").len().sort("version").rows() == [(1, 50), (2, 50)]


def test_refusals_are_counted_in_the_log_by_kind(home: Path, tmp_path: Path) -> None:
    route(home, version(1, bundle(tmp_path / "b")))
    route(home, version(1, ("0" * 32, bundle(tmp_path / "rotten")[1])), model="late")
    declare(home, LogRule(sample=0.000001))
    with Server(home) as server:
        assert server.predict(row(size="far")).status == 422
        assert server.predict(row(kind="boom")).status == 422
        # Deployed, and no version of it can answer: whichever way it is asked, that is in the log, and once.
        ways = (
            "/v1/models/late/predict",
            "/v1/models/late/invocations",
            "/v2/models/late/infer",
            "/v1/models/late/versions/1/predict",
        )
        tensors = [{"name": "size", "datatype": "FP64", "shape": [1], "data": [1.0]}]
        body = {"rows": [row()], "instances": [row()], "inputs": tensors}
        asked = [{k: body[k] for k in kept} for kept in (["rows"], ["instances"], ["inputs"], ["rows"])]
        assert [server.ask("POST", way, given).status for way, given in zip(ways, asked, strict=True)] == [503] * 4
        assert server.get("/v1/models/late").status == 503, "who asks what it is asks for no answer"
        assert server.predict(row(), model="unknown").status == 404
    found = drained(home)
    assert found.filter(model="late").select("error", "version").rows() == [("unavailable", None)] * 4
    found = found.filter(model="trip")
    assert sorted(found["error"].to_list()) == ["schema", "transform"]
    assert found["route"].unique().to_list() == ["refused"]
    assert not found["row"].str.contains("far").any()


@pytest.mark.parametrize("must", ["true", "false"])
def test_a_log_that_cannot_be_written_answers_503_unless_settings_say_otherwise(home: Path, tmp_path: Path, must: str) -> None:
    route(home, version(1, bundle(tmp_path / "b")))
    with Server(home, {"must_log": must}) as server:
        assert server.process is not None
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_FSIZE, (100, psutil.RLIM_INFINITY))
        answers = [server.predict(row(n)).status for n in range(3)]
        told = server.get("/metrics").body.decode()
    assert answers == [503 if must == "true" else 200] * 3
    assert ('mulle_unlogged_total{model="trip"} 3.0' in told) == (must == "false")
