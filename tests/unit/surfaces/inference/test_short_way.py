"""Predictions whose request came as a whole take a short way: the same answers, in order, with the same limits and counts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
from serving_parts import Server, bundle, route, row, version

HEAD = (
    b"POST /v1/models/trip/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("short")
    home = folder / "home"
    home.mkdir()
    route(home, version(7, bundle(folder / "bundle", offset=1.0, plain=True)))
    with Server(home, settings={"max_body": "20000"}) as running:
        assert running.predict(row()).status == 200, "from here on the place is known"
        yield running


def request(*rows: object, head: bytes = b"") -> bytes:
    body = json.dumps({"rows": list(rows)}).encode()
    return HEAD % (len(body), head) + body


def read(connection: socket.socket, count: int) -> list[tuple[int, bytes, dict[str, object]]]:
    """Read so many answers: status, head and document."""
    found: list[tuple[int, bytes, dict[str, object]]] = []
    reader = connection.makefile("rb")
    for _ in range(count):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            assert line, f"the server closed after {len(found)} answers"
            head += line
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        found.append((int(head.split()[1]), head, json.loads(reader.read(length))))
    return found


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def value(document: dict[str, object]) -> object:
    return document["predictions"][0]["value"]  # type: ignore[index]


def test_a_thousand_at_once_are_answered_in_order_the_bad_ones_too(server: Server) -> None:
    wanted = [request(row(n, float(n))) if n % 3 else HEAD % (3, b"") + b"{x}" for n in range(1500)]
    with connect(server) as connection:
        connection.sendall(b"".join(wanted))
        answers = read(connection, len(wanted))
    assert [status for status, _, _ in answers] == [200 if n % 3 else 400 for n in range(1500)]
    assert all(value(document) == n + 1.0 for n, (_, _, document) in enumerate(answers) if n % 3)


def test_a_body_that_comes_in_pieces_gets_the_same_answer(server: Server) -> None:
    whole = request(row(5, 4.25, kind="never"))
    with connect(server) as connection:
        connection.sendall(whole)
        ((status, head, short),) = read(connection, 1)
        connection.sendall(whole[:-9])
        time.sleep(0.1)
        connection.sendall(whole[-9:])
        ((other_status, other_head, long),) = read(connection, 1)
    assert (status, other_status) == (200, 200)
    for document in (short, long):
        assert document["predictions"][0].pop("id")  # type: ignore[index]
    assert short == long
    assert value(short) == 5.25
    ours, theirs = ([line.split(b":")[0] for line in h.split(b"\r\n")] for h in (head, other_head))
    assert ours == theirs


def test_refusals_have_their_reason_and_their_id(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request({**row(), "size": "many"}) + request() + request(row(), head=b"host: evil.example\r\n"))
        broken, empty, strange = read(connection, 3)
    assert (broken[0], broken[2]["field"], broken[2]["row"]) == (422, "size", 0)
    assert b"x-request-id" in broken[1]
    assert empty[0] == 400
    assert strange[0] == 403


def test_a_body_above_the_limit_is_refused(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request(*(row(n) for n in range(400))))
        ((status, _, _),) = read(connection, 1)
    assert status == 413


def test_a_connection_is_closed_when_its_client_says_so(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request(row(), head=b"connection: close\r\n"))
        ((status, head, _),) = read(connection, 1)
        assert status == 200
        assert b"connection: close" in head
        assert connection.recv(1) == b""


def test_clients_that_leave_at_once_harm_nobody_and_are_counted(server: Server) -> None:
    for _ in range(20):
        with connect(server) as connection:
            connection.sendall(request(row()) * 3)
    assert server.predict(row(1, 2.0)).json["predictions"][0]["value"] == 3.0


def test_requests_and_rows_are_counted(server: Server) -> None:
    def counted() -> list[float]:
        lines = server.get("/metrics").body.decode().splitlines()
        names = ("mulle_requests_total{", "mulle_rows_total{")
        return [sum(float(line.split()[-1]) for line in lines if line.startswith(name)) for name in names]

    before = counted()
    with connect(server) as connection:
        connection.sendall(request(row(1), row(2), row(3)) + request(row(4)) + request())
        read(connection, 3)
    assert [b - a for a, b in zip(before, counted(), strict=True)] == [3, 4]
