"""Every protocol and every refusal, asked of a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from serving_parts import Answered, Server, bundle, route, row, version


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("protocols")
    home = folder / "home"
    home.mkdir()
    made = [bundle(folder / str(n), offset=float(n)) for n in range(2)]
    route(home, version(6, made[0]), keep=True)
    route(home, version(7, made[1]), keep=True)
    route(home, version(1, bundle(folder / "c", model="kind", classes=("no", "yes"))), model="kind")
    with Server(home, {"max_rows": "50", "max_body": "20000", "deadline": "2s"}) as running:
        yield running


def refused(answer: Answered, status: int, slug: str) -> None:
    assert answer.status == status, answer
    problem = answer.json
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"https://mulle.dev/errors/{slug}"
    assert problem["status"] == status
    assert len(problem["request_id"]) == 26
    assert {"title", "detail", "next", "retryable"} <= problem.keys()


def test_predict(server: Server) -> None:
    answer = server.predict(row(1, 2.0), row(2, 3.5))
    assert answer.status == 200
    assert (answer.json["model"], answer.json["version"]) == ("trip", 7)
    assert [p["value"] for p in answer.json["predictions"]] == [3.0, 4.5]
    assert {p["route"] for p in answer.json["predictions"]} == {"champion"}
    assert all(p["freshness"] == {} and len(p["id"]) == 26 for p in answer.json["predictions"])


def test_predict_with_one_version(server: Server) -> None:
    answer = server.ask("POST", "/v1/models/trip/versions/6/predict", {"rows": [row(1, 2.0)]}).json
    assert (answer["version"], answer["predictions"][0]["value"], answer["predictions"][0]["route"]) == (6, 2.0, "pinned")


def test_classes(server: Server) -> None:
    found = server.predict(row(1, 3.0), model="kind").json["predictions"][0]
    assert found["value"] == "yes"
    assert found["probabilities"]["no"] + found["probabilities"]["yes"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "malformed"),
        (b"", 400, "malformed"),
        (b"[1]", 400, "malformed"),
        (b'{"rows": 3}', 400, "malformed"),
        (b'{"rows": []}', 400, "malformed"),
        (b'{"rows": [1]}', 400, "malformed"),
        (b'{"rows": [' + b"[" * 3000 + b"]" * 3000 + b"]}", 400, "malformed"),
        (b'{"rows": [{"id": "\xff"}]}', 400, "malformed"),
        (b'{"rows": [{}]}', 422, "schema"),
        (b'{"rows": [{"id": 1, "size": 1, "kind": "a", "colour": 1}]}', 422, "schema"),
        (b'{"rows": [{"id": 1, "size": "far", "kind": "a"}]}', 422, "schema"),
        (b'{"rows": [{"id": 1, "size": true, "kind": "a"}]}', 422, "schema"),
        (b'{"rows": [{"id": 1, "size": 1, "kind": "a", "at": "noon"}]}', 422, "schema"),
        (b'{"rows": [{"id": 1, "size": 1, "kind": "boom"}]}', 422, "transform"),
        (b'{"rows": [' + b'{"id": 1, "size": 1, "kind": "a"},' * 50 + b'{"id": 1, "size": 1, "kind": "a"}]}', 413, "too-large"),
        (b" " * 20001, 413, "too-large"),
    ],
)
def test_a_bad_body_is_refused(server: Server, body: bytes, status: int, slug: str) -> None:
    refused(server.ask("POST", "/v1/models/trip/predict", body), status, slug)


def test_a_broken_row_is_named(server: Server) -> None:
    problem = server.predict(row(), row(size="far")).json
    assert (problem["model"], problem["row"], problem["field"], problem["retryable"]) == ("trip", 1, "size", False)
    assert problem["detail"] == "trip@7 row 1: size is 'far', expected Float64"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/ghost/predict", 404),
        ("POST", "/v1/models/trip/versions/99/predict", 404),
        ("POST", "/v1/models/trip/versions/x/predict", 404),
        ("GET", "/v1/models/ghost", 404),
        ("GET", "/v2/models/ghost/ready", 404),
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models/trip/predict", 405),
        ("DELETE", "/v1/models", 405),
    ],
)
def test_a_wrong_address_is_refused(server: Server, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path, {"rows": [row()]} if method == "POST" else None)
    assert (answer.status, answer.json["status"]) == (status, status)


def test_another_content_type_is_refused(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        refused(server.predict(row(), headers={"content-type": kind}), 415, "content-type")
    assert server.predict(row(), headers={"content-type": "application/json; charset=utf-8"}).status == 200


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_is_kept_out(server: Server, headers: dict[str, str]) -> None:
    refused(server.predict(row(), headers=headers), 403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8801", "[::1]:80"])
def test_this_machines_own_names_are_let_in(server: Server, host: str) -> None:
    assert server.predict(row(), headers={"Host": host}).status == 200


def test_a_large_body_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"POST /v1/models/trip/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n{")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"POST /v1/models/trip/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_client_that_never_finishes_is_let_go(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=8) as raw:
        raw.sendall(b"POST /v1/models/trip/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert raw.recv(100).startswith(b"HTTP/1.1 504")


def test_one_connection_serves_many_requests_errors_between(server: Server) -> None:
    connection = server.connect()
    statuses = [server.predict(row(size=s), over=connection).status for s in (1.0, "far", 2.0, None, 3)]
    assert statuses == [200, 422, 200, 200, 200]


def test_v2(server: Server) -> None:
    assert server.get("/v2").json["name"] == "mulle"
    assert [server.get(p).status for p in ("/v2/health/live", "/v2/health/ready", "/ping", "/v2/models/trip/ready")] == [200] * 4
    about = server.get("/v2/models/trip").json
    assert about["versions"] == ["6", "7"] or about["versions"] == ["7"]
    assert {i["name"]: i["datatype"] for i in about["inputs"]} == {"id": "INT64", "at": "BYTES", "size": "FP64", "kind": "BYTES"}
    assert about["outputs"] == [{"name": "value", "datatype": "FP64", "shape": [-1, 1]}]
    body = {"id": "mine", "inputs": [
        {"name": "id", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "size", "datatype": "FP32", "shape": [2, 1], "data": [[1], [2.5]]},
        {"name": "kind", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]},
    ]}  # fmt: skip
    answer = server.ask("POST", "/v2/models/trip/infer", body).json
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "trip", "7")
    assert answer["outputs"] == [{"name": "value", "datatype": "FP64", "shape": [2, 1], "data": [2.0, 3.5]}]
    assert len(answer["parameters"]["prediction_ids"]) == 2
    chances = server.ask("POST", "/v2/models/kind/infer", body).json["outputs"][1]
    assert (chances["name"], chances["shape"], len(chances["data"])) == ("probabilities", [2, 2], 4)


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [],
        [3],
        [{"name": "id", "shape": [2], "datatype": "INT64", "data": [1]}],
        [{"name": "id", "shape": [1], "datatype": "INT64"}],
        [{"name": "id", "shape": [1], "datatype": "INT64", "data": [1]}, {"name": "size", "shape": [2], "data": [1, 2]}],
    ],
)
def test_v2_refuses_with_the_protocols_own_member_too(server: Server, inputs: object) -> None:
    answer = server.ask("POST", "/v2/models/trip/infer", {"inputs": inputs})
    refused(answer, 400, "malformed")
    assert answer.json["error"] == answer.json["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"id": 1, "size": 2, "kind": "a"}, {"id": 2, "size": 3, "kind": "a"}]},
        {"dataframe_split": {"columns": ["id", "size", "kind"], "data": [[1, 2, "a"], [2, 3, "b"]]}},
        {"instances": [{"id": 1, "size": 2, "kind": "a"}, {"id": 2, "size": 3, "kind": "a"}]},
        {"instances": [[1, None, 2, "a"], [2, None, 3, "a"]]},
        {"inputs": {"id": [1, 2], "size": [[2], [3]], "kind": ["a", "b"]}},
        b"id,size,kind\n1,2,a\n2,3.0,\n",
    ],
)
def test_mlflows_shapes(server: Server, body: object) -> None:
    kind = "text/csv" if isinstance(body, bytes) else "application/json"
    answer = server.ask("POST", "/v1/models/trip/invocations", body, headers={"content-type": kind})
    assert answer.json == {"predictions": [3.0, 4.0]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ({"dataframe_split": 3}, 400),
        ({"dataframe_split": {"columns": ["id"], "data": [[1, 2]]}}, 400),
        ({"inputs": {"id": [1, 2], "size": [1]}}, 400),
        ({"instances": []}, 400),
        (b"id,size,kind\n1,far,a\n", 422),
        (b'id,size\n1,"2\n', 400),
    ],
)
def test_mlflows_shapes_broken(server: Server, body: object, status: int) -> None:
    kind = "text/csv" if isinstance(body, bytes) else "application/json"
    assert server.ask("POST", "/v1/models/trip/invocations", body, headers={"content-type": kind}).status == status


def test_labels(server: Server) -> None:
    prediction = server.predict(row()).json["predictions"][0]["id"]
    body = {"labels": [{"prediction_id": prediction, "value": 231, "known_at": "2013-03-01T14:02:00Z"}]}
    first = server.ask("POST", "/v1/labels", body)
    assert (first.status, first.json) == (202, {"accepted": 1, "duplicates": 0, "unknown": []})
    assert server.ask("POST", "/v1/labels", body).json["duplicates"] == 1
    by_key = {
        "model": "trip",
        "labels": [{"key": {"id": 1}, "time": "2013-03-01T10:00:00Z", "value": None, "reason": "cancelled"}],
    }
    assert server.ask("POST", "/v1/labels", by_key).json["accepted"] == 1
    refused(server.ask("POST", "/v1/labels", {"labels": [{"value": 1}]}), 422, "schema")


def test_listings(server: Server) -> None:
    items = {i["id"]: i for i in server.get("/v1/models").json["items"]}
    assert (items["trip"]["version"], items["kind"]["version"]) == (7, 1)
    routes = server.get("/v1/routes").json
    assert routes["generation"] == 3
    assert routes["models"]["trip"]["in_force"] == [{"version": 7, "share": 1.0, "mode": "champion"}]
    assert 7 in routes["models"]["trip"]["loaded"]


def test_metrics(server: Server) -> None:
    server.predict(row(kind="never seen"))
    server.predict(row(size="far"))
    text = server.get("/metrics").body.decode()
    assert 'mulle_requests_total{model="trip",route="champion",status="200",version="7"}' in text
    assert 'mulle_requests_total{model="trip",route="",status="422",version=""}' in text
    assert 'mulle_unseen_total{feature="kind",model="trip"}' in text
    assert 'mulle_deployment_info{model="trip",route="champion",version="7"} 1.0' in text
    assert 'mulle_request_seconds_bucket{le="+Inf"}' in text
    assert "mulle_queue_rows 0.0" in text
    assert "mulle_log_lag_seconds" in text
    assert "ghost" not in text
