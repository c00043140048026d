"""The control plane over a real socket: the views as JSON, a page in words, and a door that web pages cannot push."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from threading import Thread

import pytest
import uvicorn

from mulle.core.errors import UsageError
from mulle.core.records.run import RunEvent
from mulle.core.settings import Settings
from mulle.surfaces.api.app import create_app
from mulle.surfaces.api.page import status_page
from mulle.surfaces.door import Forbidden, Unauthorized, check_request


@pytest.fixture
def ask(home):
    server = uvicorn.Server(uvicorn.Config(create_app(lambda: home.parts), port=0, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def send(path: str, body: object = None, **headers: str) -> tuple[int, str, str]:
        data = None if body is None else json.dumps(body).encode()
        headers = {k.replace("_", "-"): v for k, v in headers.items()} | {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read().decode()

    yield send
    server.should_exit = True
    thread.join()


def test_the_views_are_served_as_json(ask):
    for path, member in {
        "/api/v1/status": "models",
        "/api/v1/models": "items",
        "/api/v1/models/air-time@2": "metrics",
        "/api/v1/runs?limit=1": "next",
        "/api/v1/runs/run-1": "gates",
        "/api/v1/history/air-time": "items",
        "/api/v1/history/air-time?at=2013-03-01T12:00:00Z": "routes",
        "/api/v1/alerts?state=open": "items",
        "/api/v1/monitor/air-time": "windows",
        "/api/v1/datasets": "items",
        "/api/v1/datasets/flights": "quarantined",
        "/api/v1/explain/p1": "features",
    }.items():
        status, kind, text = ask(path)
        assert (status, kind) == (200, "application/json"), path
        assert json.loads(text)[member]


def test_the_front_page_says_it_in_words_and_loads_nothing_from_elsewhere(ask):
    status, kind, text = ask("/")
    assert status == 200
    assert kind.startswith("text/html")
    assert "air-time needs a look" in text
    assert "mae 13 &gt; 12" in text
    assert "mlflow ui --backend-store-uri" in text
    assert "prefers-color-scheme" in text or "light-dark(" in text
    for outside in ("<script", "src=", "//cdn", "@import", "<link"):
        assert outside not in text


def test_the_reference_lists_every_path(ask):
    text = ask("/docs")[2]
    paths = json.loads(ask("/openapi.json")[2])["paths"]
    assert "/api/v1/models/{model}/deploy" in paths
    for path in paths:
        assert path in text
    assert "JSON body: version" in text


def test_unknown_things_are_problems_with_what_to_do_next(ask):
    status, kind, text = ask("/api/v1/runs/nope")
    problem = json.loads(text)
    assert (status, kind, problem["status"]) == (404, "application/problem+json", 404)
    assert problem["next"]
    assert problem["request_id"]
    assert ask("/nowhere")[:2] == (404, "application/problem+json")
    assert ask("/api/v1/runs?limit=none")[:2] == (400, "application/problem+json")
    assert ask("/api/v1/models/air-time/deploy", {"version": 9})[0] == 404
    assert ask("/api/v1/models/air-time/deploy", {"version": "x"})[0] == 400
    assert ask("/api/v1/status", {})[0] == 405


def test_a_web_page_may_not_drive_it(ask):
    assert ask("/api/v1/status", Host="evil.example")[0] == 403
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example"}):
        status, _, text = ask("/api/v1/models/air-time/rollback", {}, **headers)
        assert status == 403
        assert json.loads(text)["type"].endswith("/forbidden")


def test_beyond_loopback_a_token_is_wanted(home, monkeypatch):
    monkeypatch.delenv("MULLE_TOKEN", raising=False)
    parts = replace(home.parts, settings=replace(home.parts.settings, host="0.0.0.0"))
    with pytest.raises(UsageError, match="without a token"):
        create_app(lambda: parts)
    settings = Settings(host="0.0.0.0")
    check_request(settings, "GET", {"host": "x:1", "authorization": "Bearer s3"}, "s3")
    with pytest.raises(Unauthorized):
        check_request(settings, "GET", {"host": "x:1"}, "s3")
    with pytest.raises(Forbidden):
        check_request(Settings(), "POST", {"host": "127.0.0.1:1", "origin": "null"}, None)


def test_what_a_record_says_is_never_markup():
    blank = {"items": [], "next": None}
    model = {"model": "m", "state": "x", "says": "<script>alert(1)</script>", "traffic_1h": 0, "next_run": None}
    status = {
        "models": [model],
        "engine": {"state": "stopped", "pid": None, "home": "/h"},
        "project": {"state": "good"},
        "created_at": "2013-01-01T00:00:00Z",
    }
    text = status_page(status, blank, blank, tracking="postgresql://me:secret@db/x", inference="http://h")
    assert "<script>" not in text
    assert "secret" not in text


def test_a_run_is_asked_for_with_its_reason(ask, home):
    status, _, text = ask("/api/v1/models/idle/runs", {"by": "airflow", "why": "the month is closed"})
    run = json.loads(text)
    assert (status, run["state"], run["model"]) == (202, "queued", "idle")
    assert run["causes"] == [{"type": "api", "id": "airflow", "why": "the month is closed"}]
    assert home.parts.metadata.queue.take("w").run == run["id"]
    status, _, text = ask("/api/v1/models/idle/runs", {})
    problem = json.loads(text)
    assert (status, problem["run"]) == (409, run["id"])
    assert ask("/api/v1/models/nobody/runs", {})[0] == 404


def test_alerts_are_silenced_and_told_again(ask):
    status, _, text = ask("/api/v1/alerts/silences", {"model": "air-time", "for": "2h", "why": "the source moves"})
    made = json.loads(text)
    assert (status, made["causes"][0]["why"]) == (201, "the source moves")
    says = next(m for m in json.loads(ask("/api/v1/status")[2])["models"] if m["model"] == "air-time")
    assert says["silenced_until"] == made["until"]
    assert f"silent until {made['until']}" in says["says"]
    assert json.loads(ask("/api/v1/alerts")[2])["items"][0]["silenced_until"] == made["until"]
    assert ask("/api/v1/alerts/silences", {"model": "air-time"})[0] == 201
    assert json.loads(ask("/api/v1/alerts")[2])["items"][0]["silenced_until"] is None
    assert ask("/api/v1/alerts/silences", {"model": "nobody", "for": "1h"})[0] == 404
    assert ask("/api/v1/alerts/silences", {"model": "*", "for": "soon"})[0] == 400


def test_the_loops_figures_are_told_to_prometheus(ask, home):
    status, kind, text = ask("/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    for sample in (
        'mulle_runs_total{cause="schedule",model="air-time",state="rejected"} ',
        'mulle_drift{feature="distance",model="air-time",signal="psi"} ',
        'mulle_performance{metric="mae",model="air-time"} ',
        'mulle_alerts_open{model="air-time",severity="warn"} 1.0',
        "process_resident_memory_bytes ",
    ):
        assert sample in text, f"{sample} is not in:\n{text}"
    assert "mulle_runs_under_way{" not in text
    run = json.loads(ask("/api/v1/models/idle/runs", {})[2])["id"]
    assert 'mulle_runs_under_way{cause="api",model="idle",state="queued"} 1.0' in ask("/metrics")[2]
    now = home.clock.now()
    home.parts.metadata.runs.add_events(RunEvent(id="end", run=run, at=now, kind="state", name="cancelled"))
    text = ask("/metrics")[2]
    assert "mulle_runs_under_way{" not in text
    assert 'mulle_runs_total{cause="api",model="idle",state="cancelled"} 1.0' in text


def test_what_fails_inside_is_logged_under_the_id_that_was_told(ask, home, caplog, monkeypatch):
    monkeypatch.setattr(type(home.parts.metadata.alerts), "list", lambda *_: 1 / 0)
    status, _, text = ask("/api/v1/alerts")
    problem = json.loads(text)
    assert (status, problem["next"]) == (500, f"see `mulle logs --request {problem['request_id']}`")
    (record,) = [r for r in caplog.records if r.name == "mulle.control"]
    assert record.request == problem["request_id"]
    assert record.exc_info[0] is ZeroDivisionError
    assert "division" not in text
