"""The search of a run: what is declared is done, what cannot be is refused first, and refit follows what was chosen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mulle.adapters.compute.local import LocalCompute
from mulle.adapters.lake.delta import DeltaLake
from mulle.core.errors import DataError, MulleError, UsageError
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.dtypes import schema_text
from mulle.kernel.encode import encode
from mulle.kernel.project import load_project
from mulle.lifecycle.training.fit import fit
from mulle.loop.compute.fitting import end_refit, fit_on, kept_specs, split, target_of
from mulle.loop.compute.searching import search_model
from mulle.loop.compute.work import Work, build_features, read_features, read_rows

PROJECT = """
import polars as pl
from sklearn.linear_model import HuberRegressor
from mulle.core.declare.candidates import custom
from mulle.core.declare.ranges import floats
import mulle as ml


def huber(**params):
    return HuberRegressor(**params)


trips = ml.Dataset("trips", ml.Files("t.csv"), key="trip", time="at", outcome=["minutes", "late"])

@ml.features(trips)
def trip_features(rows):
    return rows.select(FEATURES)

model = ml.Model("minutes", features=trip_features, target="minutes", task="regression", MORE)
"""
FEATURES = '"distance", "noise", "station"'
SEARCH = "split=ml.holdout('5d'), search=ml.Search([ml.ridge(), ml.lightgbm(n_estimators=20)], trials=4)"
NOW = datetime(2013, 3, 1, tzinfo=UTC)


def trips(n: int = 600) -> pl.DataFrame:
    """Rows of 30 days; what distance means turned round eighteen days ago, and the station s9 opened in the last five."""
    dice = np.random.default_rng(1)
    frame = pl.DataFrame(
        {
            "trip": [f"T{i}" for i in range(n)],
            "at": [NOW - timedelta(hours=720 * (n - i) / n) for i in range(n)],
            "driver": [f"D{i % 30}" for i in range(n)],
            "station": [["s1", "s2", "s9" if i > n * 0.9 else "s3"][d] for i, d in enumerate(dice.integers(0, 3, n))],
            "distance": dice.uniform(1, 50, n),
            "noise": dice.normal(size=n),
            "nothing": pl.Series([None] * n, dtype=pl.Float64),
            "wild": np.where(np.arange(n) % 100 == 0, np.inf, dice.normal(size=n)),
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    turned = np.where(np.arange(n) < n * 0.4, -1.0, 1.0)
    return frame.with_columns(
        pl.Series("minutes", 100 + turned * frame["distance"].to_numpy() + dice.normal(0, 1, n)),
        pl.Series("late", ["yes" if d > 0 else "no" for d in dice.normal(size=n)]),
    )


def made(folder: Path, more: str = SEARCH, features: str = FEATURES, rows: pl.DataFrame | None = None) -> Work:
    code = folder / "code"
    code.mkdir(parents=True)
    (code / "project.py").write_text(PROJECT.replace("FEATURES", features).replace("MORE", more))
    rows = trips() if rows is None else rows
    lake = DeltaLake(str(folder / "lake"))
    marked = rows.with_columns(
        pl.lit(NOW).dt.cast_time_unit("us").alias("_ingested_at"),
        pl.lit("b1").alias("_batch"),
        pl.lit(1, dtype=pl.Int32).alias("_version"),
        pl.lit(False).alias("_live"),
    )
    version = DatasetVersion(
        id="trips", created_at=NOW, dataset="trips", version=1, rows=rows.height, added=rows.height, hash="trips",
        schema=schema_text(rows), table="data/trips", lake_version=lake.append("data/trips", marked, application="t", sequence=1),
    )  # fmt: skip
    project = load_project(code)
    scratch = folder / "home" / "runs" / "R1"
    scratch.mkdir(parents=True)
    work = Work(
        run=str(folder), seed=0, cutoff=NOW, options={}, home=folder / "home", folder=scratch, lake=lake, project=project,
        model=project.model("minutes"), versions={"trips": version},
    )  # fmt: skip
    build_features(work)
    return work


def searched(work: Work, **more: object) -> Json:
    return dict(json.loads(json.dumps(search_model(work, None, [], **more))))  # type: ignore[arg-type]


def test_the_plain_search_says_what_it_said_before(tmp_path: Path) -> None:
    found = searched(made(tmp_path))
    assert set(found) == {"trials", "settings", "notes", "importance"}
    assert set(found["settings"]) == {"candidate", "params"}
    assert found["notes"] == []
    assert {"number", "candidate", "params", "score", "state", "reason", "seconds"} < set(found["trials"][0])


def test_the_window_that_is_chosen_is_what_the_refit_is_fitted_on(tmp_path: Path) -> None:
    work = made(tmp_path, SEARCH.replace("trials=4", "trials=6") + ", train_on=['all', ml.window('11d')]")
    found = searched(work)
    assert found["settings"]["train_on"] == "11d"
    fitted, specs, features, truth, time = end_refit(work, found["settings"])
    late = (time > time.max() - timedelta(days=11)).to_numpy()
    matrix = encode(features, specs)
    plain = {k: v for k, v in found["settings"].items() if k != "train_on"}
    same = fit(plain, matrix[late], truth[late], task="regression", specs=specs, seed=0)
    assert fitted.predict(matrix).tolist() == same.predict(matrix).tolist()
    assert np.abs(fitted.predict(matrix[late]) - truth[late]).mean() < 8
    train, last = split(work)
    features, target, time = read_features(work)
    before, specs = fit_on(work, found["settings"], features, target_of(work, target), time, train)
    assert np.abs(before.predict(encode(features[last], specs)) - truth[last]).mean() < 8, "as evaluation fits it"


def test_groups_are_raw_columns_whole_on_one_side_in_folds_and_in_the_holdout(tmp_path: Path) -> None:
    more = 'split=ml.holdout(0.2, by="driver"), search=ml.Search([ml.ridge()], trials=3, validation=ml.groups("driver", folds=3))'
    work = made(tmp_path, more)
    train, last = split(work)
    drivers = read_rows(work)["driver"]
    assert not set(drivers.gather(train)) & set(drivers.gather(last))
    assert [len(t["folds"]) for t in searched(work)["trials"]] == [3, 3, 3]
    unknown = made(tmp_path / "unknown", more.replace('groups("driver"', 'groups("rider"'))
    with pytest.raises(DataError, match="no column 'rider'"):
        searched(unknown)


@pytest.mark.parametrize("kind", ["ml.expanding(3)", "ml.sliding('8d', folds=3)", "ml.stratified(3)", "ml.kfold(3)"])
def test_every_kind_of_fold_gives_a_score_a_fold(tmp_path: Path, kind: str) -> None:
    found = searched(made(tmp_path, SEARCH.replace("trials=4", f"trials=3, validation={kind}")))
    assert [len(t["folds"]) for t in found["trials"]] == [3, 3, 3]


def test_a_feature_without_a_value_is_left_out_and_told_and_infinite_values_are_missing(tmp_path: Path) -> None:
    work = made(tmp_path, features=FEATURES + ', "nothing", "wild"')
    found = searched(work)
    assert found["settings"]["dropped"] == ["nothing"]
    assert found["notes"] == [
        "left out, null on every training row: nothing",
        "wild: 5 infinite values are read as missing",
    ]
    _, specs, *_ = end_refit(work, found["settings"])
    assert [s.name for s in specs] == ["distance", "noise", "station", "wild"]
    assert kept_specs(specs, {"selection": {"kept": ["noise"]}})[0].name == "noise"


def test_a_category_that_only_the_holdout_has_is_no_surprise(tmp_path: Path) -> None:
    work = made(tmp_path)
    assert "s9" in read_rows(work)["station"][split(work)[1].tolist()].to_list()
    found = searched(work)
    assert all(t["state"] == "done" for t in found["trials"])


def _rows(**changed: pl.Expr) -> pl.DataFrame:
    return trips().with_columns(**changed)


@pytest.mark.parametrize(
    ("rows", "more", "features", "said"),
    [
        (_rows(minutes=pl.lit(7.0)), SEARCH, FEATURES, "the target is 7 on every row"),
        (trips(3), SEARCH.replace("'5d'", "0.2"), FEATURES, "3 rows with a known outcome are too few"),
        (_rows(copy=pl.col("minutes")), SEARCH, FEATURES + ', "copy"', "the feature 'copy' is the target itself"),
        (_rows(copy=-pl.col("minutes").log()), SEARCH, FEATURES + ', "copy"', "the feature 'copy' is the target itself"),
        (trips(), SEARCH, '"nothing"', "every feature is null"),
        (trips(), SEARCH + ", gates=[ml.at_most('auc', 1)]", FEATURES, "metric 'auc' does not fit the task regression"),
        (trips(), SEARCH + ", gates=[ml.each_slice('station', ml.at_most('f1', 1))]", FEATURES, "metric 'f1' does not fit"),
        (_rows(minutes=pl.when(pl.col("noise") > 2).then(np.inf).otherwise("minutes")), SEARCH, FEATURES, "infinite"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_trial(
    tmp_path: Path, rows: pl.DataFrame, more: str, features: str, said: str
) -> None:
    with pytest.raises((DataError, UsageError), match=said) as caught:
        searched(made(tmp_path, more, features, rows))
    assert isinstance(caught.value, MulleError)
    assert caught.value.next


def test_a_time_column_out_of_order_changes_nothing(tmp_path: Path) -> None:
    found = searched(made(tmp_path / "a"))
    mixed = searched(made(tmp_path / "b", rows=trips().sample(fraction=1.0, shuffle=True, seed=3)))
    assert [t["score"] for t in found["trials"]] == [t["score"] for t in mixed["trials"]]


def test_trials_run_in_workers_when_they_are_declared_so(tmp_path: Path) -> None:
    more = SEARCH.replace("trials=4", "trials=5, parallel=2, memory='2GB', ensemble=3, prune=True")
    work = made(tmp_path, more.replace("[ml.ridge()", "[custom(huber, {'epsilon': floats(1.1, 2.0)}), ml.ridge()"))
    (work.folder / "search-killed").mkdir()
    asked: list[int] = []

    def workers(processes: int) -> LocalCompute:
        asked.append(processes)
        return LocalCompute(processes)

    found = searched(work, workers=workers)
    assert asked == [2]
    assert [t["state"] for t in found["trials"]] == ["done"] * 5
    assert "custom:huber" in {t["candidate"] for t in found["trials"]}, "a candidate of the project's own, in another process"
    assert "ensemble" in found["notes"][-1]
    assert not list(work.folder.glob("search-*"))
