"""The replay's client: order, horizon and honest counting, against a real socket server."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mulle.core.errors import Unavailable
from mulle.loop.replay.traffic import Event, Traffic


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[bytes]
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.lock:
            self.seen.append(body)
        status = 500 if body == b"fail" else 200
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        if body == b"hang up":
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Fresh", (Handler,), {"seen": []})
    socketserver.TCPServer.allow_reuse_address = True
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def events(*bodies: bytes) -> list[Event]:
    return [Event(at, "/v1/models/m/predict", body, 1) for at, body in enumerate(bodies)]


def played(server: ThreadingHTTPServer, connections: int, *bodies: bytes) -> Traffic:
    """Send all of these, and wait for their answers."""
    traffic = Traffic("127.0.0.1", server.server_port, connections=connections)
    traffic.start()
    traffic.add(events(*bodies))
    traffic.allow(10)
    traffic.wait_answered(10, timeout=20)
    traffic.close()
    return traffic


def test_nothing_beyond_the_horizon_is_sent(server: ThreadingHTTPServer) -> None:
    traffic = Traffic("127.0.0.1", server.server_port, connections=3)
    traffic.start()
    traffic.add(events(*(str(i).encode() for i in range(20))))
    traffic.allow(7)
    traffic.wait_answered(7, timeout=20)
    assert sorted(server.RequestHandlerClass.seen, key=int) == [str(i).encode() for i in range(7)]
    traffic.allow(20)
    traffic.wait_answered(20, timeout=20)
    traffic.close()
    assert (traffic.tally.predictions, traffic.tally.failed) == (20, 0)


def test_a_refusal_is_counted_with_its_reason(server: ThreadingHTTPServer) -> None:
    traffic = played(server, 2, b"a", b"fail", b"b")
    assert traffic.tally.failed == 1
    assert "HTTP 500" in traffic.tally.reasons[0]


def test_a_connection_that_the_server_closes_between_requests_does_not_hide_a_failure(server: ThreadingHTTPServer) -> None:
    traffic = played(server, 1, b"hang up", b"after", b"more")
    assert traffic.tally.predictions == 3
    assert len(server.RequestHandlerClass.seen) + traffic.tally.failed >= 3


def test_no_server_is_an_error_not_a_hang() -> None:
    traffic = Traffic("127.0.0.1", 1, connections=1)
    traffic.start()
    with pytest.raises(Unavailable):
        traffic.wait_answered(1, timeout=20)
