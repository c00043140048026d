"""The compute of a run, from published rows to a bundle: which features it keeps, and that everything follows them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.unit.loop.compute.working import through_json, working

from mulle.core.declare.gates import no_worse_than_champion
from mulle.core.declare.model import Model
from mulle.core.records.base import Json, to_json
from mulle.core.records.model import ModelVersion
from mulle.kernel.bundle import Predictor
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.judging import judge_model
from mulle.loop.compute.searching import search_model
from mulle.loop.compute.work import Work, build_features, read_rows

PROJECT = """
import polars as pl
import mulle as ml

stations = ml.Dataset("stations", ml.Files("s.csv"), key="station")
trips = ml.Dataset("trips", ml.Files("t.csv"), key="trip", time="at", outcome="minutes")

@ml.features(trips, place=ml.lookup(stations, on="station"))
def trip_features(rows):
    return rows.select(
        "distance", "station", hill=pl.col("place.hill"), hour=pl.col("at").dt.hour(),
        dull=pl.col("noise"), flat=pl.lit(1.0) + 0 * pl.col("noise"),
    )

model = ml.Model(
    "minutes", features=trip_features, target="minutes", task="regression", split=ml.holdout("5d"),
    search=ml.Search([ml.ridge(), ml.lightgbm(n_estimators=20)], trials=3), gates=[ml.parity(1e-4)], SELECT
)
"""
NOW = datetime(2013, 3, 1, tzinfo=UTC)


def made_work(folder: Path, select: str = "select=ml.select(top=2)", *, seed: int = 0) -> Work:
    """Publish rows of 30 days and give what a run's tasks work with."""
    dice = np.random.default_rng(1)
    n = 600
    hills = {"s1": 0.0, "s2": 40.0, "s3": 80.0}
    station = [list(hills)[i] for i in dice.integers(0, 3, n)]
    trips = pl.DataFrame(
        {
            "trip": [f"T{i}" for i in range(n)],
            "at": [NOW - timedelta(hours=720 * (n - i) / n) for i in range(n)],
            "station": station,
            "distance": dice.uniform(1, 50, n),
            "noise": dice.normal(size=n),
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    minutes = 2 * trips["distance"].to_numpy() + [hills[s] for s in station] + dice.normal(0, 1, n)
    # In the holdout the hour tells all and the hill nothing: a selection that looked there would be another one.
    late = (trips["at"] > trips["at"].max() - timedelta(days=5)).to_numpy()
    minutes = np.where(late, 500.0 * trips["at"].dt.hour().to_numpy(), minutes)
    tables = {
        "trips": trips.with_columns(pl.Series("minutes", minutes)),
        "stations": pl.DataFrame({"station": list(hills), "hill": list(hills.values())}),
    }
    return working(folder, PROJECT.replace("SELECT", select), tables, "minutes", NOW, seed=seed)


def ran(work: Work) -> tuple[Json, Json, Json]:
    build_features(work)
    found = through_json(search_model(work, None, []))
    evaluation = through_json(evaluate_model(work, found["settings"]))
    bundle = through_json(bundle_model(work, found["settings"], evaluation["metrics"], work.project.folder))
    return found, evaluation, bundle


def test_selected_features_are_what_is_searched_evaluated_bundled_proved_and_watched(tmp_path: Path) -> None:
    work = made_work(tmp_path)
    found, evaluation, bundle = ran(work)
    selection = found["selection"]
    assert selection["by"] == "importance"
    assert selection["kept"] == ["distance", "station"] or selection["kept"] == ["distance", "hill"]
    assert set(selection["scores"]) == {"distance", "station", "hill", "hour", "dull", "flat"}
    assert selection["scores"]["flat"] == 0
    assert bundle["features"] == selection["kept"]
    predictor = Predictor.open(Path(bundle["address"]), expected=bundle["hash"])
    contract = predictor.contract
    assert [f.name for f in contract.features] == selection["kept"]
    assert contract.settings["selection"] == selection
    asked = {f.name for f in contract.inputs if f.required}
    assert asked == {"trip", "station", "distance"}, "what nothing reads need not be sent"
    assert set(predictor.reference["features"]) == set(selection["kept"]), "monitoring watches what the model takes"
    assert contract.parity is not None
    assert contract.parity.outside == 0
    joined = read_rows(work).drop(work.hidden_columns)
    table = predictor.transform(joined)
    assert set(table.columns) == set(selection["scores"]), "the user's function runs whole"
    assert len(predictor.score(table.select(selection["kept"])).values) == joined.height
    assert "Features kept: 2 of 6, by importance" in (Path(bundle["address"]) / "card.md").read_text()
    judged = judge_model(work, None, evaluation, bundle, replay=False)
    assert judged["accepted"]


def test_the_holdout_has_no_say_in_what_is_kept(tmp_path: Path) -> None:
    work = made_work(tmp_path)
    build_features(work)
    scores = search_model(work, None, [])["selection"]["scores"]
    assert scores["hour"] < 0.05, "the hour decides the holdout and nothing before it"


@pytest.mark.parametrize("by", ["importance", "mutual_information"])
def test_two_runs_over_the_same_rows_keep_the_same_and_promise_the_same(tmp_path: Path, by: str) -> None:
    answers: list[tuple[Any, ...]] = []
    for folder in ("a", "b"):
        work = made_work(tmp_path / folder, f'select=ml.select(top=3, by="{by}")', seed=5)
        found, _, bundle = ran(work)
        told = [(Path(bundle["address"]) / name).read_text() for name in ("bundle.json", "sample.json", "reference.json")]
        answers.append((found["selection"], found["settings"], told))
    assert answers[0] == answers[1]


def test_a_model_that_selects_nothing_keeps_all_and_its_settings_are_as_before(tmp_path: Path) -> None:
    work = made_work(tmp_path, "")
    found, _, bundle = ran(work)
    assert "selection" not in found
    assert set(found["settings"]) == {"candidate", "params"}
    assert bundle["features"] == ["distance", "station", "hill", "hour", "dull", "flat"]
    assert Predictor.open(Path(bundle["address"]), expected=bundle["hash"]).reference["calendar"] == ["hour"]


def test_a_challenger_with_other_features_is_compared_with_its_champion(tmp_path: Path) -> None:
    work = made_work(tmp_path / "a", "")
    _, _, bundle = ran(work)
    champion = ModelVersion(
        id="v1", created_at=NOW, causes=(), model="minutes", version=1, run="R0", bundle=bundle["hash"],
        address=bundle["address"], compiled=bundle["compiled"], parity=None, metrics={}, size_bytes=1,
        features=tuple(bundle["features"]), data={"trips": 1}, data_cutoff=NOW - timedelta(days=5),
        refit_cutoff=NOW - timedelta(days=5),
    )  # fmt: skip
    other = replace(made_work(tmp_path / "b"), versions=work.versions, lake=work.lake)
    _, evaluation, made = ran(other)
    gates = (no_worse_than_champion("mae"),)
    other = replace(
        other, model=Model("minutes", features=other.model.features, target="minutes", task="regression", gates=gates)
    )
    (gate,) = judge_model(other, to_json(champion), evaluation, made, replay=False)["gates"]
    assert gate["rows"] > 50, "both answer the rows that neither has seen, each with features of its own"
