"""What people and programs are shown is what the records say, in the shapes the surface promises."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import polars as pl
import pytest

from mulle.adapters.online.open import open_online
from mulle.core.clock import ReplayClock, WallClock, instant
from mulle.core.errors import NotFound, ProjectError
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.prediction import PREDICTIONS
from mulle.loop.keeping.doctor import doctor_view
from mulle.loop.lock import hold
from mulle.loop.monitoring.windows import monitor_view
from mulle.loop.views.chain import (
    alerts_view,
    datasets_view,
    find_version,
    history_view,
    model_view,
    models_view,
    run_view,
    runs_view,
    versions_view,
)
from mulle.loop.views.lineage import explain_view
from mulle.loop.views.status import engine_state, status_view, traffic
from mulle.surfaces.monitor_page import nothing_yet


def test_every_view_is_json_and_every_object_has_id_and_time(home):
    parts = home.parts
    for view in (
        runs_view(parts),
        models_view(parts),
        history_view(parts, "air-time"),
        versions_view(parts, "flights"),
        alerts_view(parts),
    ):
        assert view["items"]
        assert view["next"] is None
        for item in json.loads(json.dumps(view))["items"]:
            assert item["id"]
            assert item["created_at"].endswith("Z")
            assert isinstance(item["causes"], list)


def test_a_run_is_shown_with_its_stages_gates_trials_data_and_version(home):
    view = run_view(home.parts, "run-1")
    assert view["state"] == "succeeded"
    assert view["stages"] == [{"name": "ingest", "state": "done", "seconds": 1.5}]
    assert view["data"] == {"flights": 1}
    assert view["model_version"] == 1
    assert set(view["gates"][0]) >= {"name", "metric", "value", "bound", "verdict", "reason", "rows"} - {"name"}
    assert set(view["trials"][0]) >= {"number", "candidate", "params", "score", "state", "seconds"}
    rejected = run_view(home.parts, "run-3")
    assert (rejected["state"], rejected["reason"], rejected["model_version"]) == ("rejected", "mae 13 > 12", None)
    with pytest.raises(NotFound, match="no run 'nope'"):
        run_view(home.parts, "nope")


def test_gates_carry_the_name_the_surface_promises(home):
    assert run_view(home.parts, "run-1")["gates"][0]["name"] == "at_most(mae)"


def test_runs_page_on_from_where_the_last_page_ended(home):
    first = runs_view(home.parts, limit=2)
    second = runs_view(home.parts, limit=2, after=first["next"])
    assert [r["id"] for r in first["items"] + second["items"]] == ["run-3", "run-2", "run-1"]
    assert second["next"] is None
    assert [r["id"] for r in runs_view(home.parts, state="rejected")["items"]] == ["run-3"]


def test_versions_go_by_number_alias_or_champion(home):
    assert [find_version(home.parts, n).version for n in ("air-time", "air-time@champion", "air-time@challenger")] == [1, 1, 2]
    assert [find_version(home.parts, n).version for n in ("air-time@latest", "air-time@2")] == [2, 2]
    for wrong in ("air-time@9", "air-time@gold", "nope"):
        with pytest.raises(NotFound):
            find_version(home.parts, wrong)
    view = model_view(home.parts, "air-time@1")
    assert view["aliases"] == ["champion"]
    assert set(view) >= {
        "model",
        "version",
        "aliases",
        "metrics",
        "compiled",
        "parity",
        "size_bytes",
        "features",
        "data_cutoff",
        "refit_cutoff",
        "run",
    }


def test_history_tells_what_was_in_production_at_any_time(home):
    listed = history_view(home.parts, "air-time")["items"]
    assert [i["action"] for i in listed] == ["canary", "deploy"]
    assert listed[0]["from"] == 1
    assert listed[0]["to"] == 2
    assert "from_version" not in listed[0]
    then = history_view(home.parts, "air-time", at="2013-03-01T12:00:00+01:00")
    assert then["routes"] == [{"version": 1, "share": 1.0, "mode": "champion"}]
    before = history_view(home.parts, "air-time", at="2013-01-01")
    assert (before["routes"], before["action"]) == ([], None)
    with pytest.raises(NotFound, match="no model 'nope'"):
        history_view(home.parts, "nope")


def test_a_datasets_versions_come_with_tags_checks_and_what_was_turned_away(home):
    view = versions_view(home.parts, "flights")
    assert [(v["version"], v["tags"]) for v in view["items"]] == [(2, []), (1, ["gold"])]
    assert view["items"][0]["checks"][0]["name"] == "unique(flight_id)"
    assert "positions" not in view["items"][0]
    assert view["quarantined"][0]["checks"][0]["failed"] == 3
    assert [(d["dataset"], d["version"], d["quarantined"]) for d in datasets_view(home.parts)["items"]] == [("flights", 2, 1)]
    with pytest.raises(NotFound):
        versions_view(home.parts, "nope")


def test_alerts_say_whether_they_are_open_and_what_to_do(home):
    view = alerts_view(home.parts)
    assert {a["id"]: a["state"] for a in view["items"]} == {"alert-1": "closed", "alert-2": "open"}
    assert [a["id"] for a in alerts_view(home.parts, state="open")["items"]] == ["alert-2"]
    closed = next(a for a in view["items"] if a["id"] == "alert-1")
    assert closed["closed_at"]
    assert closed["opened_at"]
    assert closed["evidence"] == {"value": 0.31}


def test_windows_show_signals_and_performance(home):
    window = monitor_view(home.parts, "air-time")["windows"][0]
    assert window["signals"][0]["verdict"] == "alarm"
    assert window["performance"]["value"] == 6.9
    idle = monitor_view(home.parts, "idle")
    assert (idle["windows"], idle["next_window"], nothing_yet(idle)) == ([], None, "no version of idle answers yet")
    with pytest.raises(NotFound):
        monitor_view(home.parts, "nope")


def test_status_says_in_words_how_each_model_stands(home):
    view = status_view(home.parts)
    (turned_away,) = view["turned_away"]
    assert (turned_away["dataset"], turned_away["rows"], turned_away["failed"]) == ("flights", 5, ["between(distance)"])
    told = {m["model"]: m for m in view["models"]}
    assert told["air-time"]["state"] == "alarmed"
    assert "1 open alert" in told["air-time"]["says"]
    assert "last window MAE 6.9" in told["air-time"]["says"]
    assert told["air-time"]["champion"] == 1
    assert told["air-time"]["canary"] == {"version": 2, "share": 0.25}
    assert told["air-time"]["traffic_1h"] == 1
    assert told["air-time"]["errors_1h"] == 0
    assert told["air-time"]["next_run"] == "2013-03-03T04:00:00Z"
    assert told["idle"]["says"] == "idle has no version yet: `mulle run idle`"
    assert view["engine"] == {"state": "stopped", "pid": None, "home": str(home.parts.settings.home)}


def test_a_window_without_rows_is_not_said_to_wait_for_labels(home):
    last = home.parts.metadata.windows.last("air-time")
    for rows, said in ((5, "the last window has no labels yet"), (0, "nothing was asked in the last window")):
        start = last.end + timedelta(days=1 if rows else 2)
        empty = replace(last.performance, value=None, estimate=None)
        window = replace(last, id=f"w{rows}", rows=rows, start=start, end=start + timedelta(days=1), performance=empty)
        home.parts.metadata.windows.add(window)
        assert said in {m["model"]: m for m in status_view(home.parts)["models"]}["air-time"]["says"]


def test_a_quiet_model_is_called_healthy(home):
    moved = Deployment(
        id="d9",
        created_at=home.clock.now(),
        causes=(),
        model="idle",
        action="deploy",
        effective_at=home.clock.now(),
        by="ada",
        from_version=None,
        to_version=1,
        routes=(Route(version=1, share=1.0, mode="champion"),),
    )
    home.parts.metadata.deployments.add(moved)
    told = {m["model"]: m for m in status_view(home.parts)["models"]}["idle"]
    assert (told["state"], told["says"]) == ("healthy", "idle is healthy: version 1 answers all traffic")
    assert told["errors_1h"] == 0


def test_refused_requests_of_the_last_hour_are_counted_from_the_log_whichever_server_was_asked(home):
    logged = home.parts.lake.scan(PREDICTIONS).head(1).collect().drop("day")
    now = home.clock.now()

    def refused(request: str, row: int, minutes: int, version: int | None = None, seconds: float = 0.001) -> pl.DataFrame:
        return logged.with_columns(
            id=pl.lit(f"{request}-{row}"), request=pl.lit(request), route=pl.lit("refused"), seconds=pl.lit(seconds),
            version=pl.lit(version, pl.Int64), created_at=pl.lit(now - timedelta(minutes=minutes)).dt.cast_time_unit("us"),
            day=pl.lit("2013-03-02"),
        )  # fmt: skip

    told = [refused("a", 0, 5), refused("a", 1, 5), refused("b", 0, 50, version=2), refused("old", 0, 70)]
    told.append(refused("challenger", 0, 5, version=2, seconds=0.0))  # the champion answered
    home.parts.lake.append(PREDICTIONS, pl.concat(told), application="refused", sequence=1)
    counted = {m["model"]: m["errors_1h"] for m in status_view(home.parts)["models"]}
    assert counted == {"air-time": 2, "idle": 0}


def test_traffic_counts_answers_and_no_shadow_scores(home):
    assert traffic(home.parts) == {"air-time": 1}


def test_the_engines_pid_is_told_while_it_holds_the_home(home):
    lock = hold(home.parts.settings.home / "engine.lock")
    try:
        assert engine_state(home.parts.settings.home)["state"] == "running"
    finally:
        lock.release()
    assert engine_state(home.parts.settings.home)["state"] == "stopped"


def test_explain_walks_the_whole_chain_of_a_prediction(home):
    view = explain_view(home.parts, "p1")
    assert view["prediction"]["value"] == 150.5
    assert view["prediction"]["key"] == {"flight_id": "F1"}
    ratio = view["features"]["ratio"]
    assert ratio["columns"] == ["distance", "route.air_time"] or set(ratio["columns"]) == {"distance", "route.air_time"}
    assert (ratio["source"], ratio["tick"], ratio["freshness"]) == ("route", "2013-03-02T05:00:00Z", "2013-03-02T05:00:00Z")
    assert view["features"]["hour"]["columns"] == ["scheduled_at"]
    assert view["features"]["distance"]["source"] == "request"
    assert view["route"]["deployment"]["id"] == "deployment-1"
    assert view["label"]["value"] == 152.0
    assert view["window"]["id"] == "w1"
    assert {a["id"] for a in view["alerts"]} == {"alert-1", "alert-2"}
    assert view["run"]["id"] == "run-1"
    assert [(d["dataset"], d["version"]) for d in view["data"]] == [("flights", 1)]
    assert explain_view(home.parts, "p2")["route"]["share"] == 0.25
    with pytest.raises(NotFound, match="no prediction 'p9'"):
        explain_view(home.parts, "p9")


def test_an_empty_home_shows_nothing_and_does_not_fail(home, tmp_path):
    from mulle.adapters.lake.delta import DeltaLake
    from mulle.adapters.metadata.connect import open_metadata

    empty = tmp_path / "empty"
    empty.mkdir()
    parts = replace(home.parts, metadata=open_metadata(f"sqlite:///{empty / 'mulle.db'}"), lake=DeltaLake(str(empty / "lake")))
    assert runs_view(parts)["items"] == []
    assert models_view(parts) == {"items": [], "next": None, "declared": ["air-time", "idle"]}
    assert datasets_view(parts)["items"][0]["version"] is None
    assert status_view(parts)["models"][0]["traffic_1h"] == 0
    with pytest.raises(NotFound, match="no prediction"):
        explain_view(parts, "p1")


def test_the_doctor_names_a_taken_port_and_a_project_that_does_not_load(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = replace(home.parts.settings, port=taken.getsockname()[1])

        def broken():
            raise ProjectError("project.py, line 3: NameError", next="mend the line")

        checks = {c["name"]: c for c in doctor_view(settings, broken, WallClock())["checks"]}
    assert checks["control port"]["verdict"] == "warn"
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        engine = hold(home.parts.settings.home / "engine.lock")
        settings = replace(home.parts.settings, inference_port=other.server_port)
        kept = {c["name"]: c for c in doctor_view(settings, broken, WallClock())["checks"]}["inference port"]
        engine.release()
        other.shutdown()
    assert (kept["verdict"], "no server of ours" in kept["detail"]) == ("fail", True)
    assert checks["project and stores"]["detail"] == "project.py, line 3: NameError"
    assert checks["python"]["verdict"] == "pass"
    online = open_online(f"lmdb:///{home.folder}/online.lmdb")
    parts = replace(home.parts, online=online)
    found = doctor_view(settings, lambda: parts, ReplayClock(instant("2013-01-01")))
    told = {c["name"]: c["verdict"] for c in found["checks"]}
    online.close()
    assert told["database"] == told["lake"] == told["online store"] == "pass"
