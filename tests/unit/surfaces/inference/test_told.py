"""What is told of requests beside their answers: lines in the log, figures for Prometheus, spans for a collector."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from serving_parts import Server, bundle, route, row, version
from tests.ports import free_port
from tritonclient.grpc import service_pb2, service_pb2_grpc

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.kernel.logs import Wanted, read_log
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder

WIRED = """
from mulle.bootstrap.inference import wire_inference
from mulle.core.settings import load_settings
from mulle.surfaces.inference.app import create_app
from mulle.surfaces.inference.serve import serve
settings = load_settings()
serve(settings, create_app(wire_inference(settings), settings))
raise SystemExit
"""
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    route(tmp_path / "home", version(1, bundle(tmp_path / "b")))
    return tmp_path / "home"


class Collector:
    """Takes OTLP over HTTP, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()


@pytest.fixture
def collector() -> Iterator[tuple[str, Collector]]:
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            found = ExportTraceServiceRequest.FromString(body)
            assert self.path == "/v1/traces"
            for resource in found.resource_spans:
                kept.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
                kept.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kept
    server.shutdown()
    server.server_close()


def told(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_request_is_one_trace_from_the_client_to_features_and_model(home, collector):
    url, kept = collector
    with Server(home, settings={"otel": url}, before=WIRED) as server:
        above = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "order-7"}
        assert server.predict(row(1), row(2), headers=above).status == 200
        assert server.predict(row(3)).status == 200
        assert server.predict(row(4), headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}).status == 200
        assert server.predict({"size": "wide"}).status == 422
    whole = [s for s in kept.spans if s.name == "POST /v1/models/trip/predict"]
    assert kept.services == {"mulle-serve"}
    assert [told(s)["http.response.status_code"] for s in whole] == [200, 200, 422], "one was asked not to be recorded"
    first, own = whole[:2]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert (own.trace_id.hex() != TRACE, own.parent_span_id) == (True, b"")
    about = told(first)
    assert about["mulle.request"].startswith("order-7~")
    assert (about["mulle.model"], about["mulle.version"], about["mulle.route"]) == ("trip", 1, "champion")
    for parent in (first, own):
        parts = [s for s in kept.spans if s.parent_span_id == parent.span_id]
        assert [(s.name, told(s)["mulle.model"], s.trace_id) for s in sorted(parts, key=lambda s: s.start_time_unix_nano)] == [
            ("features", "trip", parent.trace_id), ("model", "trip@1", parent.trace_id),
        ]  # fmt: skip
        assert parent.start_time_unix_nano <= min(s.start_time_unix_nano for s in parts)
        assert all(s.start_time_unix_nano <= s.end_time_unix_nano <= parent.end_time_unix_nano for s in parts)
    assert len({s.span_id for s in kept.spans}) == len(kept.spans)


def test_a_call_over_grpc_is_a_trace_like_one_over_http(home, collector):
    url, kept = collector
    port = str(free_port())
    request = service_pb2.ModelInferRequest(model_name="trip")
    columns = (
        ("id", "INT64", "int64_contents", 1),
        ("size", "FP64", "fp64_contents", 2.0),
        ("kind", "BYTES", "bytes_contents", b"a"),
    )
    for name, datatype, field, value in columns:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(tensor.contents, field).append(value)
    with (
        Server(home, settings={"otel": url, "grpc_port": port}, before=WIRED),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request, metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),)).model_version == "1"
        request.model_name = "nobody"
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(request)
    whole = [s for s in kept.spans if s.name == "inference.GRPCInferenceService/ModelInfer"]
    assert [told(s)["rpc.grpc.status_code"] for s in whole] == [0, 5]
    assert (whole[0].trace_id.hex(), whole[0].parent_span_id.hex()) == (TRACE, PARENT)
    assert {s.name for s in kept.spans if s.parent_span_id == whole[0].span_id} == {"features", "model"}


def test_a_collector_that_is_away_costs_no_answer(home):
    with Server(home, settings={"otel": "http://127.0.0.1:9"}, before=WIRED) as server:
        assert [server.predict(row(n)).status for n in range(20)] == [200] * 20


def test_refusals_are_logged_with_the_id_that_the_client_was_told(home):
    with Server(home) as server:
        assert server.predict(row(1)).status == 200
        refused = server.predict({"size": "wide"})
        named = server.predict({"size": "wide"}, headers={"x-request-id": "order-8"})
        assert named.json["request_id"] == named.headers["x-request-id"] == "order-8"
        odd = server.predict({"size": "wide"}, headers={"x-request-id": "two words"})
        assert odd.json["request_id"] != "two words"
    lines = list(read_log(home, Wanted(model="trip")))
    assert len(lines) == 3, "an answer leaves no line"
    assert [line["level"] for line in lines] == ["info"] * 3
    (line,) = read_log(home, Wanted(request=refused.json["request_id"]))
    assert (line["status"], line["process"], line["text"]) == (422, "serve", refused.json["detail"])
    (line,) = read_log(home, Wanted(request="order-8"))
    assert line["request"].startswith("order-8~")


def test_a_clients_own_id_leads_from_the_request_to_its_predictions(home):
    with Server(home) as server:
        answers = [server.predict(row(n), row(n + 10), headers={"x-request-id": "order-9"}) for n in range(2)]
    assert {a.headers["x-request-id"] for a in answers} == {"order-9"}
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    found = lake.scan("predictions").collect()
    mine = found.filter(found["request"].str.starts_with("order-9~"))
    assert set(mine["id"]) == {p["id"] for a in answers for p in a.json["predictions"]}
    assert mine["request"].n_unique() == 4, "sent twice, it is still two requests of two rows"


def test_a_flood_of_refusals_is_no_flood_of_lines(home):
    with Server(home) as server:
        connection = server.connect()
        begun = time.monotonic()
        for _ in range(300):
            assert server.predict({"size": "wide"}, over=connection).status == 422
        seconds = time.monotonic() - begun
        time.sleep(1.1)
        server.predict({"size": "wide"})
    lines = list(read_log(home, Wanted(model="trip")))
    assert len(lines) <= 20 * (int(seconds) + 2) + 1
    left_out = sum(int(line["text"].rpartition("(and ")[2].split()[0]) for line in lines if "left out" in line["text"])
    assert len(lines) + left_out == 301


def test_every_figure_that_is_promised_is_there_by_model_and_version(home):
    with Server(home) as server:
        for n in range(3):
            assert server.predict(row(n), row(n + 50)).status == 200
        assert server.predict({"size": "wide"}).status == 422
        assert server.ask("POST", "/v1/models/nobody/predict", {"rows": [row()]}).status == 404
        text = server.get("/metrics").body.decode()
    for sample in (
        'mulle_requests_total{model="trip",route="champion",status="200",version="1"} 3.0',
        "mulle_request_seconds_count 5.0",
        'mulle_request_seconds_bucket{le="+Inf"} 5.0',
        'mulle_model_request_seconds_count{model="trip",version="1"} 3.0',
        'mulle_model_request_seconds_bucket{le="+Inf",model="trip",version="1"} 3.0',
        'mulle_model_request_seconds_sum{model="trip",version="1"} ',
        'mulle_rows_total{model="trip",route="champion",version="1"} 6.0',
        'mulle_errors_total{kind="schema",model="trip",version=""} 1.0',
        'mulle_errors_total{kind="not-found",model="",version=""} 1.0',
        "mulle_queue_rows 0.0",
        "mulle_log_lag_seconds ",
        'mulle_deployment_info{model="trip",route="champion",version="1"} 1.0',
        'mulle_model_bytes{model="trip",version="1"} ',
        "process_resident_memory_bytes ",
        "process_start_time_seconds ",
    ):
        assert f"\n{sample}" in text, f"{sample} is not in\n{text}"
