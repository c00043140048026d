"""The commands about alerts, in one process and on the command line's own words."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from mulle.surfaces.cli.main import call

SECRET = "t0pS3cret"


@pytest.fixture
def run(home, capfd, monkeypatch):
    monkeypatch.setenv("MULLE_PROJECT", str(home.folder))
    monkeypatch.delenv("MULLE_ALERTS", raising=False)

    def told(*words: str) -> tuple[int, str, str]:
        code = call(words)
        out = capfd.readouterr()
        return code, out.out, out.err

    return told


@pytest.fixture
def hook():
    class Handler(BaseHTTPRequestHandler):
        bodies: ClassVar[list[dict[str, str]]] = []

        def do_POST(self) -> None:
            self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/away" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], Handler.bodies
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "words", [("alerts",), ("alerts", "ls"), ("alerts", "air-time"), ("alerts", "--state", "open"), ("alerts", "--limit", "5")]
)
def test_alerts_are_listed_with_and_without_the_word(run, words):
    code, out, _ = run(*words, "--json")
    alert, *_ = json.loads(out)["items"]
    assert code == 0
    assert {"model", "signal", "severity", "state", "opened_at", "closed_at", "evidence", "next"} <= alert.keys()


def test_the_group_tells_its_commands(run):
    code, out, _ = run("alerts", "--help")
    assert code == 0
    for word in ("ls", "silence", "unsilence", "test"):
        assert word in out
    assert run("alerts", "--state", "loud")[0] == 2


def test_a_silence_begins_and_ends_with_its_reason(run):
    code, out, _ = run("alerts", "silence", "air-time", "--for", "2h", "--why", "the source moves", "--json")
    made = json.loads(out)
    assert (code, made["model"], made["causes"][0]["why"]) == (0, "air-time", "the source moves")
    assert json.loads(run("alerts", "--json")[1])["items"][0]["silenced_until"] == made["until"]
    assert "alerts are silent until" in run("status")[1]
    assert run("alerts", "unsilence", "air-time")[0] == 0
    assert json.loads(run("alerts", "--json")[1])["items"][0]["silenced_until"] is None
    assert run("alerts", "silence", "nobody", "--for", "2h")[0] == 2
    assert run("alerts", "silence", "air-time", "--for", "soon")[0] == 2
    assert run("alerts", "silence", "*", "--for", "0s")[0] == 2


def test_receivers_are_tried_and_no_secret_is_shown(run, hook, monkeypatch):
    port, bodies = hook
    code, _, err = run("alerts", "test")
    assert code == 2
    assert "MULLE_ALERTS" in err
    good = f"json://ada:{SECRET}@127.0.0.1:{port}/here"
    monkeypatch.setenv("MULLE_ALERTS", good)
    code, out, err = run("alerts", "test")
    assert (code, bodies[0]["title"]) == (0, "Mulle: a test")
    assert "pass" in out
    monkeypatch.setenv("MULLE_ALERTS", f"{good}, json://ada:{SECRET}@127.0.0.1:{port}/away")
    code, told, err2 = run("alerts", "test", "--json")
    assert code == 3
    assert [i["verdict"] for i in json.loads(told)["items"]] == ["pass", "fail"]
    assert "answered 500" in told
    assert SECRET not in out + err + told + err2
    monkeypatch.setenv("MULLE_ALERTS", f"nope://{SECRET}")
    found = {c["name"]: c for c in json.loads(run("doctor", "--json")[1])["checks"]}
    assert found["alerts"]["verdict"] == "fail"
    assert SECRET not in str(found)
