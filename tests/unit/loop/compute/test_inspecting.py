"""What a run tells of its winner: which features its answers rest on, how they follow them, and what more rows would give."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit.loop.compute.working import through_json, working

from mulle.core.records.base import Json, from_json
from mulle.core.records.evaluation import Evaluation
from mulle.loop.compute import inspecting
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.work import Work, build_features

NOW = datetime(2013, 3, 1, tzinfo=UTC)
PROJECT = """
import polars as pl
import mulle as ml

trips = ml.Dataset("trips", ml.Files("t.csv"), key="trip", outcome=["minutes", "late"])

@ml.features(trips)
def trip_features(rows):
    return rows.select("distance", "place", "noise", "remark")

@ml.features(trips)
def wide_features(rows):
    return rows.select("distance", "place", *((pl.col("noise") + i).sin().alias(f"n{i}") for i in range(2_000)))

minutes = ml.Model("minutes", features=trip_features, target="minutes", task="regression")
late = ml.Model("late", features=trip_features, target="late", task="multiclass")
wide = ml.Model("wide", features=wide_features, target="minutes", task="regression")
"""
FOREST: Json = {"candidate": "lightgbm", "params": {"n_estimators": 40}}


def made_work(folder: Path, model: str = "minutes", n: int = 1_200) -> Work:
    dice = np.random.default_rng(1)
    place, distance = dice.choice(["near", "far"], n), dice.uniform(0, 10, n)
    minutes = 2 * distance + 30 * (place == "far") + dice.normal(0, 1, n)
    said = [f"the gate {i % 5} was closed {'late' if i % 2 else 'early'} today {i}" for i in range(n)]
    trips = pl.DataFrame(
        {
            "trip": [f"T{i:04}" for i in range(n)], "distance": distance, "place": place, "noise": dice.normal(size=n),
            "remark": said, "minutes": minutes, "late": np.array(["a", "b", "c"])[np.digitize(minutes, [10, 30])],
        }
    )  # fmt: skip
    work = working(folder, PROJECT, {"trips": trips}, model, NOW)
    build_features(work)
    return work


def test_importance_dependence_and_curve_say_what_the_rows_were_made_of(tmp_path: Path) -> None:
    work = made_work(tmp_path)
    evaluation = through_json(evaluate_model(work, FOREST))
    found = from_json(Evaluation, {**evaluation, "slices": {}}).inspection
    assert found is not None
    assert (found.metric, found.rows, found.notes) == ("mae", 240, ())
    by = {i.column: i for i in found.importance}
    assert [i.column for i in found.importance][:2] == ["place", "distance"]
    assert by["place"].low > 10
    assert by["noise"].low < 1
    (place,) = [d for d in found.dependence if d.column == "place"]
    far, near = place.answers["minutes"]
    assert (place.kind, place.at, round(far - near, -1)) == ("category", ("far", "near"), 30)
    assert "remark" not in {d.column for d in found.dependence}
    (distance,) = [d for d in found.dependence if d.column == "distance"]
    answers = distance.answers["minutes"]
    assert answers[-1] - answers[0] == pytest.approx(18, abs=3)
    assert [p.rows for p in found.curve] == [120, 240, 480, 960]
    assert found.curve[0].holdout > found.curve[-1].holdout > found.curve[-1].train
    assert found.curve[-1].holdout == pytest.approx(evaluation["metrics"]["mae"])
    assert found.curve[-1].low < evaluation["metrics"]["mae"] < found.curve[-1].high


def test_the_card_shows_it_and_two_runs_tell_the_same(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        work = made_work(tmp_path / name)
        evaluation = through_json(evaluate_model(work, FOREST))
        bundle = bundle_model(work, FOREST, evaluation["metrics"], work.project.folder)
        card = (Path(bundle["address"]) / "card.md").read_text()
        hashes.append(card)
    assert hashes[0] == hashes[1]
    for section in ("## What the answers rest on", "## How the answers follow a feature", "## Learning curve"):
        assert section in card
    line = next(line for line in card.splitlines() if line.startswith("| `place` |"))
    assert "████" in line
    assert "generalisation gap" in card


def test_of_classes_each_has_a_line(tmp_path: Path) -> None:
    evaluation = evaluate_model(made_work(tmp_path, "late"), FOREST)
    first = evaluation["inspection"]["dependence"][0]
    assert set(first["answers"]) == {"a", "b", "c"}
    assert np.sum([*first["answers"].values()], axis=0) == pytest.approx(np.ones(len(first["at"])))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return made_work(tmp_path_factory.mktemp("wide"), "wide", 600)


@pytest.mark.parametrize("seconds", [inspecting.SECONDS, 0.0], ids=["in_its_time", "on_a_machine_too_slow_for_any"])
def test_two_thousand_features_are_looked_through_within_its_seconds(
    wide: Work, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(inspecting, "SECONDS", seconds)
    began = time.process_time()
    evaluation = evaluate_model(wide, {"candidate": "lightgbm", "params": {"n_estimators": 5}})
    found = evaluation["inspection"]
    assert [i["column"] for i in found["importance"]][:2] == ["place", "distance"]
    assert len(found["importance"]) <= 40
    assert "of 2002 features those" in found["notes"][0]
    assert seconds or "the time for it was up" in " ".join(found["notes"])
    assert time.process_time() - began < 60


def test_without_any_time_each_features_importance_is_a_rough_one_and_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "SECONDS", 0.0)
    found = evaluate_model(made_work(tmp_path), FOREST)["inspection"]
    assert [i["column"] for i in found["importance"]][:2] == ["place", "distance"]
    assert found["importance"][0]["low"] > 10
    assert found["notes"][0].startswith("importance of place, distance, ")
    assert found["notes"][0].endswith(" was measured on 200 rows, shuffled once: the time for it was up")


class Hours:
    """A clock that only work moves on: as many seconds as rows were answered."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        patch.setattr(inspecting, "time", self)
        for name in ("said", "answers"):
            patch.setattr(inspecting, name, self.counted(getattr(inspecting, name)))

    def thread_time(self) -> float:
        return self.now

    monotonic = thread_time

    def counted(self, answer: Callable[..., object]) -> Callable[..., object]:
        def answered(fitted: object, matrix: np.ndarray, *more: object) -> object:
            self.now += len(matrix)
            return answer(fitted, matrix, *more)

        return answered


def test_a_look_at_the_winner_takes_a_share_of_the_run_and_the_card_says_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "SECONDS", 1e9)
    work, hours = made_work(tmp_path, n=3_000), Hours(monkeypatch)
    spent = 40_000.0
    evaluation = evaluate_model(work, FOREST, spent=spent)
    assert 0.10 < hours.now / spent < 0.25  # 0.15 and what a piece of work goes beyond it
    notes = evaluation["inspection"]["notes"]
    assert "learning curve: the time for it was up" in notes
    assert evaluation["inspection"]["curve"] == []
    bundle = bundle_model(work, FOREST, evaluation["metrics"], work.project.folder)
    assert "the time for it was up." in (Path(bundle["address"]) / "card.md").read_text()
    more = evaluate_model(work, FOREST, spent=100 * spent)["inspection"]
    assert (more["notes"], len(more["curve"])) == ([], 4), "a longer run may look longer"


def test_a_run_may_leave_it_out(tmp_path: Path) -> None:
    work = made_work(tmp_path)
    evaluation = evaluate_model(replace(work, options={"inspect": False}), FOREST)
    assert evaluation["inspection"] is None
    bundle = bundle_model(work, FOREST, evaluation["metrics"], work.project.folder)
    assert "Learning curve" not in (Path(bundle["address"]) / "card.md").read_text()
