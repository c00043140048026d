"""Model versions as people ask for them: side by side, by the data they saw, and made again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit.loop.conftest import WHY

from mulle.bootstrap.parts import wire
from mulle.core.errors import NotFound, UsageError
from mulle.core.records.run import run_state
from mulle.core.settings import load_settings
from mulle.loop.compute.reproducing import moved_packages
from mulle.loop.data.datasets import restore_version
from mulle.loop.parts import Parts
from mulle.loop.runner import run_model
from mulle.loop.views.models import compare_view, reproduce_view, saw_view

PROJECT = """
trips = ml.Dataset("trips", ml.Files("trips"), key="trip", outcome="minutes")

@ml.features(trips)
def trip_features(rows):
    return rows.select("distance", "way", twice=pl.col("distance") * 2)

model = ml.Model(
    "minutes", features=trip_features, target="minutes", task="regression",
    search=ml.Search([ml.ridge(), ml.lightgbm(n_estimators=20)], trials=3), gates=[ml.parity(1e-4)],
)
"""


def write(folder: Path, number: int, rows: int = 120) -> None:
    dice = np.random.default_rng(number)
    distance = dice.uniform(1, 50, rows)
    frame = pl.DataFrame(
        {
            "trip": [f"{number}-{i}" for i in range(rows)],
            "distance": distance,
            "way": dice.choice(["rail", "road"], rows),
            "minutes": 2 * distance + dice.normal(0, 1, rows),
        }
    )
    (folder / "trips").mkdir(exist_ok=True)
    frame.write_csv(folder / "trips" / f"{number}.csv")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions: of trips@1, and of trips@2 that holds its rows too."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "project.py").write_text(f"import polars as pl\nimport mulle as ml\n{PROJECT}")
    for number in (1, 2):
        write(folder, number)
        run_model(opened(folder), "minutes", causes=WHY)
    return folder


def opened(folder: Path) -> Parts:
    return wire(load_settings({"project": folder}, {}))


def test_a_version_is_made_again_from_its_records_after_data_and_code_moved_on(home: Path) -> None:
    source = home / "project.py"
    text = source.read_text()
    source.write_text(text.replace("* 2)", "* 3)"))
    parts = opened(home)
    try:
        view = reproduce_view(parts, "minutes@1")
        assert view["reproduced"], view
        assert (view["agreement"]["rows"], view["agreement"]["outside"]) == (120, 0)
        # It is held to what its own fit was held to; float32 of a deep model is no closer than that.
        assert view["agreement"]["tolerance"] == 1e-4
        assert (view["features"], view["data"], view["packages"]) == (True, True, {})
        assert not list((home / ".mulle" / "runs").glob("reproduce-*"))
    finally:
        source.write_text(text)
        parts.compute().close()


def test_one_process_may_run_a_model_again(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "trips", tmp_path / "trips")
    shutil.copy(home / "project.py", tmp_path)
    parts = opened(tmp_path)
    for number in (1, 2):
        run = run_model(parts, "minutes", causes=WHY)
        assert run_state(parts.metadata.runs.events(run.id)) in ("succeeded", "rejected"), number


def test_packages_that_moved_since_are_named() -> None:
    assert moved_packages("# python 3.11\npolars==0.1\nno-such-thing==3\n") == {
        "polars": ["0.1", version("polars")],
        "no-such-thing": ["3", None],
    }


def test_versions_are_laid_side_by_side(home: Path) -> None:
    parts = opened(home)
    view = compare_view(parts, ["minutes@1", "minutes@2"])
    assert view["differs"]["data.trips"] == [1, 2]
    assert [i["version"] for i in view["items"]] == [1, 2]
    assert not [name for name in view["differs"] if name.startswith("features.")]
    json.dumps(view)
    with pytest.raises(UsageError, match="cannot be compared"):
        compare_view(parts, ["minutes@1"])
    with pytest.raises(NotFound, match="no version '9'"):
        compare_view(parts, ["minutes@1", "minutes@9"])


def test_models_are_found_by_the_rows_they_saw(home: Path) -> None:
    parts = opened(home)
    assert [(i["version"], i["saw"]) for i in saw_view(parts, "trips@1")["items"]] == [(2, "within 2"), (1, "this version")]
    assert [i["version"] for i in saw_view(parts, "trips@2")["items"]] == [2]
    # A restored version leaves out what came between.
    restored = restore_version(parts, "trips@1", causes=WHY)
    first = parts.metadata.models.get("minutes", 1)
    assert first is not None
    parts.metadata.models.add(replace(first, id="after", run="after", version=0, data={"trips": restored.version}))
    assert [i["version"] for i in saw_view(parts, "trips@2")["items"]] == [2]
    assert {i["version"] for i in saw_view(parts, "trips@1")["items"]} == {1, 2, 3}
