"""A home whose whole chain is filled by records, for the tests of what people are shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import polars as pl
import pytest

from mulle.adapters.lake.delta import DeltaLake, vacuum_of
from mulle.adapters.metadata.connect import open_metadata
from mulle.core.clock import ReplayClock, instant
from mulle.core.hashing import hash_folder
from mulle.core.records.base import Cause, to_json
from mulle.core.records.bundle import Contract, FeatureSpec, InputField, JoinSpec
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, Tag
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.run import GateResult, Run, RunEvent, Trial
from mulle.core.records.window import Alert, AlertEvent, Performance, Signal, Window
from mulle.core.settings import Settings
from mulle.kernel.project import load_project
from mulle.loop.parts import Parts

PROJECT = """
import polars as pl
import mulle as ml

flights = ml.Dataset("flights", ml.Files("flights.csv"), key="flight_id", time="scheduled_at", outcome=["air_time"])

@ml.features(flights, route=ml.history(flights, on=["origin"], window="7d", every="1h", air_time=pl.col("air_time").mean()))
def shape(rows):
    return rows.select("distance", hour=pl.col("scheduled_at").dt.hour(), ratio=pl.col("route.air_time") / pl.col("distance"))

air_time = ml.Model("air-time", features=shape, target="air_time", task="regression", retrain=ml.Retrain(cron="0 4 * * *"))
idle = ml.Model("idle", features=shape, target="air_time", task="regression")
"""

NOW = instant("2013-03-02T12:00:00Z")


@dataclass(frozen=True)
class Home:
    """A filled home."""

    parts: Parts
    clock: ReplayClock
    folder: Path


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a home once; each test gets a copy."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "project.py").write_text(PROJECT)
    (folder / ".mulle").mkdir()
    parts = _open(folder).parts
    _data(parts)
    _runs(parts, folder)
    _deployments(parts)
    _traffic(parts)
    return folder


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Home:
    """Give a home in which version 1 is champion, version 2 a canary, and a run was rejected."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return _open(tmp_path)


def _open(folder: Path) -> Home:
    settings = Settings(project=folder).resolved()
    clock = ReplayClock(NOW)
    opened = {
        "settings": settings,
        "clock": clock,
        "project": load_project(folder),
        "metadata": open_metadata(settings.database),
        "lake": DeltaLake(settings.lake),
        "vacuum": vacuum_of(DeltaLake(settings.lake)),
    }
    # What is shown comes from the records and the lake alone; the other parts stay closed.
    return Home(Parts(**({f.name: None for f in fields(Parts)} | opened)), clock, folder)


def _data(parts: Parts) -> None:
    store = parts.metadata.datasets
    check = CheckResult(name="unique(flight_id)", severity="fail", verdict="pass", failed=0, rows=10)
    for number, day in ((1, "2013-03-01"), (2, "2013-03-02")):
        store.add(
            DatasetVersion(
                id=f"data-{number}",
                created_at=instant(day),
                dataset="flights",
                version=number,
                rows=10 * number,
                added=10,
                hash=f"h{number}",
                schema={"flight_id": "String"},
                table="data/flights",
                lake_version=number,
                checks=(check,),
                positions={"secret": 1},
            )
        )
    store.tag(Tag(dataset="flights", name="gold", version=1, created_at=NOW))
    bad = CheckResult(name="between(distance)", severity="fail", verdict="fail", failed=3, rows=5, samples=({"distance": -1},))
    store.add_quarantine(
        Quarantine(id="q-1", created_at=NOW, dataset="flights", rows=5, address="quarantine/flights/b", checks=(bad,))
    )


def _runs(parts: Parts, folder: Path) -> None:
    runs = parts.metadata.runs
    for number, state in ((1, "succeeded"), (2, "succeeded"), (3, "rejected")):
        at, cause = instant(f"2013-03-01T0{number}:00:00Z"), Cause(type="schedule", id="0 4 * * *", why="it was time")
        run = Run(id=f"run-{number}", created_at=at, causes=(cause,), model="air-time", cutoff=at, code="c0de")
        runs.add(run)
        runs.add_events(RunEvent(id=f"e{number}a", run=run.id, at=at, kind="stage", name="ingest", state="done", seconds=1.5))
        reason = {"reason": "mae 13 > 12"} if state == "rejected" else {}
        runs.add_events(RunEvent(id=f"e{number}b", run=run.id, at=at, kind="state", name=state, detail=reason))
        runs.add_trials(
            [Trial(run=run.id, number=0, candidate="ridge", params={"alpha": 1}, score=7.5, state="done", seconds=0.1)]
        )
        verdict = "fail" if state == "rejected" else "pass"
        runs.add_gates(
            run.id, [GateResult(gate="at_most(mae)", metric="mae", value=13.0, bound=12.0, verdict=verdict, reason="why", rows=9)]
        )
        if state == "succeeded":
            parts.metadata.models.add(_version(run, number, folder))


def _version(run: Run, number: int, folder: Path) -> ModelVersion:
    address = folder / ".mulle" / "bundles" / f"b{number}"
    (address / "transform").mkdir(parents=True)
    (address / "transform" / "project.py").write_text(PROJECT)
    inputs = tuple(
        InputField(name=name, type="FP64", dtype=dtype, required=True)
        for name, dtype in (
            ("flight_id", "String"),
            ("scheduled_at", "Datetime(us, UTC)"),
            ("origin", "String"),
            ("distance", "Float64"),
        )
    )
    join = JoinSpec(
        name="route",
        kind="history",
        dataset="flights",
        table="t",
        on=("origin",),
        columns={"air_time": "Float64"},
        every_us=3_600_000_000,
        window_us=7 * 86_400_000_000,
    )
    parity = Parity(tolerance=1e-4, scale=90.0, rows=100, worst=1e-6, outside=0.0)
    contract = Contract(
        format=1,
        model="air-time",
        task="regression",
        target="air_time",
        classes=(),
        dataset="flights",
        key=("flight_id",),
        time="scheduled_at",
        inputs=inputs,
        joins=(join,),
        features=tuple(FeatureSpec(name=n, kind="number") for n in ("distance",)),
        transform={"function": "shape", "hash": "x", "code": "c0de"},
        compiled="onnx",
        parity=parity,
        scale=90.0,
        run=run.id,
        data={"flights": number},
        data_cutoff=run.cutoff,
        refit_cutoff=run.cutoff,
    )
    (address / "bundle.json").write_text(json.dumps(to_json(contract)))
    return ModelVersion(
        id=f"version-{number}",
        created_at=run.created_at,
        causes=(Cause(type="run", id=run.id, why="it passed"),),
        model="air-time",
        version=number,
        run=run.id,
        bundle=hash_folder(address),
        address=str(address),
        compiled="onnx",
        parity=parity,
        metrics={"mae": 6.91},
        size_bytes=2048,
        features=("distance", "hour", "ratio"),
        data={"flights": number},
        data_cutoff=run.cutoff,
        refit_cutoff=run.cutoff,
    )


def _deployments(parts: Parts) -> None:
    moves = (
        ("deploy", "2013-03-01T06:00:00Z", None, 1, (Route(version=1, share=1.0, mode="champion"),)),
        (
            "canary",
            "2013-03-02T06:00:00Z",
            1,
            2,
            (Route(version=1, share=0.75, mode="champion"), Route(version=2, share=0.25, mode="canary")),
        ),
    )
    for number, (action, at, before, to, routes) in enumerate(moves, start=1):
        parts.metadata.deployments.add(
            Deployment(
                id=f"deployment-{number}",
                created_at=instant(at),
                causes=(Cause(type="run", id=f"run-{to}", why="gates passed"),),
                model="air-time",
                action=action,
                effective_at=instant(at),
                by="loop",
                from_version=before,
                to_version=to,
                routes=routes,
            )
        )


def _traffic(parts: Parts) -> None:
    times = [instant(f"2013-03-02T{hour}:30:00Z") for hour in ("05", "11", "11")]
    parts.lake.append(
        PREDICTIONS,
        pl.DataFrame(
            {
                "id": ["p1", "p2", "p3"],
                "created_at": times,
                "request": ["r1", "r2", "r2"],
                "model": ["air-time"] * 3,
                "version": [1, 2, 1],
                "route": ["champion", "canary", "shadow"],
                "key": ['{"flight_id": "F1"}'] * 3,
                "time": times,
                "row": ['{"distance": 100.0}'] * 3,
                "features": ['{"distance": 100.0, "hour": 5, "ratio": 1.5}'] * 3,
                "value": ["150.5"] * 3,
                "probabilities": ["{}"] * 3,
                "freshness": ['{"route": "2013-03-02T05:00:00Z"}'] * 3,
                "unseen": ["[]"] * 3,
                "seconds": [0.001] * 3,
                "day": ["2013-03-02"] * 3,
                "key_text": ["F1"] * 3,
            },
            schema_overrides={"created_at": pl.Datetime("us", "UTC"), "time": pl.Datetime("us", "UTC")},
        ),
        application="t",
        sequence=1,
        partition_by=["day"],
    )
    parts.lake.append(
        LABELS,
        pl.DataFrame(
            {
                "id": ["l1"],
                "created_at": [NOW],
                "model": ["air-time"],
                "prediction_id": ["p1"],
                "key": ["{}"],
                "time": [times[0]],
                "value": ["152.0"],
                "reason": [""],
                "known_at": [NOW],
                "by": [""],
                "day": ["2013-03-02"],
                "key_text": [None],
            },
            schema_overrides={n: pl.Datetime("us", "UTC") for n in ("created_at", "time", "known_at")} | {"key_text": pl.String},
        ),
        application="t",
        sequence=1,
        partition_by=["day"],
    )
    window = Window(
        id="w1",
        created_at=NOW,
        causes=(),
        model="air-time",
        start=instant("2013-03-02"),
        end=instant("2013-03-03"),
        rows=2,
        mature=True,
        versions={"1": 1, "2": 1},
        signals=(Signal(feature="distance", signal="psi", value=0.31, bound=0.2, verdict="alarm"),),
        performance=Performance(metric="mae", value=6.9, labels_share=0.5, labelled=1, never=0, bound=10.0, verdict="pass"),
    )
    parts.metadata.windows.add(window)
    for number, closed in ((1, True), (2, False)):
        alert = Alert(
            id=f"alert-{number}",
            created_at=NOW,
            causes=(Cause(type="window", id="w1", why="psi 0.31 > 0.2"),),
            model="air-time",
            signal="psi",
            feature="distance",
            severity="warn",
            evidence={"value": 0.31},
            next="mulle monitor air-time",
        )
        parts.metadata.alerts.add(alert, AlertEvent(id=f"o{number}", alert=alert.id, at=NOW, kind="open"))
        if closed:
            parts.metadata.alerts.add_event(AlertEvent(id=f"c{number}", alert=alert.id, at=NOW, kind="close"))
