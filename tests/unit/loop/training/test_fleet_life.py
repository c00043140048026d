"""A fleet that lives: a tick finds the member that decays, trains it alone, and judges its canary; a crash takes nobody along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from tests.fleet_rows import sold

from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock
from mulle.core.errors import NotFound
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.deployment import Deployment, champion_of
from mulle.core.settings import load_settings
from mulle.lifecycle.rollout.plan import canary_of
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import Segment, log_folder, pack
from mulle.loop.data.labels import import_labels
from mulle.loop.data.predictions import predictions_view
from mulle.loop.operate import add_deployment, start_wanted
from mulle.loop.parts import Parts
from mulle.loop.rollout.release import begin_release
from mulle.loop.runner import open_engine, run_model
from mulle.loop.tick import Tick, tick
from mulle.loop.views.chain import find_version, run_view
from mulle.loop.views.lineage import explain_view
from mulle.loop.views.models import reproduce_view, saw_view
from mulle.loop.views.status import status_view

WHY = (Cause(type="person", id="ada", why="asked"),)
START = datetime(2026, 3, 1, tzinfo=UTC)

PROJECT = """import mulle as ml
sales = ml.Dataset("sales", ml.Files("sales*.parquet"), key="id", time="day", outcome="units")
@ml.features(sales)
def shape(rows):
    return rows.select("price")
demand = ml.Model(
    "demand", features=shape, target="units", task="regression", split=ml.holdout("20d"), each="store",
    search=ml.Search([ml.dummy(), ml.ridge()], trials=2),
    gates=[ml.no_worse_than_champion("mae"), ml.parity(1e-4)], rollout=ml.canary(50, 100, hold="1m", min_rows=20),
    monitor=ml.Monitor(window="1d", delay="1d", performance=ml.at_most("mae", 3)),
    retrain=ml.Retrain(on=["performance"], cooldown="1h"),
)
"""


def log(parts: Parts, model: str, version: int, route: str, names: Sequence[str], said: float, at: datetime) -> list[str]:
    """Log answers of one version; scores of the same row share the request."""
    ids = [derived_id(at, f"{model}@{version}-{name}") for name in names]
    us = [int((at + timedelta(minutes=n)).timestamp() * 1e6) for n in range(len(names))]
    batch = {
        "at": us[0], "by_row": False, "model": model, "version": version, "key": ["id"], "classes": [], "id": ids,
        "request": list(names), "route": [route] * len(names), "time": us, "row": [{"id": name} for name in names],
        "features": {"price": [10.0] * len(names)}, "value": [said] * len(names), "probabilities": None,
        "freshness": [{}] * len(names), "unseen": {}, "seconds": [0.001] * len(names),
    }  # fmt: skip
    segment = Segment(log_folder(parts.settings.home), "predictions")
    segment.write([pack(orjson.dumps(batch))])
    segment.close()
    return ids


def look(parts: Parts, at: datetime) -> Tick:
    assert isinstance(parts.clock, ReplayClock)
    parts.clock.advance(at)
    return tick(parts, drain=lambda: drain(log_folder(parts.settings.home), parts.lake, now=at))


def champions(parts: Parts) -> dict[str, int | None]:
    return {name: champion_of(found[-1]) for name, found in parts.metadata.deployments.latest(1).items()}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder: Path = tmp_path_factory.mktemp("fleet") / "project"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    first = START - timedelta(days=100)
    rows = [sold(s, slope, first, 99) for s, slope in (("a", 1.0), ("b", 8.0), ("c", 2.0))]
    pl.concat(rows).write_parquet(folder / "sales1.parquet")
    parts = wire(load_settings({"project": folder}, {}), clock=ReplayClock(START))
    run_model(parts, "demand", causes=WHY)
    yield parts
    parts.online.close()


def test_a_tick_names_the_member_that_decays_and_trains_it_alone_until_its_canary_is_judged(lived: Parts) -> None:
    parts, before = lived, champions(lived)
    assert before == {"demand": 1, "demand/a": 1, "demand/b": 1, "demand/c": 1}
    # A day of answers: those of b are five off, so that the whole still holds its bound.
    ids = {s: log(parts, f"demand/{s}", 1, "champion", [f"{s}{n}" for n in range(30)], 40.0, START + timedelta(hours=1))
           for s in "abc"}  # fmt: skip
    # What people say names the fleet: by prediction, and by key.
    assert isinstance(parts.clock, ReplayClock)
    parts.clock.advance(START + timedelta(hours=3))
    off = {"a": 0.5, "b": 5.0, "c": 0.5}
    told = [{"prediction_id": id, "value": 40.0 + off[s]} for s in "ab" for id in ids[s]]
    receipt = import_labels(parts, "demand", [*told, *({"id": f"c{n}", "value": 40.5} for n in range(30))], by="ada")
    assert (receipt["accepted"], receipt["unknown"]) == (90, [])

    found = look(parts, START + timedelta(days=2, hours=1))
    alerts = parts.metadata.alerts.list(state="open")
    assert [a.model for a in alerts] == ["demand/b"]
    assert [(m, c.id) for m, c in found.wanted] == [("demand/b", alerts[0].id)]
    window = parts.metadata.windows.last("demand")
    assert window is not None
    assert window.performance is not None
    assert window.performance.value == pytest.approx(2.0)
    (standing,) = status_view(parts)["models"]
    assert standing["state"] == "alarmed"
    assert "of demand/b" in standing["says"]
    assert [a["model"] for a in standing["alerts"]] == ["demand/b"]

    # All that is asked of the fleet counts its members' answers, whichever name the label had.
    sql = "select model, count(label) as n from predictions group by 1 order by 1"
    view = predictions_view(parts, "demand", sql=sql, since="9d")
    assert view["items"] == [{"model": f"demand/{s}", "n": 30} for s in "abc"]
    assert explain_view(parts, ids["c"][0])["label"]["value"] == 40.5
    assert [a["model"] for a in explain_view(parts, ids["b"][0])["alerts"]] == ["demand/b"]

    sold("b", 12.0, START - timedelta(hours=20), 22).write_parquet(parts.settings.project / "sales2.parquet")
    parts.clock.advance(START + timedelta(days=22))
    (run,) = start_wanted(parts, found.wanted)
    with open_engine(parts) as engine:
        assert engine.wait(run.id, 300) == "succeeded"
    assert [(m.model, m.outcome) for m in parts.metadata.runs.members(run.id)] == [("demand/b", "trained")]
    told_of = run_view(parts, run.id)
    assert told_of["data"] == {"sales": 2}
    assert told_of["causes"][0]["type"] == "alert"
    gates = {g.gate: g for g in parts.metadata.runs.gates(run.id, "demand/b")}
    assert gates["no_worse_than_champion(mae)"].verdict == "pass"
    assert gates["no_worse_than_champion(mae)"].rows > 10  # after its own champion's rows, with a value that it was held to
    assert gates["no_worse_than_champion(mae)"].bound is not None
    saw = saw_view(parts, "sales@2")["items"]
    assert [(i["model"], i["version"], i["saw"]) for i in saw] == [("demand/b", 2, "this version")]
    assert {i["model"] for i in saw_view(parts, "sales@1")["items"]} == {"demand", "demand/a", "demand/b", "demand/c"}

    assert champions(parts) == before
    beginning = parts.metadata.deployments.of("demand/b")[-1]
    canary = canary_of(beginning)
    assert canary is not None
    assert canary.version == 2
    at = parts.clock.now() + timedelta(minutes=5)
    names = [f"n{n}" for n in range(80)]
    asked = log(parts, "demand/b", 1, "champion", names, 30.0, at)
    log(parts, "demand/b", 2, "shadow", names, 39.5, at)
    parts.clock.advance(at + timedelta(hours=2))
    drain(log_folder(parts.settings.home), parts.lake, now=parts.clock.now())
    import_labels(parts, "demand", [{"prediction_id": id, "value": 40.0 + n % 3} for n, id in enumerate(asked)], by="ada")
    judged = look(parts, at + timedelta(hours=3))
    assert [(kind, model) for kind, model, _ in judged.happenings if kind in ("promote", "hold_back", "step")] == [
        ("promote", "demand/b")
    ]
    assert champions(parts) == {**before, "demand/b": 2}


def test_who_has_few_requests_is_released_when_the_wait_is_over_and_by_no_others_rows(lived: Parts) -> None:
    parts, (later, *_) = lived, lived.metadata.runs.list("demand", 1)
    for name in ("demand", "demand/c"):
        known = parts.metadata.models.get(name, 1)
        assert known is not None
        parts.metadata.models.add(replace(known, id=f"{name}-again", version=0, run=later.id, tracking={}))
        model, cause = parts.project.model(name), Cause(type="run", id="r2", why="registered")
        begun = begin_release(parts, model, 2, rollout=model.rollout, causes=(cause,), now=parts.clock.now())
        assert isinstance(begun, Deployment)
        add_deployment(parts, begun)
    assert (champions(parts)["demand"], champions(parts)["demand/c"]) == (1, 1)
    at = parts.clock.now() + timedelta(minutes=5)
    # Of the member c a few rows are labelled; of a, whose versions have the same numbers as the shared model's, many.
    asked = log(parts, "demand/c", 1, "champion", [f"few{n}" for n in range(5)], 30.0, at)
    log(parts, "demand/c", 2, "shadow", [f"few{n}" for n in range(5)], 30.0, at)
    asked += log(parts, "demand/a", 1, "champion", [f"many{n}" for n in range(80)], 30.0, at)
    log(parts, "demand/a", 2, "shadow", [f"many{n}" for n in range(80)], 39.5, at)
    assert isinstance(parts.clock, ReplayClock)
    parts.clock.advance(at + timedelta(hours=2))
    drain(log_folder(parts.settings.home), parts.lake, now=parts.clock.now())
    import_labels(parts, "demand", [{"prediction_id": id, "value": 40.0} for id in asked], by="ada")
    look(parts, at + timedelta(hours=3))
    assert (champions(parts)["demand"], champions(parts)["demand/c"]) == (1, 1), "neither has evidence of its own"
    look(parts, at + timedelta(days=3, hours=1))
    assert (champions(parts)["demand"], champions(parts)["demand/c"]) == (2, 2)
    for name, rows in (("demand", 0), ("demand/c", 5)):
        last = parts.metadata.deployments.of(name)[-1]
        assert (last.action, last.evidence["rows"]) == ("promote", rows)
        assert "released all the same, for its gates held" in last.causes[0].why


def test_a_member_is_made_again_from_its_own_rows(lived: Parts) -> None:
    view = reproduce_view(lived, "demand/a@1")
    assert view["reproduced"], view
    assert view["agreement"]["rows"] == 198
    assert (view["model"], view["features"], view["data"]) == ("demand/a", True, True)


def test_a_member_without_a_version_is_told_with_the_reason(lived: Parts) -> None:
    with pytest.raises(NotFound) as refused:
        find_version(lived, "demand/nowhere")
    assert "no row had that key" in refused.value.detail
    assert "models show demand" in refused.value.next


CRASHING = """import os
import mulle as ml
from sklearn.linear_model import LinearRegression
sales = ml.Dataset("sales", ml.Files("sales*.parquet"), key="id", time="day", outcome="units")
@ml.features(sales)
def shape(rows):
    return rows.select("price", "store")
class Fragile(LinearRegression):
    def fit(self, X, y, sample_weight=None):
        if min(y) > 500:
            os._exit(9)
        return super().fit(X, y, sample_weight)
demand = ml.Model(
    "demand", features=shape, target="units", task="regression", split=ml.holdout("20d"), each="store",
    search=ml.Search([ml.dummy(), ml.custom(Fragile)], trials=2), gates=[ml.parity(1e-3)], rollout=ml.immediate(),
)
"""


def test_a_member_that_takes_its_process_with_it_leaves_the_others_whole(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text(CRASHING)
    rows = [sold(s, slope, START - timedelta(days=100), 99) for s, slope in (("a", 1.0), ("b", 2.0), ("z", 6.0))]
    rows[1] = rows[1].with_columns(units=pl.col("units") + 1_000)
    pl.concat(rows).write_parquet(folder / "sales.parquet")
    parts = wire(load_settings({"project": folder}, {}), clock=ReplayClock(START))
    run = run_model(parts, "demand", causes=WHY)
    assert run_view(parts, run.id)["state"] == "succeeded"
    found = {m.model: m for m in parts.metadata.runs.members(run.id)}
    assert {name: m.outcome for name, m in found.items()} == {"demand/a": "trained", "demand/b": "failed", "demand/z": "trained"}
    assert found["demand/b"].reason
    assert champions(parts) == {"demand": 1, "demand/a": 1, "demand/z": 1}
    parts.online.close()
