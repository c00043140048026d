"""A run's stages as spans: what the recorder tells arrives at a collector as one trace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mulle.adapters.traces.otel import open_traces
from mulle.core.clock import ReplayClock, instant
from mulle.core.errors import UsageError
from mulle.core.records.base import Cause
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts
from mulle.loop.runner import Recorder
from mulle.loop.stages import Told

T0 = instant("2026-03-01T12:00:00Z")
PROJECT = """
rows = ml.Dataset("rows", ml.Files("rows.csv"), key="id", outcome=["y"])

@ml.features(rows)
def shape(rows):
    return rows.select("x")

model = ml.Model("m", features=shape, target="y", task="regression")
"""


@pytest.fixture
def collector():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            spans.extend(s for r in found.resource_spans for scope in r.scope_spans for s in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    spans = []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", spans
    server.shutdown()
    server.server_close()


def test_a_run_is_one_trace_whoever_ends_it(opened: Callable[[str], Parts], collector):
    url, spans = collector
    clock = ReplayClock(T0)
    parts = replace(opened(PROJECT), clock=clock, traces=open_traces(url, "mulle"))
    run = start_run(parts, "m", causes=[Cause(type="alert", id="a", why="drift alarm")]).id
    first, second = Recorder(parts), Recorder(replace(parts, traces=open_traces(f"{url}/v1/traces", "mulle")))
    first.tell(run, Told("state", "running"), Told("stage", "search", "started"))
    clock.advance(T0 + timedelta(seconds=30))
    first.tell(run, Told("stage", "search", "done", 20.0))
    second.tell(run, Told("stage", "gate", "failed", 1.5))
    second.tell(run, Told("state", "failed", reason="the child died"))
    for recorder in (first, second):
        recorder._parts.traces.flush()
    named = {s.name: s for s in spans}
    assert named.keys() == {"run search", "run gate", "run"}
    whole, search = named["run"], named["run search"]
    assert {s.trace_id for s in spans} == {whole.trace_id}
    assert search.parent_span_id == named["run gate"].parent_span_id == whole.span_id
    assert whole.parent_span_id == b""
    assert search.end_time_unix_nano - search.start_time_unix_nano == 20 * 10**9
    assert whole.start_time_unix_nano == int(T0.timestamp()) * 10**9
    assert (whole.status.code, whole.status.message, search.status.code) == (2, "the child died", 1)
    about = {a.key: a.value.string_value for a in whole.attributes}
    assert about == {"mulle.run": run, "mulle.model": "m", "mulle.state": "failed", "mulle.cause": "drift alarm"}


def test_no_url_is_no_cost_and_a_wrong_one_is_told():
    assert open_traces("", "mulle") is None
    with pytest.raises(UsageError, match="http"):
        open_traces("collector:4318", "mulle")
