"""Bad input of every kind, to a real server: no 5xx, no hang, no growth, and it goes on answering."""

from __future__ import annotations

import gzip
import select
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving_parts import Server, row, two_models


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"max_text": "1000", "deadline": "2s"}
    with Server(two_models(tmp_path_factory.mktemp("abuse")), limits) as running:
        yield running


def memory(server: Server) -> float:
    assert server.process is not None
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def fuzzed(operation: schemathesis.APIOperation, mode: GenerationMode, session: requests.Session) -> int:
    # Tensors must agree with each other and labels name what they are about: more than a schema can say.
    beyond = [positive_data_acceptance] if operation.path.endswith(("/infer", "/labels")) else []
    tried = 0

    @settings(
        max_examples=15, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        answer = case.call(timeout=10, session=session)
        assert answer.status_code < 500
        case.validate_response(answer, excluded_checks=beyond)

    ask()
    return tried


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_fuzzed_from_its_own_openapi(server: Server, mode: GenerationMode) -> None:
    refusals = {"negative_data_rejection": {"expected-statuses": ["400", "413", "415", "422"]}}
    config = schemathesis.Config.from_dict({"checks": refusals})
    spec = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json", config=config)
    operations = [result.ok() for result in spec.get_all_operations()]
    if mode is GenerationMode.NEGATIVE:
        operations = [o for o in operations if o.method == "post" and "kind" not in o.path]
    with requests.Session() as session:
        tried = sum(fuzzed(operation, mode, session) for operation in operations)
    assert tried > 60
    assert server.predict(row()).status == 200


PREDICT = "/v1/models/trip/predict"
DEEP = b"[" * 900_000
ROW = b'{"id": 1, "size": 2, "kind": "a"}'

BAD = {
    "nothing": (b"", 400),
    "truncated": (b'{"rows": [{"id": 1, "size"', 400),
    "text behind the end": (b'{"rows": [' + ROW + b"]} x", 400),
    "invalid UTF-8": (b'{"rows": [{"id": 1, "size": 2, "kind": "\xff\xfe"}]}', 400),
    "UTF-16": ('{"rows": []}'.encode("utf-16"), 400),
    "half of a surrogate pair": (rb'{"rows": [{"id": 1, "size": 2, "kind": "\ud800"}]}', 400),
    "NaN": (b'{"rows": [{"id": 1, "size": NaN, "kind": "a"}]}', 400),
    "infinity": (b'{"rows": [{"id": 1, "size": Infinity, "kind": "a"}]}', 400),
    "a huge float": (b'{"rows": [{"id": 1, "size": 1e999, "kind": "a"}]}', 400),
    "a huge whole number": (b'{"rows": [{"id": 9223372036854775808, "size": 1, "kind": "a"}]}', 422),
    "a whole number below": (b'{"rows": [{"id": -9223372036854775809, "size": 1, "kind": "a"}]}', 422),
    "a million digits": (b'{"rows": [{"id": ' + b"9" * 1_000_000 + b', "size": 1, "kind": "a"}]}', 400),
    "deep, open": (DEEP, 400),
    "deep, closed": (b'{"rows": ' + DEEP + b"]" * 900_000 + b"}", 400),
    "deep in a field": (b'{"rows": [{"id": 1, "kind": "a", "size": ' + b"[" * 500 + b"]" * 500 + b"}]}", 422),
    "an object in a field": (b'{"rows": [{"id": 1, "size": {"a": 1}, "kind": "a"}]}', 422),
    "a hundred thousand fields": (b'{"rows": [{' + b",".join(b'"f%d": 1' % n for n in range(100_000)) + b"}]}", 422),
    "an endless field name": (b'{"rows": [{"' + b"f" * 1_000_000 + b'": 1}]}', 422),
    "an endless text": (b'{"rows": [{"id": 1, "size": 1, "kind": "' + b"a" * 1_000_000 + b'"}]}', 413),
    "a million rows": (b'{"rows": [' + b"{}," * 999_999 + b"{}]}", 413),
    "a time before time": (b'{"rows": [{"id": 1, "size": 1, "kind": "a", "at": "-0001-01-01T00:00:00Z"}]}', 422),
    "rows that are none": (b'{"rows": [null, 1, "a", []]}', 400),
    "a list": (b"[" + ROW + b"]", 400),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_body_gets_a_reason(server: Server, what: str) -> None:
    body, status = BAD[what]
    answer = server.ask("POST", PREDICT, body)
    assert (answer.status, answer.json["status"]) == (status, status)
    assert len(answer.body) < 2000
    assert server.predict(row()).status == 200


def test_of_a_key_written_twice_the_last_one_counts(server: Server) -> None:
    answer = server.ask("POST", PREDICT, b'{"rows": [], "rows": [{"id": 1, "size": 9, "kind": "a", "size": 2}]}')
    assert answer.json["predictions"][0]["value"] == 3.0


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/trip/invocations", "/v2/models/trip/infer", "/v1/labels"])
@pytest.mark.parametrize("what", BAD)
def test_no_door_falls_over(server: Server, path: str, what: str) -> None:
    for headers in ({}, {"content-type": "text/csv"}, {"inference-header-content-length": "5"}):
        assert 400 <= server.ask("POST", path, BAD[what][0] or b"x", headers=headers).status < 500


@pytest.mark.parametrize(
    "head",
    [
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n{}",
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n{}",
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nX: " + b"a" * 200_000 + b"\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_heads_that_lie_do_no_harm(server: Server, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=6) as raw:
        raw.sendall(head.replace(b"%s", PREDICT.encode(), 1))
        raw.shutdown(socket.SHUT_WR)
        answer = raw.recv(100)
    assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5"))
    assert server.predict(row()).status == 200


def test_slow_bodies_are_let_go_and_hold_nobody_up(server: Server) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=8) for _ in range(100)]
    for one in slow:
        one.sendall(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert server.predict(row()).status == 200
    assert select.select(slow, [], [], 0)[0] == [], "it was answered while each of them was waited for still"
    assert {one.recv(20)[:12] for one in slow} == {b"HTTP/1.1 504"}
    for one in slow:
        one.close()


def test_memory_does_not_grow(server: Server) -> None:
    def round() -> None:
        for body, _ in BAD.values():
            server.ask("POST", PREDICT, body)
            server.ask("POST", "/v2/models/trip/infer", body, headers={"inference-header-content-length": "7"})
        server.ask("POST", PREDICT, gzip.compress(b" " * 20_000_000), headers={"content-encoding": "gzip"})
        for n in range(50):
            server.get(f"/v1/models/ghost-{n}-{time.monotonic_ns()}/{'x' * 1000}")

    for _ in range(2):  # the allocator keeps what the largest body took
        round()
    before = memory(server)
    for _ in range(4):
        round()
    assert memory(server) - before < 12
    assert server.predict(row()).status == 200
    assert "ghost" not in server.get("/metrics").body.decode()
