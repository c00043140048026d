"""What a challenger and its champion are compared on: rows that came late, the champion's own log, or nothing, and said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from tests.unit.loop.compute.working import through_json, working

from mulle.core.clock import rfc3339
from mulle.core.records.base import Json, to_json
from mulle.core.records.model import ModelVersion
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.kernel.bundle import Predictor
from mulle.lifecycle.serving.rows import label_rows, prediction_rows
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.judging import judge_model
from mulle.loop.compute.searching import search_model
from mulle.loop.compute.work import Work, build_features

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GATE = "no_worse_than_champion(mae)"
PROJECT = """
import polars as pl
import mulle as ml

trips = ml.Dataset("trips", ml.Files("t.csv"), KEY time="at", known_at="told_at", outcome="minutes")

@ml.features(trips)
def trip_features(rows):
    return rows.select("distance")

model = ml.Model(
    "minutes", features=trip_features, target="minutes", task="regression", split=ml.holdout("5d"),
    search=ml.Search([ml.ridge()], trials=1), gates=[ml.no_worse_than_champion("mae", margin=0.05, min_rows=30)],
)
"""


def trips(first: datetime, n: int, name: str, *, told: timedelta = timedelta(hours=1)) -> pl.DataFrame:
    distance = np.random.default_rng(len(name) + n).uniform(1, 50, n)
    at = [first + timedelta(minutes=30 * i) for i in range(n)]
    return pl.DataFrame(
        {"trip": [f"{name}{i}" for i in range(n)], "at": at, "distance": distance, "told_at": [t + told for t in at],
         "minutes": 2 * distance + np.random.default_rng(n).normal(size=n)},
        schema_overrides={"at": pl.Datetime("us", "UTC"), "told_at": pl.Datetime("us", "UTC")},
    )  # fmt: skip


def ran(work: Work) -> tuple[Json, Json]:
    build_features(work)
    settings = through_json(search_model(work, None, []))["settings"]
    evaluation = through_json(evaluate_model(work, settings))
    return evaluation, through_json(bundle_model(work, settings, evaluation["metrics"], work.project.folder))


def championed(folder: Path, key: str = 'key="trip",') -> tuple[Work, Json]:
    """Give a run over 20 days that ended now, and its model as the champion."""
    work = working(folder, PROJECT.replace("KEY", key), {"trips": trips(NOW - timedelta(days=20), 950, "a")}, "minutes", NOW)
    _, bundle = ran(work)
    version = ModelVersion(
        id="v1", created_at=NOW, causes=(), model="minutes", version=1, run="R1", bundle=bundle["hash"],
        address=bundle["address"], compiled=bundle["compiled"], parity=None, metrics={}, size_bytes=1, features=("distance",),
        data={"trips": 1}, data_cutoff=NOW - timedelta(days=5), refit_cutoff=NOW,
    )  # fmt: skip
    return work, to_json(version)


def following(work: Work, cutoff: datetime, rows: pl.DataFrame | None = None) -> Work:
    """Give a later run, after `rows` were published as version 2."""
    folder = work.home / "runs" / f"R-{cutoff:%d-%H}"
    folder.mkdir()
    if rows is None:
        return replace(work, run=folder.name, folder=folder, cutoff=cutoff)
    marked = rows.with_columns(
        pl.lit(NOW + timedelta(minutes=5)).dt.cast_time_unit("us").alias("_ingested_at"), pl.lit("b2").alias("_batch"),
        pl.lit(2, dtype=pl.Int32).alias("_version"), pl.lit(True).alias("_live"),
    )  # fmt: skip
    at = work.lake.append("data/trips", marked, application="t", sequence=2)
    known = work.versions["trips"]
    version = replace(known, version=2, rows=known.rows + rows.height, added=rows.height, hash="trips2", lake_version=at)
    return replace(work, run=folder.name, folder=folder, cutoff=cutoff, versions={"trips": version})


def logged(work: Work, champion: Json, rows: pl.DataFrame, *, wrong: float = 0.0, named: Sequence[str] = ("trip",)) -> None:
    """Log the champion's answers to these rows, `wrong` off, and the labels that came for them."""
    predictor = Predictor.open(Path(champion["address"]))
    said = [v + wrong for v in predictor.score(predictor.transform(rows)).values]
    asked = rows.select("trip", "at", "distance").with_columns(pl.col("at").map_elements(rfc3339, pl.String)).to_dicts()
    ids = [f"p{n}" for n in range(rows.height)]
    us = [int(t.timestamp() * 1e6) for t in rows["at"]]
    batch = {
        "at": us[0], "by_row": False, "model": "minutes", "version": 1, "key": list(named), "classes": [], "id": ids,
        "request": ids, "route": ["champion"] * len(ids), "time": us, "row": asked,
        "features": {"distance": rows["distance"].to_list()}, "value": said, "probabilities": None,
        "freshness": [{}] * len(ids), "unseen": {}, "seconds": [0.001] * len(ids),
    }  # fmt: skip
    work.lake.append(PREDICTIONS, prediction_rows([orjson.dumps(batch)]), application="p", sequence=1, partition_by=["day"])
    told = [
        {"id": f"l{n}", "created_at": rfc3339(t), "model": "minutes", "prediction_id": f"p{n}", "key": {}, "time": None,
         "value": y, "reason": "", "known_at": rfc3339(t), "by": ""}
        for n, (t, y) in enumerate(zip(rows["told_at"], rows["minutes"], strict=True))
    ]  # fmt: skip
    work.lake.append(LABELS, label_rows([orjson.dumps(told)]), application="l", sequence=1, partition_by=["day"])


def verdict(work: Work, champion: Json) -> Json:
    (gate,) = judge_model(work, champion, *ran(work), replay=False)["gates"]
    assert gate["gate"] == GATE
    return dict(gate)


@pytest.mark.parametrize("key", ['key="trip",', ""])
def test_rows_loaded_late_promote_though_their_time_is_before_the_champions_cutoff(tmp_path: Path, key: str) -> None:
    work, champion = championed(tmp_path, key)
    late = trips(NOW - timedelta(days=3, minutes=7), 100, "late")
    gate = verdict(following(work, NOW + timedelta(hours=1), late), champion)
    assert (gate["verdict"], gate["rows"]) == ("pass", 100)
    assert "on 100 rows that neither has seen" in gate["reason"]


def test_rows_whose_outcome_was_told_after_the_champions_cutoff_are_new_though_it_had_them(tmp_path: Path) -> None:
    slow = trips(NOW - timedelta(days=2), 40, "slow", told=timedelta(days=3))
    work, champion = championed(tmp_path)
    rows = pl.concat([trips(NOW - timedelta(days=20), 950, "a"), slow])
    again = working(tmp_path / "slow", PROJECT.replace("KEY", 'key="trip",'), {"trips": rows}, "minutes", NOW)
    gate = verdict(following(replace(again, home=work.home), NOW + timedelta(days=2)), champion)
    assert gate["rows"] == 40
    assert gate["verdict"] == "pass"


def test_a_row_corrected_since_is_not_new(tmp_path: Path) -> None:
    work, champion = championed(tmp_path)
    seen = trips(NOW - timedelta(days=20), 950, "a").tail(200).with_columns(pl.col("minutes") + 1)
    gate = verdict(following(work, NOW + timedelta(hours=1), seen), champion)
    assert gate["verdict"] == "not_enough_evidence"
    assert "the champion has seen all" in gate["reason"]


@pytest.mark.parametrize(
    ("key", "wrong", "expected"), [('key="trip",', 9.0, "pass"), ('key="trip",', 0.0, "pass"), ("", 9.0, "pass")]
)
def test_without_new_rows_the_champions_own_log_is_the_evidence(tmp_path: Path, key: str, wrong: float, expected: str) -> None:
    work, champion = championed(tmp_path, key)
    logged(work, champion, trips(NOW + timedelta(hours=1), 60, "asked"), wrong=wrong, named=("trip",) if key else ())
    gate = verdict(following(work, NOW + timedelta(days=3)), champion)
    assert (gate["verdict"], gate["rows"]) == (expected, 60)
    assert "on 60 of the champion's logged predictions" in gate["reason"]
    # The champion's side is what it said then: nine off, it is beaten by far.
    assert (gate["bound"] > 7) == (wrong == 9.0)


def test_a_challenger_that_is_worse_on_the_champions_log_is_refused(tmp_path: Path) -> None:
    work, champion = championed(tmp_path)
    logged(work, champion, trips(NOW + timedelta(hours=1), 60, "asked"))
    drilled = replace(following(work, NOW + timedelta(days=3)), options={"drill": "shuffled_targets"})
    gate = verdict(drilled, champion)
    assert (gate["verdict"], gate["rows"]) == ("fail", 60)


def test_what_the_challenger_was_fitted_on_and_what_was_told_later_is_no_evidence(tmp_path: Path) -> None:
    work, champion = championed(tmp_path)
    asked = trips(NOW + timedelta(hours=1), 60, "asked")
    logged(work, champion, asked)
    # Fifteen of them came into the data since; of the others twenty-five have their label by the cutoff.
    gate = verdict(following(work, NOW + timedelta(hours=21, minutes=45), asked.head(15)), champion)
    assert gate["verdict"] == "not_enough_evidence"
    assert gate["reason"].endswith(
        "15 rows that neither has seen and 25 of the champion's logged predictions with a label, 30 are wanted"
    ), gate["reason"]
