"""Bad input through a whole run: a clear error before any training, or a recorded failed trial; never a crash of the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from commands import Ended, command

from mulle.bootstrap.parts import wire
from mulle.core.records.base import Cause
from mulle.core.settings import load_settings
from mulle.loop.operate import start_run
from mulle.loop.runner import open_engine
from mulle.loop.views.chain import run_view

WHY = (Cause(type="person", id="ada", why="asked"),)

HEAD = """
import os
import signal

import polars as pl
from sklearn.linear_model import LinearRegression
import mulle as ml


class Deadly(LinearRegression):
    def fit(self, X, y):
        os.kill(os.getpid(), signal.SIGSEGV)
"""
MODEL = """

{name} = ml.Dataset("{name}", ml.Files("{name}.*"), key="trip", time="at", outcome=["{target}"])


@ml.features({name})
def {name}_features(rows):
    return rows.select({features})


{name}_model = ml.Model(
    "{name}", features={name}_features, target="{target}", task="{task}", split=ml.holdout("5d"), gates=[{gate}], {more}
    search=ml.Search([ml.{linear}, ml.lightgbm(n_estimators=5)], trials=3, timeout="10m"),
)
"""
END = datetime(2013, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """Rows, what is declared of them, and what a run of them must say."""

    said: str
    rows: pl.DataFrame | str
    features: str = '"distance", "noise", "station"'
    target: str = "minutes"
    task: str = "regression"
    gate: str = "ml.parity()"
    linear: str = "ridge()"
    more: str = ""


def trips(n: int = 300, **changed: Any) -> pl.DataFrame:
    """Rows of thirty days."""
    dice = np.random.default_rng(1)
    distance = dice.uniform(1, 50, n)
    rows = pl.DataFrame(
        {
            "trip": [f"T{i}" for i in range(n)],
            "at": pl.Series([END - timedelta(hours=720 * (n - i) / n) for i in range(n)], dtype=pl.Datetime("us", "UTC")),
            "station": [["s1", "s2", "s3"][d] for d in dice.integers(0, 3, n)],
            "distance": distance,
            "noise": dice.normal(size=n),
            "minutes": 10 + 2 * distance + dice.normal(size=n),
        }
    )
    return rows.with_columns(**changed)


NULL = pl.lit(None, dtype=pl.Float64)
TWICE = "trip,at,station,distance,distance,minutes\n" + "".join(
    f"T{i},2013-02-{i % 27 + 1:02}T00:00:00Z,s1,{i},{i * 2},{i % 7}\n" for i in range(100)
)
COPY = '"distance", "noise", "copy"'
ITSELF = "the feature 'copy' is the target itself"
LATE = {"target": "late", "task": "binary", "linear": "logistic()"}
late = pl.col("minutes") > 60

REFUSED = {
    "constant": Case("the target is 7 on every row", trips(minutes=pl.lit(7.0))),
    "one_class": Case("the target is 'no' on every row: one class", trips(late=pl.lit("no")), **LATE),
    "three_classes": Case("a binary task has 3 classes", trips(late="station"), **LATE | {"features": '"distance"'}),
    "no_outcome": Case("no row's 'minutes' was known", trips(minutes=NULL)),
    "no_value": Case("every feature is null on every row", trips(distance=NULL), features='"distance"'),
    "endless": Case(
        "targets are missing or infinite", trips(minutes=pl.when(pl.col("noise") > 2).then(np.inf).otherwise("minutes"))
    ),
    "three_rows": Case("3 rows with a known outcome are too few to train on", trips(3)),
    "column_twice": Case("'distance'", TWICE, features='"distance"'),
    "feature_twice": Case("distance", trips(), features='"distance", pl.col("noise").alias("distance")'),
    "target": Case('unable to find column "minutes"', trips(), features='"distance", "minutes"'),
    "outcome": Case("the feature function reads 'minutes', which no request carries", trips(), features='"distance", "minutes"'),
    "copied": Case(ITSELF, trips(copy="minutes"), features=COPY),
    "scaled": Case(ITSELF, trips(copy=pl.col("minutes") * 2 + 1), features=COPY),
    "bent": Case(ITSELF, trips(copy=-pl.col("minutes").log()), features=COPY),
    "as_text": Case(ITSELF, trips(copy=pl.col("minutes").cast(pl.String)), features=COPY),
    "word": Case(ITSELF, trips(late=late, copy=pl.when(late).then(pl.lit("x")).otherwise(pl.lit("y"))), features=COPY, **LATE),
    "metric": Case("metric 'auc' does not fit the task regression", trips(), gate="ml.at_least('auc', 0.5)"),
    "slices": Case("metric 'f1' does not fit", trips(), gate="ml.each_slice('station', ml.at_least('f1', 1))"),
    "gap": Case("metric 'f1' does not fit", trips(), gate="ml.generalisation_gap('f1', most=1)"),
    "fair": Case("metric 'auc' does not fit", trips(), gate="ml.fairness('station', 'auc', most=1)"),
    "watched": Case("metric 'auc' does not fit", trips(), more="monitor=ml.Monitor(performance=ml.at_least('auc', 1)),"),
    "same_name": Case(
        "two metrics called 'mae'", trips(), gate="ml.at_most(ml.metric(lambda t, p: 0.0, lower_is_better=True, name='mae'), 1)"
    ),
}
LIVED_WITH = {
    "empty_column": Case(
        "left out, null on every training row: nothing", trips(nothing=NULL), features='"distance", "station", "nothing"'
    ),
    "infinite": Case("infinite values", trips(noise=pl.when(pl.col("noise") > 2).then(np.inf).otherwise("noise"))),
    "holdout_only": Case("", trips(station=pl.when(pl.int_range(300) > 270).then(pl.lit("s9")).otherwise("station"))),
    "out_of_order": Case("", trips().sample(fraction=1.0, shuffle=True, seed=3)),
}
CASES = REFUSED | LIVED_WITH | {"deadly": Case("", trips(), linear="custom(Deadly)")}

Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    source = HEAD
    for name, case in CASES.items():
        words = {w: getattr(case, w) for w in ("features", "target", "task", "gate", "linear", "more")}
        source += MODEL.format(name=name, **words)
        if isinstance(case.rows, str):
            (folder / f"{name}.csv").write_text(case.rows)
        else:
            case.rows.write_parquet(folder / f"{name}.parquet")
    (folder / "project.py").write_text(source)
    return folder


@pytest.fixture(scope="module")
def commanded(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """What `mulle run` says of a model that is refused."""
    return command(project, "run", "scaled", "--json", "--home", str(tmp_path_factory.mktemp("commanded") / "home"))


@pytest.fixture(scope="module")
def run(project: Path, commanded: Ended) -> Iterator[Run]:
    """Give what runs a model to its end, on one engine, as `mulle run` does; after the command's, for a process has one."""
    parts = wire(load_settings({"project": project}, {}))

    with open_engine(parts) as engine:

        def once(model: str) -> dict[str, Any]:
            made = start_run(parts, model, causes=WHY)
            engine.submit(made.id)
            engine.wait(made.id, 300)
            return run_view(parts, made.id)

        yield once


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_honest_model_comes_from_is_refused_before_any_trial(run: Run, name: str) -> None:
    view = run(name)
    assert view["state"] == "failed"
    assert CASES[name].said in view["reason"]
    assert view["trials"] == []


@pytest.mark.parametrize("name", LIVED_WITH)
def test_what_an_honest_model_can_live_with_is_told_and_the_run_succeeds(run: Run, name: str) -> None:
    view = run(name)
    assert view["state"] == "succeeded", view["reason"]
    assert any(CASES[name].said in note for note in [*view["notes"], ""])
    assert all(t["state"] == "done" for t in view["trials"])


def test_a_candidate_that_takes_its_process_down_is_a_failed_trial_of_a_run_that_succeeds(run: Run) -> None:
    view = run("deadly")
    assert view["state"] == "succeeded", view["reason"]
    told = {(t["candidate"], t["state"], t["failure"]) for t in view["trials"]}
    assert ("custom:Deadly", "failed", "crash") in told
    assert ("lightgbm", "done", "") in told


def test_the_command_ends_with_the_reason_and_exit_code_1(commanded: Ended) -> None:
    assert commanded.returncode == 1
    told = json.loads(commanded.stdout)
    assert ITSELF in told["reason"]
    assert told["next"], "what to do about it is said too"
