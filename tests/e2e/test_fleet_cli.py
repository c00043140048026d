"""Two versions of one member by commands alone: trained, compared, moved forth and back, while the others stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from commands import command
from tests.fleet_rows import sold

import mulle as ml

PROJECT = """import mulle as ml
sales = ml.Dataset("sales", ml.Files("sales*.parquet"), key="id", time="day", outcome="units")
@ml.features(sales)
def shape(rows):
    return rows.select("price")
demand = ml.Model(
    "demand", features=shape, target="units", task="regression", split=ml.holdout("20d"), each="store",
    search=ml.Search([ml.dummy(), ml.ridge()], trials=2), rollout=ml.immediate(),
    gates=[ml.no_worse_than_champion("mae", min_rows=10), ml.parity(1e-4)],
)
"""
Run = Callable[..., str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "project.py").write_text(PROJECT)
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(days=130)

    def run(*arguments: str, wanted: int = 0) -> str:
        done = command(folder, *arguments)
        assert done.returncode == wanted, f"{arguments}: {done}"
        return done.stdout if wanted == 0 else done.stderr

    pl.concat([sold("a", 8.0, first, 100), sold("b", 1.0, first, 100)]).write_parquet(folder / "sales1.parquet")
    run("run", "demand")
    # Store a sells otherwise since; its member alone is trained again.
    sold("a", 12.0, first + timedelta(days=100), 29).write_parquet(folder / "sales2.parquet")
    run("run", "demand/a")
    return run, folder


def said(folder: Path, name: str) -> float:
    return float(ml.project(folder).load(name).predict(pl.DataFrame({"id": ["n"], "store": ["a"], "price": [10.0]}))["value"][0])


def champion(run: Run, model: str) -> int:
    (deployed,) = [v for v in json.loads(run("models", "ls", model, "--json"))["items"] if "champion" in v["aliases"]]
    return int(deployed["version"])


def test_a_member_has_two_versions_the_last_in_force_and_the_other_member_one(lab: tuple[Run, Path]) -> None:
    run, folder = lab
    versions = json.loads(run("models", "ls", "demand/a", "--json"))["items"]
    assert [v["version"] for v in versions] == [2, 1]
    assert [v["version"] for v in json.loads(run("models", "ls", "demand/b", "--json"))["items"]] == [1]
    assert champion(run, "demand/a") == 2
    assert said(folder, "demand/a@1") == pytest.approx(80, abs=2)
    assert said(folder, "demand/a@2") > 83


def test_its_versions_are_compared(lab: tuple[Run, Path]) -> None:
    run, _ = lab
    view = json.loads(run("models", "compare", "demand/a@1", "demand/a@2", "--json"))
    assert [(v["model"], v["version"]) for v in view["items"]] == [("demand/a", 1), ("demand/a", 2)]
    told = run("models", "compare", "demand/a@1", "demand/a@2")
    assert "mae" in told
    assert "demand/a@2" in told


def test_it_is_rolled_back_and_deployed_again_by_itself(lab: tuple[Run, Path]) -> None:
    run, folder = lab
    run("rollback", "demand/a")
    assert champion(run, "demand/a") == 1
    assert said(folder, "demand/a") == pytest.approx(80, abs=2)
    run("deploy", "demand/a@2")
    assert champion(run, "demand/a") == 2
    actions = [d["action"] for d in json.loads(run("history", "demand/a", "--json"))["items"]]
    assert sorted(actions) == ["deploy", "deploy", "deploy", "rollback"]
    assert champion(run, "demand/b") == 1
    assert "no version '3' of demand/a" in run("deploy", "demand/a@3", wanted=2)
