"""One run with every gate there is: each gets its measurement, its verdict and its words, and the card tells the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.unit.loop.compute.working import through_json, working

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.declare import gates as declared
from mulle.core.declare.gates import EachSlice
from mulle.core.records.base import Json, to_json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.kernel.dtypes import schema_text
from mulle.kernel.project import load_project
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.judging import judge_model
from mulle.loop.compute.searching import search_model
from mulle.loop.compute.work import Work, build_features

NOW = datetime(2013, 3, 1, tzinfo=UTC)

PROJECT = """
import polars as pl
import mulle as ml

loans = ml.Dataset("loans", ml.Files("l.csv"), key="loan", time="at", outcome="repaid")

@ml.features(loans)
def loan_features(rows):
    return rows.select("income", "branch", square=pl.col("income") ** 2)

def lost(truth, prediction, rows):
    return float((rows["amount"].to_numpy() * (truth != prediction)).mean())

def broken(truth, prediction):
    raise ZeroDivisionError("no money at all")

cost = ml.metric(lost, lower_is_better=True)

def better_than_chance(evidence):
    assert evidence.metrics["auc"] > 0.5, "no better than chance"

model = ml.Model(
    "repaid", features=loan_features, target="repaid", task="binary", split=ml.holdout("15d"),
    search=ml.Search([ml.logistic()], trials=1),
    gates=[
        ml.at_most("log_loss", 0.9), ml.at_least("auc", 0.6), ml.at_most(cost, 40),
        ml.at_most(ml.metric(broken, lower_is_better=True), 1),
        ml.no_worse_than_champion("log_loss"), ml.no_worse_than_champion(cost, margin=0.1, proven=True),
        ml.each_slice("branch", ml.at_most(cost, 1)), ml.each_slice("branch", ml.at_least("accuracy", 0.3)),
        ml.generalisation_gap("log_loss", most=0.5), ml.calibration(most=0.5, bins=5),
        ml.fairness("branch", "accuracy", most=0.05), ml.fairness("sex", cost, most=1e9),
        ml.parity(1e-4), ml.p50("1s"), ml.p99("2s"), ml.throughput(10), ml.peak_memory("4GB"),
        ml.bundle_size("10MB"), ml.bad_input(), ml.satisfies(better_than_chance),
        ml.satisfies(lambda evidence: len(evidence.weak_slices) == 0, name="no weak slice"),
    ],
)
"""


def made_work(folder: Path) -> Work:
    """Publish loans of 60 days; in the branch `south` nobody knows who repays."""
    dice, n = np.random.default_rng(1), 2_000
    income, branch = dice.normal(size=n), dice.choice(["north", "east", "south"], n)
    known = np.where(branch == "south", dice.random(n) < 0.5, income + dice.normal(0, 0.3, n) > 0)
    rows = pl.DataFrame(
        {
            "loan": [f"L{i}" for i in range(n)],
            "at": [NOW - timedelta(hours=1440 * (n - i) / n) for i in range(n)],
            "income": income,
            "branch": branch,
            "sex": dice.choice(["f", "m"], n),
            "amount": dice.uniform(10, 100, n),
            "repaid": np.where(known, "yes", "no"),
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    return working(folder, PROJECT, {"loans": rows}, "repaid", NOW)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Json, Json]:
    work = made_work(tmp_path_factory.mktemp("every-gate"))
    build_features(work)
    settings = through_json(search_model(work, None, []))["settings"]
    evaluation = through_json(evaluate_model(work, settings))
    return work, evaluation, through_json(bundle_model(work, settings, evaluation["metrics"], work.project.folder))


def judged(run: tuple[Work, Json, Json], champion: Json | None = None, *, replay: bool = False) -> dict[str, Any]:
    return {g["gate"]: g for g in through_json(judge_model(run[0], champion, run[1], run[2], replay))["gates"]}


def test_every_kind_of_gate_is_in_this_run(run: tuple[Work, Json, Json]) -> None:
    asked = {type(g) for g in run[0].model.gates} | {type(g.gate) for g in run[0].model.gates if isinstance(g, EachSlice)}
    assert asked == set(declared.Gate.__args__)


def test_every_verdict_is_told_with_value_bound_rows_and_reason(run: tuple[Work, Json, Json]) -> None:
    found = judged(run)
    assert len(found) == len(run[0].model.gates), "two gates share a name, and the second would not be recorded"
    verdicts = {name: g["verdict"] for name, g in found.items()}
    no = {name for name, verdict in verdicts.items() if verdict != "pass"}
    assert no == {
        "at_most(broken, 1)",
        "each_slice(branch, at_most(lost, 1))",
        "fairness(branch, accuracy, 0.05)",
        "satisfies(no weak slice)",
    }, json.dumps(found, indent=1)
    assert found["at_most(broken, 1)"]["verdict"] == "not_enough_evidence"
    assert "ZeroDivisionError: no money at all" in found["at_most(broken, 1)"]["reason"]
    holdout = run[1]["rows"]
    for name, gate in found.items():
        assert gate["reason"]
        if "satisfies" not in name and "broken" not in name:
            assert gate["value"] is not None, name
        if gate["metric"] not in {"bundle_bytes"} and "champion" not in name and "broken" not in name:
            assert gate["rows"] > 0, name
    bound = found["at_most(log_loss, 0.9)"]
    assert bound["rows"] == holdout
    assert bound["low"] < bound["value"] < bound["high"]
    assert found["at_most(lost, 40)"]["low"] < found["at_most(lost, 40)"]["value"]
    assert "branch south" in found["fairness(branch, accuracy, 0.05)"]["reason"]
    assert "hostile rows" in found["bad_input"]["reason"]
    assert "refused by the contract" in found["bad_input"]["reason"]


def test_a_replay_records_what_depends_on_the_machine_and_decides_by_the_rest(run: tuple[Work, Json, Json]) -> None:
    found = judged(run, replay=True)
    noted = {name for name, g in found.items() if g["verdict"] == "recorded"}
    assert noted == {"p50", "p99", "throughput", "peak_memory"}
    assert found["bundle_size"]["verdict"] == "pass"
    assert all(found[name]["value"] > 0 for name in noted)


def test_a_challenger_is_held_against_its_champion_by_the_projects_own_metric(run: tuple[Work, Json, Json]) -> None:
    work, _, bundle = run
    champion = ModelVersion(
        id="v1", created_at=NOW, causes=(), model="repaid", version=1, run="R0", bundle=bundle["hash"],
        address=bundle["address"], compiled=bundle["compiled"], parity=None, metrics={}, size_bytes=1,
        features=tuple(bundle["features"]), data={"loans": 1}, data_cutoff=NOW - timedelta(days=15),
        refit_cutoff=NOW - timedelta(days=15),
    )  # fmt: skip
    found = judged(run, to_json(champion))
    cost = found["no_worse_than_champion(lost, proven)"]
    assert cost["rows"] > 300
    assert cost["verdict"] == "pass", cost["reason"]
    assert "the champion's" in cost["reason"]
    assert work.model.metric == "log_loss"


def test_the_slice_that_is_weak_is_named_without_being_asked_for(run: tuple[Work, Json, Json]) -> None:
    weak = run[1]["weak_slices"]
    assert [(s["column"], s["value"]) for s in weak][:1] == [("branch", "south")]
    assert weak[0]["low"] > 0
    assert all(s["column"] != "loan" for s in weak)


def test_the_card_tells_intervals_slices_and_calibration(run: tuple[Work, Json, Json]) -> None:
    text = (Path(run[2]["address"]) / "card.md").read_text()
    for wanted in ("| metric | value | 95% | on training rows |", "## Where it is weak", "| `branch` | south |", "## By `branch`",
                   "## Calibration", "Expected calibration error", "| lost |"):  # fmt: skip
        assert wanted in text


UNTIMED = """
import polars as pl
import mulle as ml

cells = ml.Dataset("cells", ml.Files("c.csv"), KEY outcome="size")

@ml.features(cells)
def cell_features(rows):
    return rows.select("width")

model = ml.Model(
    "size", features=cell_features, target="size", task="regression", split=ml.holdout(0.5),
    search=ml.Search([ml.ridge()], trials=1), gates=[ml.no_worse_than_champion("mae", min_rows=20)],
)
"""


@pytest.mark.parametrize("key", ['key="cell",', ""])
def test_without_time_the_champion_is_held_to_rows_that_came_after_it(tmp_path: Path, key: str) -> None:
    """It was refitted on every row there was: on those it would win by having learnt them by heart."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "project.py").write_text(UNTIMED.replace("KEY", key))
    dice, lake = np.random.default_rng(0), DeltaLake(str(tmp_path / "lake"))
    width = dice.normal(size=200)
    size = 2 * width + dice.normal(0, 0.5, 200)
    rows = pl.DataFrame({"cell": np.arange(200, dtype=np.int32), "width": width, "size": size})
    project = load_project(tmp_path / "code")
    work, champion = None, None
    for number, part in ((1, rows[:100]), (2, rows[100:])):
        marked = part.with_columns(
            pl.lit(NOW).dt.cast_time_unit("us").alias("_ingested_at"),
            pl.lit(f"b{number}").alias("_batch"),
            pl.lit(number, dtype=pl.Int32).alias("_version"),
            pl.lit(False).alias("_live"),
        )
        at = lake.append("data/cells", marked, application="t", sequence=number)
        version = DatasetVersion(
            id=f"c{number}", created_at=NOW, dataset="cells", version=number, rows=100 * number, added=100, hash=f"c{number}",
            schema=schema_text(rows), table="data/cells", lake_version=at,
        )  # fmt: skip
        scratch = tmp_path / "home" / "runs" / f"R{number}"
        scratch.mkdir(parents=True)
        work = Work(
            run=f"R{number}", seed=0, cutoff=NOW, options={}, home=tmp_path / "home", folder=scratch, lake=lake,
            project=project, model=project.model("size"), versions={"cells": version},
        )  # fmt: skip
        build_features(work)
        settings = through_json(search_model(work, None, []))["settings"]
        evaluation = through_json(evaluate_model(work, settings))
        bundle = through_json(bundle_model(work, settings, evaluation["metrics"], work.project.folder))
        if champion is None:
            champion = ModelVersion(
                id="v1", created_at=NOW, causes=(), model="size", version=1, run="R1", bundle=bundle["hash"],
                address=bundle["address"], compiled=bundle["compiled"], parity=None, metrics={}, size_bytes=1,
                features=("width",), data={"cells": 1}, data_cutoff=NOW, refit_cutoff=NOW,
            )  # fmt: skip
            again = judge_model(work, to_json(champion), evaluation, bundle, replay=False)["gates"][0]
            assert again["verdict"] == "not_enough_evidence"
            assert again["reason"] == "not enough evidence: the champion has seen all 50 rows of the holdout"
    later = judge_model(work, to_json(champion), evaluation, bundle, replay=False)["gates"][0]
    held = pl.read_parquet(work.folder / "rows.parquet")[pl.read_parquet(work.folder / "holdout.parquet")["row"].to_numpy()]
    assert later["rows"] == (held["cell"] >= 100).sum()
    assert later["verdict"] != "not_enough_evidence"
