"""The feature registry as people see it: what is declared, who takes it, and how fresh its values are."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from mulle.adapters.metadata.connect import open_metadata
from mulle.adapters.online.lmdb import LmdbOnline
from mulle.core.clock import ReplayClock, instant
from mulle.core.ports.online import Mark
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.core.settings import Settings
from mulle.kernel.project import load_project
from mulle.lifecycle.features.join import join_specs
from mulle.loop.data.catalogue import features_view, selection_of
from mulle.loop.parts import Parts

NOW = instant("2013-03-02T12:00:00Z")
PROJECT = """
import polars as pl
import mulle as ml

weather = ml.Dataset("weather", ml.Files("w.csv"), key="origin", time="observed_at")
flights = ml.Dataset("flights", ml.Files("f.csv"), key="id", time="at", known_at="landed", outcome=["air_time"])
later = ml.Dataset("later", ml.Files("l.csv"), key="id")

@ml.features(
    flights,
    weather=ml.asof(weather, on="origin", within="3h"),
    route=ml.history(flights, on="origin", window="7d", every="1h", mean=pl.col("air_time").mean()),
)
def flight_features(rows):
    return rows.select("distance", wind="weather.wind", mean=pl.col("route.mean"))

@ml.features(later)
def unpublished(rows):
    return rows.select("x")

air_time = ml.Model("air-time", features=flight_features, target="air_time", task="regression", select=ml.select(top=2))
other = ml.Model("other", features=flight_features, target="air_time", task="regression")
"""
SCHEMAS = {
    "weather": {"origin": "String", "observed_at": "Datetime(us, UTC)", "wind": "Float64"},
    "flights": {
        "id": "Int64", "at": "Datetime(us, UTC)", "landed": "Datetime(us, UTC)", "origin": "String",
        "distance": "Float64", "air_time": "Float64",
    },
}  # fmt: skip


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Two datasets are published, one model has a version without the wind, and the weather is online."""
    (tmp_path / "project.py").write_text(PROJECT)
    opened = {
        "settings": Settings(project=tmp_path).resolved(),
        "clock": ReplayClock(NOW),
        "project": load_project(tmp_path),
        "metadata": open_metadata(f"sqlite:///{tmp_path / 'mulle.db'}"),
        "online": LmdbOnline(tmp_path / "online.lmdb"),
    }
    made = Parts(**({f.name: None for f in fields(Parts)} | opened))
    for name, schema in SCHEMAS.items():
        for number in (1, 2):
            made.metadata.datasets.add(
                DatasetVersion(
                    id=f"{name}-{number}", created_at=NOW, dataset=name, version=number, rows=1, added=1, hash=name,
                    schema=schema, table=f"data/{name}", lake_version=number,
                )
            )  # fmt: skip
    made.metadata.models.add(
        ModelVersion(
            id="v1", created_at=NOW, causes=(), model="air-time", version=1, run="r1", bundle="b",
            address=str(tmp_path / "b"), compiled="onnx", parity=None, metrics={}, size_bytes=1,
            features=("distance", "mean"), data={"flights": 1}, data_cutoff=NOW,
            refit_cutoff=NOW,
        )
    )  # fmt: skip
    specs = join_specs(made.project.features["flight_features"], SCHEMAS)
    made.online.mark(specs[0].table, Mark(NOW - timedelta(minutes=5), 2))
    return made


def items(parts: Parts) -> dict[str, Json]:
    return {item["id"]: item for item in features_view(parts)["items"]}


def test_every_feature_of_a_published_function_is_listed_and_the_rest_is_told(parts: Parts) -> None:
    view = features_view(parts)
    assert [item["id"] for item in view["items"]] == [
        "flight_features.distance",
        "flight_features.wind",
        "flight_features.mean",
    ]
    assert view["next"] is None
    assert view["unread"] == [
        {
            "function": "unpublished",
            "why": "dataset later has no published version",
            "next": "`mulle data ingest later`",
        }
    ]
    assert json.loads(json.dumps(view)) == view


def test_a_feature_names_its_consumers_its_place_and_its_sources(parts: Parts) -> None:
    found = items(parts)
    distance, mean = found["flight_features.distance"], found["flight_features.mean"]
    assert distance["models"] == ["air-time", "other"]
    assert found["flight_features.wind"]["models"] == ["other"], "the selection of air-time left it out"
    assert distance["created_at"] == "2013-03-02T12:00:00Z"
    assert found["flight_features.wind"]["created_at"] is None
    assert (distance["file"], distance["dtype"]) == ("project.py", "Float64")
    assert PROJECT.splitlines()[distance["line"] - 1].startswith("@ml.features")
    assert distance["data"] == {"flights": 2}
    assert mean["sources"] == [{"column": "route.mean", "reads": ["flights.air_time"]}]
    assert mean["joins"] == [
        {
            "name": "route", "kind": "history", "dataset": "flights", "on": ["origin"], "by": ["origin"],
            "window_seconds": 604800.0, "every_seconds": 3600.0, "values": {"mean": 'col("air_time").mean()'},
        }
    ]  # fmt: skip


def test_freshness_is_that_of_the_online_table_now(parts: Parts) -> None:
    wind = items(parts)["flight_features.wind"]
    assert wind["freshness"] == {"weather": {"until": "2013-03-02T11:55:00Z", "version": 2, "age_seconds": 300.0}}
    assert wind["data"] == {"flights": 2, "weather": 2}
    assert wind["joins"][0]["within_seconds"] == 10800.0
    assert items(parts)["flight_features.mean"]["freshness"] == {"route": None}
    assert items(parts)["flight_features.distance"]["freshness"] == {}


def test_a_selection_is_shown_from_the_run_and_later_from_its_bundle(parts: Parts, tmp_path: Path) -> None:
    selection = {"by": "importance", "kept": ["distance"], "scores": {"distance": 1.0, "wind": 0.0}}
    assert selection_of(parts, "r1") is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "bundle.json").write_text(json.dumps({"settings": {"selection": selection}}))
    assert selection_of(parts, "r1") == selection
    folder = parts.settings.home / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "search.json").write_text(json.dumps({"trials": [], "settings": {}}))
    assert selection_of(parts, "r1") is None
    (folder / "search.json").write_text(json.dumps({"selection": selection}))
    assert selection_of(parts, "r1") == selection
    assert selection_of(parts, "unknown") is None
