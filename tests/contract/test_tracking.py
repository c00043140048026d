"""Tracking: one suite for every adapter of the port; what MLflow's own client then finds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.models import Model

import mulle as ml
from mulle.adapters.tracking.mlflow import MlflowTracking
from mulle.core.errors import NotFound, Unavailable, UsageError
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import GateResult, Run, Trial

T0 = datetime(2013, 3, 1, tzinfo=UTC)
GATE = GateResult(gate="each_slice(origin, mae<=15)", metric="mae", value=9.0, bound=15.0, verdict="pass", reason="9 <= 15")
NUMBERS = count()


def a_run(id: str, model: str = "air-time") -> Run:
    return Run(id=id, created_at=T0, causes=(), model=model, cutoff=T0, code="c0de", options={"sabotage": "shuffled_targets"})


def trials(run: str, n: int = 3) -> list[Trial]:
    done = [
        Trial(run=run, number=i, candidate="ridge", params={"alpha": 0.1 * i}, score=7.5 + i, state="complete", seconds=1.0)
        for i in range(n)
    ]
    return [
        *done,
        Trial(run=run, number=n, candidate="forest", params={}, score=None, state="failed", seconds=0.0, reason="memory"),
    ]


def a_version(id: str, run: str, number: int = 1, model: str = "air-time") -> ModelVersion:
    return ModelVersion(
        id=id, created_at=T0, causes=(), model=model, version=number, run=run, bundle="hash", address="", compiled="onnx",
        parity=None, metrics={"mae": 7.0}, size_bytes=1, features=("a",), data={"flights": 1}, data_cutoff=T0, refit_cutoff=T0,
    )  # fmt: skip


def log(tracking: MlflowTracking, run: str) -> str:
    return tracking.log_run(a_run(run), trials(run), {"mae": 7.25}, [GATE], {"mulle.state": "succeeded"})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tracking(home: Path) -> MlflowTracking:
    made = MlflowTracking(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    made.prepare()
    return made


@pytest.fixture
def client(tracking: MlflowTracking) -> MlflowClient:
    tracking.aliases("x")  # waits until the database is made
    return MlflowClient(tracking.address(), tracking.address())


@pytest.fixture
def run() -> str:
    return f"run{next(NUMBERS)}"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "transform").mkdir(parents=True)
    (folder / "bundle.json").write_text("{}")
    (folder / "transform" / "project.py").write_text("x = 1\n")
    return folder


def experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name("mulle")
    assert found is not None
    return str(found.experiment_id)


def children(client: MlflowClient, parent: str) -> list[object]:
    return list(client.search_runs([experiment(client)], f"tags.`mlflow.parentRunId` = '{parent}'"))


def test_a_run_with_its_trials_is_found_by_mlflows_own_client(tracking: MlflowTracking, client: MlflowClient, run: str) -> None:
    parent = client.get_run(log(tracking, run))
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"mae": 7.25}
    assert parent.data.params["option.sabotage"] == "shuffled_targets"
    assert parent.data.tags["mulle.run"] == run
    assert "pass: 9 <= 15" in parent.data.tags.values()
    found = sorted(children(client, parent.info.run_id), key=lambda child: child.data.tags["mulle.trial"])
    assert [child.info.status for child in found] == ["FINISHED"] * 3 + ["FAILED"]
    assert [child.data.metrics.get("score") for child in found] == [7.5, 8.5, 9.5, None]
    assert found[1].data.params == {"candidate": "ridge", "alpha": "0.1"}
    assert found[3].data.tags["mulle.reason"] == "memory"


def test_a_trial_shows_its_folds_and_why_it_failed(tracking: MlflowTracking, client: MlflowClient, run: str) -> None:
    more = [
        Trial(
            run=run, number=0, candidate="ridge", params={}, score=2.0, state="done", seconds=1.0,
            rungs=(5.0, None), train_on="180d", folds=(1.0, 3.0),
        ),
        Trial(
            run=run, number=1, candidate="svm", params={}, score=None, state="failed", seconds=9.0,
            failure="timeout", reason="it took longer than 9 s",
        ),
    ]  # fmt: skip
    parent = tracking.log_run(a_run(run), more, {}, [], {})
    good, bad = sorted(children(client, parent), key=lambda child: child.data.tags["mulle.trial"])
    assert [(m.step, m.value) for m in client.get_metric_history(good.info.run_id, "fold_score")] == [(0, 1.0), (1, 3.0)]
    assert [(m.step, m.value) for m in client.get_metric_history(good.info.run_id, "rung_score")] == [(0, 5.0)]
    assert good.data.params["train_on"] == "180d"
    assert "mulle.failure" not in good.data.tags
    assert (bad.info.status, bad.data.tags["mulle.failure"]) == ("FAILED", "timeout")
    assert bad.data.tags["mulle.reason"] == "it took longer than 9 s"


def test_a_run_names_the_data_it_read_and_carries_its_files(
    tracking: MlflowTracking, client: MlflowClient, run: str, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "source.zip").write_bytes(b"zipped")
    data = DatasetVersion(
        id="d", created_at=T0, dataset="flights", version=12, rows=336, added=1, hash="ab" * 32,
        schema={"distance": "Float64", "at": "Datetime(us, UTC)"}, table="data/flights", lake_version=14,
    )  # fmt: skip
    for _ in range(2):
        parent = tracking.log_run(a_run(run), [], {}, [], {}, data=[data], files=tmp_path)
    (given,) = client.get_run(parent).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("flights@12", "ab" * 18)
    assert '"lake_version": 14' in given.dataset.source
    assert given.tags[0].value == "training"
    kept = client.download_artifacts(parent, "code/source.zip", str(tmp_path))
    assert Path(kept).read_bytes() == b"zipped"


def test_a_runs_figures_are_pages_beside_them(tracking: MlflowTracking, client: MlflowClient, run: str, tmp_path: Path) -> None:
    figure = {"data": [{"type": "scatter", "x": [1], "y": [2], "name": "</script>"}], "layout": {}}
    parent = tracking.log_run(a_run(run), [], {}, [], {}, pages={"search": {"history": figure}})
    page = Path(client.download_artifacts(parent, "figures/search.html", str(tmp_path))).read_text()
    assert '<div id="history"></div>' in page
    assert page.count("</script>") == 2, "what a figure says cannot end the script"


def test_trials_written_in_the_background_are_not_written_twice(tracking: MlflowTracking, client: MlflowClient, run: str) -> None:
    tracking.prepare(a_run(run), trials(run, 5))
    parent = tracking.log_run(a_run(run), trials(run, 5), {"mae": 1.0}, [], {})
    assert len(children(client, parent)) == 6
    tracking.prepare(a_run(run), trials(run, 5))
    assert tracking.log_run(a_run(run), trials(run, 5), {"mae": 1.0}, [], {}) == parent
    assert len(children(client, parent)) == 6


def test_logging_again_doubles_nothing(tracking: MlflowTracking, client: MlflowClient, run: str) -> None:
    first = log(tracking, run)
    other = MlflowTracking(tracking.address(), Path("unused"))
    assert log(other, run) == first
    assert len(children(client, first)) == 4
    assert len(client.get_metric_history(first, "mae")) == 1


def test_more_parameters_than_one_batch_takes(tracking: MlflowTracking, client: MlflowClient, run: str) -> None:
    wide = Trial(
        run=run, number=0, candidate="c", params={f"p{n}": n for n in range(230)}, score=1.0, state="complete", seconds=0.0
    )
    parent = tracking.log_run(a_run(run), [wide], {}, [], {})
    assert len(children(client, parent)[0].data.params) == 231


def test_parameters_have_the_names_that_people_gave_them(tracking: MlflowTracking, client: MlflowClient, run: str) -> None:
    noted = {"n_neighbors": 7, "@rows": 4507, "@factory": "there:Made", "@matrix": "plain", "@codes": "both"}
    trial = Trial(run=run, number=0, candidate="knn", params=noted, score=1.0, state="complete", seconds=0.0)
    parent = tracking.log_run(a_run(run), [trial], {}, [], {})
    assert children(client, parent)[0].data.params == {"candidate": "knn", "n_neighbors": "7", "codes": "both"}


def test_a_version_is_registered_once_with_its_bundle(
    tracking: MlflowTracking, client: MlflowClient, run: str, bundle: Path, home: Path
) -> None:
    parent = log(tracking, run)
    version = a_version(f"v-{run}", run, model=f"model-{run}")
    ids = tracking.register(version, bundle, parent)
    assert ids == {"run_id": parent, "name": f"model-{run}", "version": "1"} == tracking.register(version, bundle, parent)
    found = client.get_model_version(f"model-{run}", "1")
    folder = Path(found.source.removeprefix("file://"))
    assert folder.is_relative_to(home / "artifacts")
    flavor = Model.load(str(folder)).flavors["python_function"]
    assert flavor["loader_module"] == "mulle.surfaces.pyfunc"
    assert (folder / flavor["data"] / "transform" / "project.py").read_text() == "x = 1\n"
    second = tracking.register(a_version(f"w-{run}", run, 2, f"model-{run}"), bundle, parent)
    assert second["version"] == "2"


def test_aliases_move_and_go(tracking: MlflowTracking, run: str, bundle: Path) -> None:
    model = f"fleet/{run}"
    assert tracking.aliases(model) == {}
    parent = log(tracking, run)
    for number in (1, 2):
        tracking.register(a_version(f"v{number}-{run}", run, number, model), bundle, parent)
    tracking.alias(model, "champion", "1")
    tracking.alias(model, "challenger", "2")
    assert tracking.aliases(model) == {"champion": "1", "challenger": "2"}
    tracking.alias(model, "champion", "2")
    for _ in range(2):
        tracking.alias(model, "challenger", None)
    assert tracking.aliases(model) == {"champion": "2"}
    with pytest.raises(NotFound):
        tracking.alias(model, "champion", "99")


def test_a_version_is_fetched_by_number_and_by_alias(tracking: MlflowTracking, run: str, bundle: Path, tmp_path: Path) -> None:
    tracking.register(a_version(f"v-{run}", run, model=f"model-{run}"), bundle, log(tracking, run))
    tracking.alias(f"model-{run}", "champion", "1")
    for place, source in enumerate((f"models:/model-{run}/1", f"models:/model-{run}@champion")):
        (tmp_path / str(place)).mkdir()
        found = tracking.fetch(source, tmp_path / str(place))
        assert found["version"] == f"models:/model-{run}/1"
        assert (list(found["flavors"]), found["columns"]) == (["python_function"], [])
        assert (Path(found["folder"]) / "data" / "transform" / "project.py").read_text() == "x = 1\n"
    for missing in (f"models:/model-{run}/9", f"models:/model-{run}@nobody", "models:/nothing/1"):
        with pytest.raises(NotFound):
            tracking.fetch(missing, tmp_path)
    with pytest.raises(UsageError):
        tracking.fetch("model/1", tmp_path)


KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("suite", sys.argv[1])
suite = importlib.util.module_from_spec(spec); spec.loader.exec_module(suite)
suite.die_after(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
"""


def die_after(uri: str, run: str, bundle: Path) -> None:
    """Die in the middle of a trial: its run exists and its figures do not."""
    calls = count()
    real = MlflowClient.log_batch

    def log_batch(self: MlflowClient, *args: object, **kwargs: object) -> object:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *args, **kwargs)

    MlflowClient.log_batch = log_batch
    log(MlflowTracking(uri, bundle), run)


def test_a_process_killed_halfway_is_finished_by_the_next(
    tracking: MlflowTracking, client: MlflowClient, run: str, home: Path
) -> None:
    tracking.aliases("x")
    command = [sys.executable, "-c", KILLED, __file__, tracking.address(), run, str(home / "artifacts")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    parent = log(tracking, run)
    own = client.search_runs([experiment(client)], f"tags.`mulle.run` = '{run}'")
    assert [found.info.run_id for found in own] == [parent]
    found = children(client, parent)
    assert len(found) == 4
    assert sum("score" in child.data.metrics for child in found) == 3
    assert {child.info.status for child in found} == {"FINISHED", "FAILED"}


def test_the_database_is_for_its_owner_alone(tracking: MlflowTracking, home: Path) -> None:
    tracking.aliases("x")
    assert (home / "mlflow.db").stat().st_mode & 0o077 == 0
    assert not list(home.glob(".mlflow.db.*"))


def test_a_server_that_is_away_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tracking = MlflowTracking(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path)
    with pytest.raises(Unavailable):
        tracking.aliases("x")


PROJECT = """
import polars as pl
import mulle as ml

trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["minutes", "late"])

@ml.features(trips, past=ml.history(trips, on=["origin"], window="30d", every="1h", minutes=pl.col("minutes").mean()))
def shape(rows):
    return rows.select("origin", "distance", hour=pl.col("at").dt.hour(), past="past.minutes")

minutes = ml.Model(
    "minutes", features=shape, target="minutes", task="regression",
    search=ml.Search([ml.ridge()], trials=2), gates=[ml.parity(1e-4)],
)
late = ml.Model(
    "late", features=shape, target="late", task="binary", search=ml.Search([ml.logistic()], trials=2), gates=[ml.parity(1e-4)],
)
"""


def trips(n: int = 400) -> pl.DataFrame:
    random = np.random.default_rng(0)
    distance = random.uniform(50, 2000, n)
    minutes = distance / 8 + random.normal(0, 5, n)
    return pl.DataFrame(
        {
            "id": [f"t{i}" for i in range(n)],
            "at": pl.datetime_range(T0, T0 + (n - 1) * np.timedelta64(1, "h").item(), "1h", eager=True),
            "origin": random.choice(["EWR", "JFK", "LGA"], n),
            "distance": [None if i % 17 == 0 else d for i, d in enumerate(distance)],
            "minutes": minutes,
            "late": np.where(minutes > 130, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {model: tmp_path_factory.mktemp(model) for model in ("minutes", "late")}
    for model, folder in folders.items():
        (folder / "project.py").write_text(PROJECT)
        trips().write_parquet(folder / "trips.parquet")
        assert ml.project(folder).run(model)["state"] == "succeeded"
    return folders


@pytest.mark.parametrize("model", ["minutes", "late"])
def test_mlflow_loads_a_version_that_answers_as_ours_does(
    labs: dict[str, Path], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{labs[model]}/.mulle/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    theirs = mlflow.pyfunc.load_model(f"models:/{model}@champion")
    # Of an origin that nobody has seen the online store knows nothing either, so that both doors read the same null.
    rows = trips().with_columns(origin=pl.lit("XXX")).head(50)
    ours = ml.project(labs[model]).load(f"{model}@champion").predict(rows)["value"].to_list()
    assert len(set(ours)) > 1
    for asked in (rows.to_pandas(), rows.drop("minutes", "late").to_pandas(), rows):
        assert theirs.predict(asked) == ours


def test_a_run_leaves_its_code_leaderboard_and_data_in_mlflow(labs: dict[str, Path], tmp_path: Path) -> None:
    uri = f"sqlite:///{labs['late']}/.mulle/mlflow.db"
    client = MlflowClient(uri, uri)
    (found,) = client.search_runs([experiment(client)], "tags.`mulle.model` = 'late'")
    assert [d.dataset.name for d in found.inputs.dataset_inputs] == ["trips@1"]
    assert found.data.metrics["seconds.search"] > 0
    code = Path(client.download_artifacts(found.info.run_id, "code/source.zip", str(tmp_path)))
    assert hashlib.sha256(code.read_bytes()).hexdigest() == found.data.tags["mulle.code.sha256"]
    assert zipfile.ZipFile(code).read("project.py").decode() == PROJECT
    board = Path(client.download_artifacts(found.info.run_id, "leaderboard.json", str(tmp_path)))
    assert [t["rank"] for t in json.loads(board.read_text())] == [1, 2]
    pages = {a.path for a in client.list_artifacts(found.info.run_id, "figures")}
    assert pages == {"figures/search.html", "figures/model.html"}
