"""What a running `mulle up` tells: alerts to receivers, figures to Prometheus, spans to a collector, lines to its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import command
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.ports import free_port

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.records.window import Alert, AlertEvent

MULLE = [sys.executable, "-c", "from mulle.surfaces.cli.main import main; main()"]
SECRET = "t0pS3cret"


class Outside:
    """A receiver of alerts and a collector of traces, on one port."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.spans: list[Any] = []
        self.answers, self.asked = 200, 0
        outside = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = 200
                if self.path == "/v1/traces":
                    found = ExportTraceServiceRequest.FromString(body)
                    outside.spans += [s for r in found.resource_spans for scope in r.scope_spans for s in scope.spans]
                else:
                    status, outside.asked = outside.answers, outside.asked + 1
                    outside.messages += [json.loads(body)] if status == 200 else []
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Home:
    """A project of its own, and the process that keeps it up."""

    def __init__(self, folder: Path, outside: Outside) -> None:
        self.ports = [free_port(), free_port()]
        self.outside, self.folder = outside, folder / "cells-lab"
        self.environment = os.environ | {
            "MULLE_PORT": str(self.ports[0]), "MULLE_INFERENCE_PORT": str(self.ports[1]), "MULLE_TICK": "500ms",
            "MULLE_ALERTS": f"json://ada:{SECRET}@{outside.address}/{SECRET}", "MULLE_OTEL": f"http://{outside.address}",
        }  # fmt: skip
        self.mulle("new", "cells-lab", cwd=folder)
        project = self.folder / "project.py"
        # A machine that runs other tests beside is slow, and latency is not what is tested here.
        project.write_text(project.read_text().replace('ml.p99("50ms"),', "").replace("trials=10", "trials=2"))
        self.process: subprocess.Popen[bytes] = subprocess.Popen(["true"])
        self.run, self.row = "", dict[str, object]()

    def mulle(self, *words: str, cwd: Path | None = None) -> str:
        done = command(cwd or self.folder, *words, environment=self.environment)
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    def up(self) -> None:
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen([*MULLE, "up"], cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        until(lambda: self.ask(0, "/api/v1/status") is not None, "the control plane answers")

    def ask(self, plane: int, path: str, body: object = None, **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {k.replace("_", "-"): v for k, v in headers.items()} | {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[plane]}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read().decode()
                return text if path == "/metrics" else json.loads(text)
        except OSError:
            return None

    def train(self) -> None:
        self.up()
        self.run = self.ask(0, "/api/v1/models/diagnosis/runs", {"by": "airflow", "why": "the month is closed"})["id"]
        until(lambda: self.ask(0, f"/api/v1/runs/{self.run}")["state"] not in ("queued", "running"), "the run ends", 150)
        ended = self.ask(0, f"/api/v1/runs/{self.run}")
        assert ended["state"] == "succeeded", (ended, (self.folder / "up.log").read_text())
        until(lambda: (self.ask(1, "/v1/models") or {}).get("items"), "the version is served")
        names, first = (line.split(",") for line in (self.folder / "data" / "cells.csv").read_text().splitlines()[:2])
        told = dict(zip(names[:-1], first[:-1], strict=True))
        self.row = {name: value if name == "sample_id" else float(value) for name, value in told.items()}

    def alarm(self, id: str, model: str) -> None:
        """Let a window of a model alarm, as a look of the loop would record it."""
        now = datetime.now(UTC)
        alert = Alert(id=id, created_at=now, causes=(), model=model, signal="psi", feature="x", severity="critical", next="look")
        self.store().alerts.add(alert, AlertEvent(id=f"{id}-open", alert=id, at=now, kind="open"))

    def store(self) -> Any:
        return open_metadata(f"sqlite:///{self.folder}/.mulle/mulle.db")


def until(found: Callable[[], object], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(f"it did not come about that {what}")


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    made = Outside()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory, outside) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("told"), outside)
    try:
        made.train()
        yield made
    finally:
        made.process.terminate()
        made.process.wait(30)


def test_a_run_asked_for_over_the_api_is_one_trace_and_found_in_the_log(home, outside):
    whole = until(lambda: [s for s in outside.spans if s.name == "run"], "the run's span comes", 30)
    stages = [s for s in outside.spans if s.name.startswith("run ")]
    assert {s.name for s in stages} >= {"run ingest", "run search", "run gate", "run register", "run roll_out"}
    assert {(s.trace_id, s.parent_span_id) for s in stages} == {(whole[0].trace_id, whole[0].span_id)}
    lines = json.loads(home.mulle("logs", "--run", home.run, "--json"))["items"]
    assert {line["run"] for line in lines} == {home.run}
    assert any("stage search done" in line["text"] for line in lines)
    assert lines[-1]["text"].endswith("succeeded")
    causes = home.ask(0, f"/api/v1/runs/{home.run}")["causes"]
    assert causes == [{"type": "api", "id": "airflow", "why": "the month is closed"}]


def test_one_id_leads_from_the_request_to_its_prediction_and_the_run_behind_it(home):
    answer = home.ask(1, "/v1/models/diagnosis/predict", {"rows": [home.row]}, X_Request_Id="order-7")
    (prediction,) = answer["predictions"]

    def found() -> list[dict[str, Any]]:
        return json.loads(home.mulle("logs", "--request", "order-7", "--json"))["items"]

    (line,) = until(found, "the prediction is drained", 30)
    assert (line["prediction"], line["run"], line["model"]) == ([prediction["id"]], home.run, "diagnosis")
    assert (
        home.ask(1, "/v1/models/diagnosis/predict", {"rows": [{**home.row, "sample_id": 1, "bad": 1}]}, X_Request_Id="order-8")
        is None
    )
    (refused,) = json.loads(home.mulle("logs", "--request", "order-8", "--json"))["items"]
    assert (refused["process"], refused["level"], refused["status"]) == ("serve", "info", 422)


def test_every_metric_of_the_surface_is_on_one_of_the_planes(home):
    text = until(lambda: "mulle_rows_total" in (t := home.ask(1, "/metrics")) and t + home.ask(0, "/metrics"), "figures are told")
    for name in (
        'mulle_requests_total{model="diagnosis",route="champion",status="200",version="1"}', "mulle_request_seconds_bucket{",
        "mulle_queue_rows ", "mulle_log_lag_seconds ",
        'mulle_deployment_info{model="diagnosis",route="champion",version="1"} 1.0',
        'mulle_runs_total{cause="api",model="diagnosis",state="succeeded"} 1.0', "# TYPE mulle_drift gauge",
        "# TYPE mulle_performance gauge", "process_resident_memory_bytes ", "mulle_model_request_seconds_bucket{",
    ):  # fmt: skip
        assert f"\n{name}" in f"\n{text}", name
    told = next(m for m in json.loads(home.mulle("status", "--json"))["models"] if m["model"] == "diagnosis")
    assert told["errors_1h"] is not None


def opened(outside):
    """Titles of what was told, without closings: a slow loop may judge a window meanwhile and close the first alert."""
    return [m["title"] for m in outside.messages if not m["title"].startswith("[closed]")]


def test_an_alert_is_told_after_a_kill_and_a_receiver_that_was_away_once(home, outside):
    outside.answers = 500
    home.alarm("a1", "diagnosis")
    until(lambda: outside.asked, "the receiver is asked", 20)
    later = datetime.now(UTC).replace(year=2100)
    until(lambda: [u for u in home.store().outbox.due(later) if u.attempts], "the failure is kept", 20)
    home.process.send_signal(signal.SIGKILL)
    home.process.wait()
    outside.answers = 200
    home.up()
    until(lambda: outside.messages, "the alert arrives", 40)
    home.mulle("alerts", "silence", "diagnosis", "--for", "1h", "--why", "known")
    home.alarm("a2", "diagnosis")
    home.alarm("a3", "other")
    until(lambda: len(opened(outside)) > 1, "the other model's alert arrives", 20)
    home.mulle("alerts", "unsilence", "diagnosis")
    until(lambda: len(opened(outside)) > 2, "what was held arrives", 20)
    assert opened(outside) == [f"[critical] {m}: psi of x" for m in ("diagnosis", "other", "diagnosis")]
    # The receiver has it a moment before the loop notes that it has.
    until(lambda: home.store().outbox.count() == 0, "nothing is left to be told", 20)
    assert SECRET not in "".join(p.read_text() for p in (home.folder / ".mulle" / "logs").iterdir())
    assert SECRET not in (home.folder / "up.log").read_text()
