"""A release is carried on by the log alone: promoted, held back, watched, gone back from; or left to a person who paused it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock
from mulle.core.errors import Conflict, NotFound, Refused
from mulle.core.hashing import derived_id, hash_folder
from mulle.core.records.base import Cause, to_json
from mulle.core.records.bundle import Contract, FeatureSpec, InputField
from mulle.core.records.deployment import Deployment, champion_of, former_of
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.records.run import Run
from mulle.core.settings import load_settings
from mulle.kernel.histograms import build_reference
from mulle.kernel.routes import read_routes
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import Segment, log_folder, pack
from mulle.loop.data.labels import import_labels
from mulle.loop.monitoring.windows import monitor_view
from mulle.loop.operate import add_deployment, deploy, pause, promote, resume, rollback
from mulle.loop.parts import Parts
from mulle.loop.rollout.release import begin_release
from mulle.loop.rollout.route import routes_path
from mulle.loop.tick import Tick, tick
from mulle.loop.views.chain import history_view
from mulle.loop.views.plan import plan
from mulle.loop.views.status import status_view

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PROJECT = """import mulle as ml
trips = ml.Dataset("trips", ml.Files("trips*.parquet"), key="id", time="at", outcome="y")
@ml.features(trips)
def shape(rows):
    return rows.select("x")
m = ml.Model("m", features=shape, target="y", task="regression", rollout={rollout},
             monitor=ml.Monitor(window="1h", delay="0s", min_rows=20, performance=ml.at_most("mae", 3)),
             retrain=ml.Retrain(on=["performance"], cooldown="1h"))
"""
SPECS = (FeatureSpec(name="x", kind="number"),)


def version(parts: Parts, number: int) -> None:
    """Register a version; its bundle has what the loop reads of it, and no model."""
    run = f"run-{number}"
    folder = parts.settings.home / "bundles" / f"b{number}"
    folder.mkdir(parents=True)
    rows = pl.DataFrame({"x": np.arange(200.0)})
    (folder / "reference.json").write_bytes(orjson.dumps(build_reference(rows, SPECS, rows["x"])))
    parity = Parity(tolerance=1e-4, scale=1.0, rows=10, worst=0.0, outside=0.0)
    contract = Contract(
        format=1, model="m", task="regression", target="y", classes=(), dataset="trips", key=("id",), time="at",
        inputs=(InputField(name="x", type="FP64", dtype="Float64", required=True),), joins=(), features=SPECS,
        transform={"function": "shape", "hash": "t", "code": "c"}, compiled="onnx", parity=parity, scale=1.0, run=run,
        data={}, data_cutoff=START, refit_cutoff=START,
    )  # fmt: skip
    (folder / "bundle.json").write_bytes(orjson.dumps(to_json(contract)))
    why = (Cause(type="person", id="ada", why="asked"),)
    parts.metadata.runs.add(Run(id=run, created_at=START, causes=why, model="m", cutoff=START, code=f"c0de{number}", git="abc"))
    parts.metadata.models.add(
        ModelVersion(
            id=f"v{number}", created_at=START, causes=why, model="m", version=number, run=run, bundle=hash_folder(folder),
            address=str(folder), compiled="onnx", parity=parity, metrics={}, size_bytes=1, features=("x",), data={},
            data_cutoff=START, refit_cutoff=START,
        )
    )  # fmt: skip


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], Parts]]:
    """Give what opens a project of a rollout, with versions 1 (champion since START) and 2."""
    made: list[Parts] = []

    def open_project(rollout: str) -> Parts:
        (tmp_path / "project.py").write_text(PROJECT.replace("{rollout}", rollout))
        parts = wire(load_settings({"project": tmp_path}, {}), clock=ReplayClock(START))
        made.append(parts)
        version(parts, 1)
        version(parts, 2)
        deploy(parts, "m", 1, by="ada")
        return parts

    yield open_project
    for parts in made:
        parts.online.close()


def begin(parts: Parts, number: int = 2) -> Deployment:
    model = parts.project.model("m")
    cause = Cause(type="run", id=f"run-{number}", why="registered")
    made = begin_release(parts, model, number, rollout=model.rollout, causes=(cause,), now=parts.clock.now())
    assert isinstance(made, Deployment), made
    return add_deployment(parts, made)


def log(
    parts: Parts, number: int, route: str, off: Sequence[float], at: datetime, *, seconds: float = 0.001, batch: int = 1
) -> list[str]:
    """Log a version's answers `off` the truth, which is the row's number; `batch` rows at a time."""
    segment = Segment(log_folder(parts.settings.home), "predictions")
    ids = []
    for start in range(0, len(off), batch):
        rows = range(start, min(start + batch, len(off)))
        us = [int((at + timedelta(seconds=n)).timestamp() * 1e6) for n in rows]
        mine = [derived_id(at, f"{number}-{n}") for n in rows]
        ids += mine
        told = {
            "at": us[0], "by_row": False, "model": "m", "version": number, "key": ["id"], "classes": [], "id": mine,
            "request": [f"{at.isoformat()}-{n}" for n in rows], "route": [route] * len(rows), "time": us,
            "row": [{"id": f"{at.isoformat()}-{n}"} for n in rows], "features": {"x": [float(n) for n in rows]},
            "value": [float(n + off[n]) for n in rows], "probabilities": None, "freshness": [{}] * len(rows), "unseen": {},
            "seconds": [seconds] * len(rows),
        }  # fmt: skip
        segment.write([pack(orjson.dumps(told))])
    segment.close()
    return ids


def failed(parts: Parts, number: int | None, count: int, at: datetime, kind: str = "transform") -> None:
    """Log what `logged.refused_record` does of batches that a version failed."""
    us = int(at.timestamp() * 1e6)
    seconds = 0.0 if number is not None else 0.001
    told = [{"id": f"f{n}", "request": f"f{n}", "version": number, "seconds": seconds, "error": kind} for n in range(count)]
    segment = Segment(log_folder(parts.settings.home), "predictions")
    segment.write([pack(orjson.dumps({"refused": told, "model": "m", "at": us}))])
    segment.close()


def both(
    parts: Parts, leads: int, other: int, scale: dict[int, float], at: datetime, rows: int = 600, labels: bool = True,
    seconds: float = 0.001,
) -> None:  # fmt: skip
    """Log the same rows of two versions, each with errors of its own scale; the labels are told at once."""
    rng = np.random.default_rng(int(at.timestamp()) % 2**31)
    ids = log(parts, leads, "champion", list(rng.normal(0, scale[leads], rows)), at, seconds=seconds)
    log(parts, other, "shadow", list(rng.normal(0, scale[other], rows)), at)
    advance(parts, at + timedelta(seconds=rows))
    drain(log_folder(parts.settings.home), parts.lake, now=parts.clock.now())
    if labels:
        import_labels(parts, "m", [{"prediction_id": id, "value": float(n)} for n, id in enumerate(ids)], by="ada")


def advance(parts: Parts, to: datetime) -> None:
    assert isinstance(parts.clock, ReplayClock)
    parts.clock.advance(to)


def look(parts: Parts, at: datetime) -> Tick:
    advance(parts, at)
    return tick(parts, drain=lambda: drain(log_folder(parts.settings.home), parts.lake, now=at))


def last(parts: Parts, environment: str = "production") -> Deployment:
    return parts.metadata.deployments.of("m", environment)[-1]


def modes(parts: Parts) -> dict[int, str]:
    """What the server is told."""
    table = read_routes(routes_path(parts))
    return {route.version: route.mode for route in table.models["m"].deployments[-1].routes}


def test_a_shadow_is_promoted_by_paired_labels_and_the_former_champion_is_watched_until_it_settles(opened):
    parts = opened('ml.shadow(watch="1d")')
    assert begin(parts).action == "shadow"
    assert modes(parts) == {1: "champion", 2: "shadow"}
    assert "version 2 scores unseen" in status_view(parts)["models"][0]["says"]
    both(parts, 1, 2, {1: 2.0, 2: 1.0}, START + HOUR)
    assert [h[0] for h in look(parts, START + 2 * HOUR).happenings if h[0] != "alert"] == ["promote"]
    assert (last(parts).by, champion_of(last(parts)), former_of(last(parts))) == ("loop", 2, 1)
    evidence = last(parts).evidence
    assert (evidence["rows"], evidence["verdict"], evidence["service"]["errors"]) == (600, "no worse", 0)
    assert evidence["high"] < 0 < evidence["service"]["answers"] + 1
    assert status_view(parts)["models"][0]["watched"] == 1
    both(parts, 2, 1, {1: 2.0, 2: 1.0}, START + 3 * HOUR)
    assert not [h for h in look(parts, START + 5 * HOUR).happenings if h[0] != "alert"]
    assert [h[0] for h in look(parts, START + 27 * HOUR).happenings if h[0] != "alert"] == ["settle"]
    assert modes(parts) == {2: "champion"}


def test_a_worse_shadow_is_held_back_and_nobody_was_ever_answered_by_it(opened):
    parts = opened("ml.shadow()")
    begin(parts)
    both(parts, 1, 2, {1: 1.0, 2: 2.0}, START + HOUR)
    look(parts, START + 2 * HOUR)
    assert (last(parts).action, last(parts).evidence["verdict"], modes(parts)) == ("hold_back", "worse", {1: "champion"})
    assert last(parts).evidence["low"] > 0


@pytest.mark.parametrize("cause", ["worse", "errors", "slower"])
def test_a_new_champion_is_gone_back_from_by_the_loop_while_it_is_watched(opened, cause):
    parts = opened("ml.canary(50, 100)")
    begin(parts)
    both(parts, 1, 2, {1: 2.0, 2: 1.0}, START + HOUR)
    look(parts, START + 2 * HOUR)
    assert (last(parts).action, champion_of(last(parts))) == ("promote", 2)
    scale = {1: 1.0, 2: 2.0} if cause == "worse" else {1: 1.0, 2: 1.0}
    both(parts, 2, 1, scale, START + 3 * HOUR, seconds=0.01 if cause == "slower" else 0.001)
    if cause == "errors":
        failed(parts, None, 40, START + 3 * HOUR)
        failed(parts, None, 400, START + 3 * HOUR, "schema")  # what callers did wrong says nothing of the version
    found = look(parts, START + 4 * HOUR)
    assert "rollback" in [h[0] for h in found.happenings]
    back = last(parts)
    assert (back.action, back.by, back.from_version, back.to_version) == ("rollback", "loop", 2, 1)
    assert back.evidence["verdict"] == cause
    assert back.causes[0].why.startswith(f"m@2 after @1: {cause}")
    assert modes(parts) == {1: "champion"}
    if cause == "errors":
        assert back.evidence["service"]["kinds"] == {"transform": 40}


def test_a_challenger_that_fails_is_held_back_without_a_label(opened):
    parts = opened("ml.canary(5, 100)")
    begin(parts)
    both(parts, 1, 2, {1: 1.0, 2: 1.0}, START + HOUR, rows=100, labels=False)
    failed(parts, 2, 20, START + HOUR)
    look(parts, START + 2 * HOUR)
    assert (last(parts).action, last(parts).evidence["service"]["errors"]) == ("hold_back", 20)
    assert "20 of 120 batches (20 transform)" in last(parts).causes[0].why


def test_blue_is_left_for_green_after_a_probe_without_labels_and_stays_loaded(opened):
    parts = opened('ml.blue_green(min_rows=50, watch="1h")')
    assert begin(parts).action == "blue_green"
    look(parts, START + timedelta(minutes=5))
    assert last(parts).action == "blue_green"
    both(parts, 1, 2, {1: 1.0, 2: 1.0}, START + HOUR, rows=60, labels=False)
    look(parts, START + 2 * HOUR)
    assert (last(parts).action, modes(parts)) == ("promote", {2: "champion", 1: "shadow"})
    assert last(parts).evidence["service"]["rows"] == 60
    assert rollback(parts, "m", by="ada").to_version == 1


def test_answers_that_differ_are_said_once_and_need_proof_of_better(opened):
    parts = opened("ml.shadow(answers=0.2, margin=0.5, min_rows=50)")
    begin(parts)
    rng = np.random.default_rng(3)
    at, off = START + HOUR, rng.normal(0, 60, 200)
    ids = log(parts, 1, "champion", list(off), at)
    log(parts, 2, "shadow", [200 - 2 * n for n in range(200)], at)
    advance(parts, at + HOUR)
    drain(log_folder(parts.settings.home), parts.lake, now=parts.clock.now())
    import_labels(parts, "m", [{"prediction_id": id, "value": n + 1e3 * (-1) ** n} for n, id in enumerate(ids)], by="ada")
    # Both are off by a thousand: no worse within the margin, yet of other answers.
    assert [h[0] for h in look(parts, START + 3 * HOUR).happenings if h[0] != "alert"] == ["hold"]
    assert last(parts).evidence["service"]["answers"] > 0.2
    assert not [h for h in look(parts, START + 4 * HOUR).happenings if h[0] == "hold"]
    says = status_view(parts)["models"][0]["says"]
    assert "its release is held (" in says
    assert "`mulle promote m` or `mulle rollback m` ends it" in says


def test_an_approval_is_waited_for_and_said_and_a_person_promotes(opened):
    parts = opened('ml.shadow(approval=True, max_wait="1d")')
    begin(parts)
    both(parts, 1, 2, {1: 2.0, 2: 1.0}, START + HOUR)
    (said,) = [h for h in look(parts, START + 2 * HOUR).happenings if h[0] == "await"]
    assert "`mulle promote m`" in said[2]
    (standing,) = status_view(parts)["models"]
    assert standing["waits"]
    assert "waits for approval" in standing["says"]
    # Time passes; what waits for a person is neither said again nor given up.
    assert not [h for h in look(parts, START + timedelta(days=3)).happenings if h[0] in ("await", "hold_back")]
    promoted = promote(parts, "m", by="ada")
    assert (promoted.action, promoted.by, champion_of(promoted), former_of(promoted)) == ("promote", "ada", 2, 1)


def test_a_release_at_once_waits_for_approval_unseen(opened):
    parts = opened("ml.immediate(approval=True)")
    assert begin(parts).action == "await"
    assert modes(parts) == {1: "champion", 2: "shadow"}
    look(parts, START + timedelta(days=9))
    assert last(parts).action == "await"
    assert "waits for approval: `mulle promote m`" in status_view(parts)["models"][0]["says"]
    assert champion_of(promote(parts, "m", by="ada")) == 2


@pytest.mark.parametrize("move", [pause, resume, rollback])
def test_of_a_model_that_there_is_not_those_that_there_are_are_named(opened, move):
    parts = opened("ml.immediate()")
    with pytest.raises(NotFound, match="no model 'nope'") as refused:
        move(parts, "nope", by="ada")
    assert refused.value.next == "declared: m"


def test_a_paused_model_serves_and_is_watched_and_the_loop_moves_nothing(opened):
    parts = opened('ml.canary(50, 100, max_wait="2d")')
    begin(parts)
    shares = [(r.version, r.share, r.mode) for r in last(parts).routes]
    paused = pause(parts, "m", by="ada", why="a moving market")
    assert (paused.action, paused.by, paused.causes[0].why, paused.paused) == ("pause", "ada", "a moving market", True)
    assert [(r.version, r.share, r.mode) for r in paused.routes] == shares
    with pytest.raises(Refused, match="paused already"):
        pause(parts, "m", by="ada")
    both(parts, 1, 2, {1: 9.0, 2: 1.0}, START + HOUR)
    found = look(parts, START + 3 * HOUR)
    # The champion is alarmingly bad, and the challenger better: an alert opens, and that is all.
    assert {h[0] for h in found.happenings} == {"alert"}
    assert "performance" in {a.signal for a in parts.metadata.alerts.list("m", state="open")}
    assert (found.wanted, last(parts).action) == ((), "pause")
    (standing,) = status_view(parts)["models"]
    assert standing["paused"] == {"by": "ada", "at": "2026-03-01T00:00:00Z", "why": "a moving market"}
    assert "its automation is paused by ada (a moving market): `mulle resume m`" in standing["says"]
    assert history_view(parts, "m")["paused"] is True
    assert monitor_view(parts, "m")["paused"]["why"] == "a moving market"
    assert plan(parts)["models"][0]["paused"]["by"] == "ada"
    # What a run made meanwhile is not released by the loop, and a person still may.
    version(parts, 3)
    model = parts.project.model("m")
    cause = Cause(type="run", id="run-3", why="registered")
    told = begin_release(parts, model, 3, rollout=model.rollout, causes=(cause,), now=parts.clock.now())
    assert told == "m is paused by ada (a moving market): `mulle deploy m@3` releases it by hand"
    resumed = resume(parts, "m", by="bob")
    assert (resumed.action, resumed.by, resumed.paused) == ("resume", "bob", False)
    assert status_view(parts)["models"][0]["paused"] is None
    with pytest.raises(Refused, match="not paused"):
        resume(parts, "m", by="bob")
    look(parts, START + 4 * HOUR)
    assert (last(parts).action, champion_of(last(parts))) == ("promote", 2)


def test_a_pause_outlives_a_move_by_hand_and_what_it_took_of_a_canarys_time_is_given_back(opened):
    parts = opened('ml.canary(50, 100, max_wait="2d")')
    begin(parts)
    pause(parts, "m", by="ada")
    advance(parts, START + timedelta(days=5))
    resume(parts, "m", by="ada")
    look(parts, START + timedelta(days=6))
    assert last(parts).action == "resume"
    look(parts, START + timedelta(days=8))
    assert (last(parts).action, last(parts).evidence["verdict"][:10]) == ("hold_back", "not enough")
    pause(parts, "m", by="ada")
    assert deploy(parts, "m", 2, by="ada").paused


def test_what_was_never_deployed_has_no_automation_to_pause(opened):
    parts = opened("ml.canary()")
    with pytest.raises(NotFound):
        pause(parts, "other", by="ada")


def test_history_at_an_instant_tells_share_data_and_code(opened):
    parts = opened("ml.canary(5, 100)")
    advance(parts, START + HOUR)
    begin(parts)
    at = history_view(parts, "m", at="2026-03-01 02:00")
    told = [(s["version"], s["mode"], s["share"], s["run"], s["code"], s["git"]) for s in at["served"]]
    assert told == [(1, "champion", 0.95, "run-1", "c0de1", "abc"), (2, "canary", 0.05, "run-2", "c0de2", "abc")]
    assert at["served"][0]["refit_cutoff"] == "2026-03-01T00:00:00Z"
    assert [s["version"] for s in history_view(parts, "m", at="2026-03-01 00:30")["served"]] == [1]
    assert history_view(parts, "m", at="2025-01-01")["served"] == []


def test_staging_comes_first_and_its_routes_are_its_own(opened):
    parts = opened('ml.shadow(staging=True, hold="1h")')
    before = modes(parts)
    staged = begin(parts)
    assert (staged.environment, staged.action, champion_of(staged)) == ("staging", "deploy", 2)
    assert modes(parts) == before == {1: "champion"}
    table = read_routes(routes_path(parts, "staging"))
    assert [r.version for r in table.models["m"].deployments[-1].routes] == [2]
    assert "staging has version 2" in status_view(parts)["models"][0]["says"]
    assert not look(parts, START + timedelta(minutes=30)).happenings
    # Its bundle has no model: it does not pass, which is said once.
    assert [h[0] for h in look(parts, START + 2 * HOUR).happenings] == ["refuse"]
    assert last(parts, "staging").evidence["staging"]["problem"]
    assert not look(parts, START + 3 * HOUR).happenings
    assert modes(parts) == before
    assert "does not pass in staging" in status_view(parts)["models"][0]["says"]
    # A person may know better: production begins the declared release of what staging has.
    asked = promote(parts, "m", by="ada")
    assert (asked.environment, asked.action, asked.to_version) == ("production", "shadow", 2)
    assert [c.type for c in asked.causes] == ["person", "deployment"]
    assert [i["environment"] for i in history_view(parts, "m", environment="staging")["items"]] == ["staging", "staging"]


def test_there_is_nothing_to_promote_where_staging_has_nothing_else(opened):
    parts = opened("ml.canary()")
    with pytest.raises(Conflict, match="no canary to promote"):
        promote(parts, "m", by="ada")
    deploy(parts, "m", 1, by="ada", environment="staging")
    with pytest.raises(Conflict, match="staging"):
        promote(parts, "m", by="ada")
