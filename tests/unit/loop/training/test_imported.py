"""Models of every flavour that MLflow logs become ours: by a graph that is proved, or as they are; pickles on somebody's word."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.unit.loop.compute.working import through_json, working

from mulle.adapters.tracking.mlflow import MlflowTracking
from mulle.core.errors import Refused
from mulle.core.records.base import Json
from mulle.kernel.bundle import Predictor
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.importing import import_model
from mulle.loop.compute.work import Work, build_features, read_rows
from mulle.loop.parts import Parts
from mulle.loop.training.imported import fetch_model, instead_of_search

NOW = datetime(2013, 3, 1, tzinfo=UTC)
PROJECT = """
trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", outcome=["minutes", "late"])

@ml.features(trips)
def shape(rows):
    return rows.select("distance", "stops", double=2 * pl.col("distance"))

minutes = ml.Model("minutes", features=shape, target="minutes", task="regression")
late = ml.Model("late", features=shape, target="late", task="binary")
"""


def trips(n: int = 300) -> pl.DataFrame:
    dice = np.random.default_rng(0)
    distance, stops = dice.uniform(1, 20, n), dice.integers(0, 4, n).astype(float)
    minutes = 8 * distance + 30 * stops + dice.normal(0, 1, n)
    rows = {"id": [f"t{i}" for i in range(n)], "distance": distance, "stops": stops, "minutes": minutes}
    return pl.DataFrame(rows | {"late": np.where(minutes > 120, "late", "fine")})


class Shell(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return self.inner.predict(model_input)


class Own(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return 2 * model_input["distance"]


def fitted() -> dict[str, Any]:
    rows = trips().to_pandas()
    # The other way round than the feature function has them: inputs are found by name.
    X, y, late = rows[["stops", "distance"]], rows["minutes"], rows["late"] == "late"
    by_name = ColumnTransformer([("far", StandardScaler(), ["distance"])], remainder="passthrough")
    forest = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(X, y)
    return {
        "sklearn": Ridge().fit(X, y),
        "by_name": make_pipeline(by_name, Ridge()).fit(X, y),
        "no_graph": KernelRidge(kernel="rbf").fit(X, y),
        "lightgbm": forest,
        "booster": forest.booster_,
        "pickled": Ridge().fit(X, y),
        "shell": Shell(Ridge().fit(X, y)),
        "own": Own(),
        # Its classes in another order than the alphabet's.
        "classes": LogisticRegression().fit(X, np.where(late, "late", "fine")),
        "numbers": LogisticRegression().fit(X, late.astype(int)),
    }


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    signature = infer_signature(pd.DataFrame({"stops": [1.0], "distance": [2.0]}))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.setenv(name, f"sqlite:///{folder}/mlflow.db")
        experiment = mlflow.create_experiment("theirs", (folder / "artifacts").as_uri())
        with mlflow.start_run(experiment_id=experiment):
            for name, model in fitted().items():
                told: Json = {"name": name, "signature": signature, "registered_model_name": name, "pip_requirements": []}
                if name in ("lightgbm", "booster"):
                    mlflow.lightgbm.log_model(model, **told)
                elif name in ("shell", "own"):
                    mlflow.pyfunc.log_model(python_model=model, **told)
                else:
                    form = "cloudpickle" if name == "pickled" else "skops"
                    mlflow.sklearn.log_model(model, serialization_format=form, **told)
    return folder


@pytest.fixture
def fetch(logged: Path, opened: Callable[..., Parts]) -> Callable[..., tuple[Parts, Json]]:
    def fetched(name: str, *, trust: bool = False) -> tuple[Parts, Json]:
        tracking = MlflowTracking(f"sqlite:///{logged}/mlflow.db", logged / "artifacts")
        parts = replace(opened(PROJECT), tracking=lambda: tracking)
        return parts, fetch_model(parts, f"models:/{name}/1", trust=trust)

    return fetched


def made(parts: Parts, folder: Path, given: Json, model: str = "minutes") -> tuple[Work, Json]:
    work = working(folder, f"import polars as pl\nimport mulle as ml\n{PROJECT}", {"trips": trips()}, model, NOW)
    build_features(work)
    (work.home / given["file"]).parent.mkdir(parents=True, exist_ok=True)
    (work.home / given["file"]).write_bytes((parts.settings.home / given["file"]).read_bytes())
    found = instead_of_search(work.home, work.run, given, lambda: import_model(work, given))
    return work, through_json(found)


def bundled(work: Work, found: Json) -> Predictor:
    evaluation = through_json(evaluate_model(work, found["settings"]))
    bundle = bundle_model(work, found["settings"], evaluation["metrics"], work.project.folder)
    return Predictor.open(Path(bundle["address"]), expected=bundle["hash"])


def answers(work: Work, predictor: Predictor) -> Any:
    return predictor.score(predictor.transform(read_rows(work).drop(work.hidden_columns)))


@pytest.mark.parametrize(
    ("name", "trust"),
    [("sklearn", False), ("by_name", False), ("lightgbm", False), ("booster", False), ("pickled", True), ("shell", True)],
)
def test_a_flavour_becomes_a_graph_that_answers_as_the_model_did(
    fetch: Callable[..., tuple[Parts, Json]], tmp_path: Path, name: str, trust: bool
) -> None:
    work, found = made(*_with_folder(fetch(name, trust=trust), tmp_path))
    assert any("was converted" in note for note in found["notes"]), found["notes"]
    predictor = bundled(work, found)
    assert predictor.contract.compiled == "onnx"
    model = fitted()[name]
    theirs = getattr(model, "inner", model).predict(theirs_of(work))
    assert np.asarray(answers(work, predictor).values) == pytest.approx(theirs, rel=1e-4)


def theirs_of(work: Work) -> pd.DataFrame:
    """The run's rows, in their order, as the model was given them."""
    return read_rows(work).select("stops", "distance").to_pandas()


def _with_folder(fetched: tuple[Parts, Json], folder: Path) -> tuple[Parts, Path, Json]:
    return fetched[0], folder / "work", fetched[1]


def test_what_has_no_graph_runs_as_it_is(fetch: Callable[..., tuple[Parts, Json]], tmp_path: Path) -> None:
    work, found = made(*_with_folder(fetch("no_graph"), tmp_path))
    assert "runs as it is: there is no graph for it" in found["notes"][1]
    predictor = bundled(work, found)
    assert predictor.contract.compiled == "native"
    theirs = fitted()["no_graph"].predict(theirs_of(work))
    assert np.asarray(answers(work, predictor).values) == pytest.approx(theirs, rel=1e-4)
    predictor.close()


def test_classes_are_the_targets_own(fetch: Callable[..., tuple[Parts, Json]], tmp_path: Path) -> None:
    work, found = made(*_with_folder(fetch("classes"), tmp_path), "late")
    said = answers(work, bundled(work, found))
    theirs = fitted()["classes"].predict_proba(theirs_of(work))
    assert said.probabilities == pytest.approx(theirs, abs=1e-4)
    with pytest.raises(Refused, match="knows the classes 0, 1, the rows have fine, late"):
        made(*_with_folder(fetch("numbers"), tmp_path / "other"), "late")


def test_a_pickle_is_opened_on_somebodys_word_alone(fetch: Callable[..., tuple[Parts, Json]]) -> None:
    for name in ("pickled", "shell"):
        with pytest.raises(Refused, match="is a pickle, which may run anything") as refused:
            fetch(name)
        assert "--trust" in str(refused.value.next)


def test_a_pickle_that_came_over_a_network_is_never_opened(
    fetch: Callable[..., tuple[Parts, Json]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, _ = fetch("sklearn")
    tracking = parts.tracking()
    monkeypatch.setattr(type(tracking), "_near", lambda self, address: False)
    with pytest.raises(Refused, match="came over a network"):
        fetch_model(parts, "models:/pickled/1", trust=True)
    assert fetch_model(parts, "models:/sklearn/1")["form"] == "skops"


def test_a_function_of_its_own_is_refused_with_what_to_do(fetch: Callable[..., tuple[Parts, Json]], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is a Own, a function of its own"):
        made(*_with_folder(fetch("own", trust=True), tmp_path))


def test_a_file_that_asks_for_strange_types_runs_nothing(
    fetch: Callable[..., tuple[Parts, Json]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, given = fetch("sklearn")
    with pytest.raises(Refused, match="may run anything"):
        made(parts, tmp_path / "work", {**given, "form": "pickle"})
    (parts.settings.home / given["file"]).write_bytes(pickle.dumps(print))
    with pytest.raises(Exception, match="does not open"):
        made(parts, tmp_path / "again", given)
