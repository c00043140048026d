"""A model that is watched: windows by count, estimates before labels, skew, refused fields, and any span as one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from rich.console import Console

from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock, rfc3339
from mulle.core.errors import ContractError, MulleError, Overloaded, UsageError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.window import Window
from mulle.core.settings import load_settings
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import Segment, log_folder, pack
from mulle.lifecycle.serving.logged import refused_record
from mulle.loop.data.labels import import_labels
from mulle.loop.monitoring.triggers import due_cause
from mulle.loop.monitoring.watch import judge_windows
from mulle.loop.monitoring.windows import monitor_view
from mulle.loop.parts import Parts
from mulle.loop.runner import run_model
from mulle.surfaces.cli.monitor import monitored
from mulle.surfaces.monitor_page import monitor_page

WHY = (Cause(type="person", id="ada", why="asked"),)
START = datetime(2026, 3, 1, tzinfo=UTC)

PROJECT = """import mulle as ml
import polars as pl
stations = ml.Dataset("stations", ml.Files("stations.parquet"), key="station")
trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome="km")
@ml.features(trips, place=ml.lookup(stations, on="station"))
def shape(rows):
    return rows.select("load", level=pl.col("place.level"))
far = ml.Model(
    "far", features=shape, target="km", task="regression", split=ml.holdout("20d"),
    search=ml.Search([ml.ridge()], trials=2), gates=[ml.parity(1e-4)], rollout=ml.immediate(),
    monitor=ml.Monitor(
        window=300, delay="1d", min_rows=100, performance=ml.at_most("mae", 3), slices="station",
        drift=ml.psi(0.2) | ml.wasserstein(0.3), service=ml.service(errors=0.05),
    ),
    retrain=ml.Retrain(on=["skew", "service"], cooldown="0s"),
)
"""
LEVELS = {"a": 1.0, "b": 5.0, "c": 9.0}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder: Path = tmp_path_factory.mktemp("watch") / "project"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    pl.DataFrame({"station": list(LEVELS), "level": list(LEVELS.values())}).write_parquet(folder / "stations.parquet")
    first, dice, n = START - timedelta(days=100), np.random.default_rng(0), 2_000
    at = [first + timedelta(days=98 * i / n) for i in range(n)]
    station = dice.choice(list(LEVELS), n)
    load = dice.normal(10, 2, n)
    km = load + np.array([LEVELS[s] for s in station]) + dice.normal(size=n)
    trips = {"id": [f"t{i}" for i in range(n)], "at": at, "station": station.tolist(), "load": load, "km": km}
    pl.DataFrame(trips, schema_overrides={"at": pl.Datetime("us", "UTC")}).write_parquet(folder / "trips.parquet")
    parts = wire(load_settings({"project": folder}, {}), clock=ReplayClock(START))
    run_model(parts, "far", causes=WHY)
    for hour in range(4):
        answer(parts, START + timedelta(hours=hour), shift=2.0 if hour == 3 else 0.0, wrong=30 if hour == 1 else 0)
    wrong = ContractError("load is 'x', expected Float64", field="load", row=0, model="far")
    refuse(parts, START + timedelta(hours=2, minutes=1), 100, wrong)
    refuse(parts, START + timedelta(hours=3, minutes=1), 60, Overloaded("400 rows are waiting", model="far"))
    drain(log_folder(parts.settings.home), parts.lake, now=START + timedelta(hours=5))
    yield parts
    parts.online.close()


def answer(parts: Parts, at: datetime, *, shift: float, wrong: int) -> None:
    """Log 300 answers of one hour; of `wrong` rows the online store gave an old level."""
    dice = np.random.default_rng(at.hour)
    stations = dice.choice(list(LEVELS), 300).tolist()
    load = (dice.normal(10, 2, 300) + shift).tolist()
    level = [LEVELS[s] + (100.0 if n % 10 == 0 and n < 10 * wrong else 0.0) for n, s in enumerate(stations)]
    us = [int((at + timedelta(seconds=10 * n)).timestamp() * 1e6) for n in range(300)]
    names = [f"{at.hour}-{n}" for n in range(300)]
    told = {
        "at": us[0], "by_row": True, "model": "far", "version": 1, "key": ["id"], "classes": [],
        "id": [derived_id(at, name) for name in names], "request": names, "route": ["champion"] * 300, "time": us,
        "row": [{"id": i, "at": rfc3339(at + timedelta(seconds=10 * n)), "station": s, "load": v}
                for n, (i, s, v) in enumerate(zip(names, stations, load, strict=True))],
        "features": {"load": load, "level": level}, "value": [a + LEVELS[s] for a, s in zip(load, stations, strict=True)],
        "probabilities": None, "freshness": [{}] * 300, "unseen": {}, "seconds": [0.001] * 300,
    }  # fmt: skip
    write(parts, pack(orjson.dumps(told)))


def refuse(parts: Parts, at: datetime, count: int, error: MulleError) -> None:
    told = refused_record("far", [(derived_id(at, f"r{n}"), 0.0, None, error) for n in range(count)], [], now=at)
    assert told is not None
    write(parts, told)


def write(parts: Parts, record: bytes) -> None:
    segment = Segment(log_folder(parts.settings.home), "predictions")
    segment.write([record])
    segment.close()


def look(parts: Parts, at: datetime, told: list[str] | None = None) -> list[Window]:
    assert isinstance(parts.clock, ReplayClock)
    parts.clock.advance(at)
    _, said = judge_windows(parts, parts.project.model("far"), at)
    (told if told is not None else []).extend(text for _, _, text in said)
    return list(parts.metadata.windows.of("far"))


def alarms(window: Window) -> set[tuple[str, str]]:
    return {(s.feature, s.signal) for s in window.signals if s.verdict == "alarm"}


def test_windows_by_count_name_skew_refused_fields_and_drift_and_estimate_before_labels(lived: Parts) -> None:
    found: list[Cause | None] = []
    told_of: list[str] = []
    for hour in (1, 2, 3, 5):
        windows = look(lived, START + timedelta(hours=hour), told_of)
        model = lived.project.model("far")
        found.append(due_cause(lived, model, lived.metadata.alerts.list("far", state="open"), lived.clock.now()))
    assert [cause.why if cause else "" for cause in found] == [
        "", "skew alarm: skew of level", "", "service alarm: errors of far"
    ], "what was under alarm causes a run, and no longer once it is well"  # fmt: skip
    assert "skew of level: closed" in told_of
    assert [w.rows for w in windows] == [300] * 4
    assert alarms(windows[0]) == set()
    assert alarms(windows[1]) >= {("level", "skew")}
    assert ("load", "type_errors") in alarms(windows[2])
    assert alarms(windows[3]) >= {("load", "psi"), ("load", "wasserstein")}
    assert all(("load", "skew") not in alarms(w) for w in windows)
    told = windows[0].performance
    assert told is not None
    assert (told.value, told.verdict) == (None, "immature")
    assert told.estimate == pytest.approx(np.sqrt(2 / np.pi), rel=0.15), "the holdout's loss, no label being in"


def test_labels_show_how_far_off_the_estimate_was_and_each_slice_by_itself(lived: Parts) -> None:
    rows = lived.lake.scan("predictions").filter(pl.col("route") == "champion").collect()
    right = rows.filter(pl.col("time") < START + timedelta(hours=1))
    dice = np.random.default_rng(9)
    truth = right["value"].cast(pl.Float64).to_numpy() + dice.normal(size=right.height)
    told = [{"prediction_id": i, "value": v} for i, v in zip(right["id"], truth.tolist(), strict=True)]
    import_labels(lived, "far", told, by="ada")
    drain(log_folder(lived.settings.home), lived.lake, now=START + timedelta(hours=7))
    window = look(lived, START + timedelta(days=2))[0]
    assert window.mature
    view = monitor_view(lived, "far")["windows"][0]
    assert view["performance"]["value"] == pytest.approx(0.8, abs=0.1)
    assert abs(view["performance"]["estimate_error"]) < 0.15
    assert {s["value"] for s in view["slices"]} == set(LEVELS)
    assert sum(s["performance"]["labelled"] for s in view["slices"]) == 300


def test_any_span_is_the_sum_of_its_windows(lived: Parts) -> None:
    look(lived, START + timedelta(days=2))
    ends = [w.end for w in lived.metadata.windows.of("far")]
    view = monitor_view(lived, "far", start=START, end=ends[2])
    (span,) = view["span"]
    assert (span["windows"], span["rows"], span["version"]) == (3, 900, 1)
    assert "histograms" not in view["windows"][0]
    found = {(s["feature"], s["signal"]): s for s in span["signals"]}
    assert found[("load", "psi")]["verdict"] == "pass"
    assert found[("load", "type_errors")]["value"] == pytest.approx(100 / 1_000, abs=0.001)
    (whole,) = monitor_view(lived, "far", start=START)["span"]
    assert whole["rows"] == 1_200
    with pytest.raises(UsageError):
        monitor_view(lived, "far", start=START, end=START)


def test_what_moved_most_is_drawn_first_and_the_page_holds_all(lived: Parts) -> None:
    look(lived, START + timedelta(days=2))
    view = monitor_view(lived, "far", start=START)
    console = Console(width=200, record=True, file=StringIO())
    for part in monitored(view):
        console.print(part)
    text = " ".join(console.export_text().split())
    assert text.index("wasserstein") < text.index("null_rate")
    assert "█" in text
    assert "as one: 4 windows, 1,200 rows" in text
    page = monitor_page(view)
    assert page.count("Plotly.newPlot") >= 1
    assert "<td>wasserstein</td>" in page
    assert "http://" not in page.split("</script>")[-1]
    for told in (*(s for w in view["windows"] for s in w["signals"]), *view["span"][0]["signals"]):
        told["verdict"] = "calendar" if told["signal"] in ("psi", "js", "wasserstein") else told["verdict"]
    for part in monitored(view):
        console.print(part)
    text = " ".join(console.export_text().split())
    assert text.count("calendar: not judged") >= 2
    assert text.index("null_rate") < text.index("wasserstein"), "what is not judged comes last"
    assert "<td>calendar: not judged</td>" in monitor_page(view)


YES_OR_NO = """import mulle as ml
visits = ml.Dataset("visits", ml.Files("visits.parquet"), key="id", time="at", outcome="bought")
@ml.features(visits)
def shape(rows):
    return rows.select("age", "pages")
buys = ml.Model(
    "buys", features=shape, target="bought", task="binary", split=ml.holdout("10d"),
    search=ml.Search([ml.logistic()], trials=2), gates=[ml.parity(1e-4)], rollout=ml.immediate(),
    monitor=ml.Monitor(window="1h", min_rows=50, reference="same_weekday"),
)
"""


def test_a_classifier_is_estimated_by_its_confidence_and_held_against_its_weekday(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text(YES_OR_NO)
    dice, n = np.random.default_rng(0), 3_000
    at = [START - timedelta(days=70) + timedelta(days=69 * i / n) for i in range(n)]
    # At weekends the young come.
    age = dice.normal(40, 8, n) - np.array([25.0 if t.isoweekday() > 5 else 0.0 for t in at])
    pages = dice.normal(size=n)
    bought = np.where(dice.random(n) < 1 / (1 + np.exp(-2 * pages)), "yes", "no")
    rows = {"id": [f"v{i}" for i in range(n)], "at": at, "age": age, "pages": pages, "bought": bought.tolist()}
    pl.DataFrame(rows, schema_overrides={"at": pl.Datetime("us", "UTC")}).write_parquet(folder / "visits.parquet")
    parts = wire(load_settings({"project": folder}, {}), clock=ReplayClock(START))
    run_model(parts, "buys", causes=WHY)
    assert START.isoweekday() == 7
    said = 1 / (1 + np.exp(-2 * dice.normal(size=100)))
    told = {
        "at": 0, "by_row": True, "model": "buys", "version": 1, "key": ["id"], "classes": ["no", "yes"],
        "id": [derived_id(START, f"v{i}") for i in range(100)], "request": [f"v{i}" for i in range(100)],
        "route": ["champion"] * 100, "time": [int((START + timedelta(seconds=i)).timestamp() * 1e6) for i in range(100)],
        "row": [{"id": f"v{i}"} for i in range(100)],
        "features": {"age": dice.normal(15, 8, 100).tolist(), "pages": dice.normal(size=100).tolist()},
        "value": ["yes" if p > 0.5 else "no" for p in said], "probabilities": [[1 - p, p] for p in said.tolist()],
        "freshness": [{}] * 100, "unseen": {}, "seconds": [0.001] * 100,
    }  # fmt: skip
    write(parts, pack(orjson.dumps(told)))
    drain(log_folder(parts.settings.home), parts.lake, now=START + timedelta(hours=1))
    judge_windows(parts, parts.project.model("buys"), START + timedelta(hours=1))
    (window,) = parts.metadata.windows.of("buys")
    assert (window.rows, window.reference) == (100, "same_weekday")
    assert ("age", "psi") not in alarms(window)
    assert window.performance is not None
    assert window.performance.metric == "log_loss"
    assert window.performance.estimate == pytest.approx(
        float(-(said * np.log(said) + (1 - said) * np.log(1 - said)).mean()), rel=0.2
    )
    parts.online.close()
