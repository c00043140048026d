"""The inference server beside a loop that dies: it goes on answering, and the next loop's takes its place."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mulle.core.errors import Unavailable
from mulle.core.settings import Settings
from mulle.kernel.routes import ROUTES, RoutingTable, write_routes
from mulle.loop.server import InferenceServer, end_left_server, free_port, inference_server


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "project.py").write_text("")
    made = Settings(project=tmp_path, inference_port=free_port("127.0.0.1")).resolved()
    made.home.mkdir()
    yield made
    if pid := held(made):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def held(settings: Settings) -> int:
    return int((settings.home / "serve.lock").read_text() or 0)


def answers(settings: Settings) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((settings.host, settings.inference_port)) == 0


def a_loop_that_dies(settings: Settings, outlives: bool) -> None:
    server = InferenceServer(settings, outlives=outlives)
    server.start()
    server.wait_ready()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_server_outlives_its_loop_and_ends_when_the_next_one_starts(settings: Settings) -> None:
    loop = multiprocessing.get_context("spawn").Process(target=a_loop_that_dies, args=(settings, True))
    loop.start()
    loop.join(60)
    assert loop.exitcode == -signal.SIGKILL
    first = held(settings)
    assert answers(settings)
    server = InferenceServer(settings)
    server.start()
    try:
        server.wait_ready()
        assert server.alive()
        assert held(settings) != first
    finally:
        server.stop()
    assert not answers(settings)
    (settings.home / "serve.lock").write_text("")


def test_a_server_that_cannot_listen_says_why_it_ended(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind((settings.host, settings.inference_port))
        other.listen()
        server = InferenceServer(settings)
        server.start()
        assert server.ended() == "it runs"
        with pytest.raises(Unavailable):
            server.wait_ready()
    assert not server.alive()
    assert "cannot be listened on" in server.ended()
    assert "next: choose another inference_port" in server.ended()


def test_the_server_of_a_replay_is_asked_without_the_token_and_the_proxy_of_the_live_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULLE_TOKEN", "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    write_routes(settings.home / ROUTES, RoutingTable(generation=1))
    with inference_server(settings) as server:
        server.wait_routes(1)
        asked = http.client.HTTPConnection(settings.host, settings.inference_port, timeout=30)
        asked.request("GET", "/v2/models/nobody")
        assert asked.getresponse().status == 404, "a door that wants a token says 401"
        asked.close()


def test_a_server_of_several_workers_starts_takes_up_routes_and_stops_as_one(settings: Settings) -> None:
    server = InferenceServer(replace(settings, workers=2))
    server.start()
    try:
        server.wait_ready()
        assert len(psutil.Process(held(settings)).children()) == 2
        write_routes(settings.home / ROUTES, RoutingTable(generation=3))
        server.wait_routes(3)
    finally:
        server.stop()
    assert not answers(settings)
    (settings.home / "serve.lock").write_text("")


class DiedError(BaseException):
    """A loop's death at a moment, as far as its server can tell."""


def test_a_server_whose_loop_dies_as_it_starts_it_is_found_and_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            started.append(self)
            raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr("mulle.loop.server.subprocess.Popen", Popen)
        with pytest.raises(DiedError):
            InferenceServer(settings).start()
    assert held(settings) == started[0].pid
    end_left_server(settings.home)
    assert started[0].wait(20) in (0, -signal.SIGTERM)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_the_server_of_a_replay_ends_with_it_however_that_ends(settings: Settings) -> None:
    replay = multiprocessing.get_context("spawn").Process(target=a_loop_that_dies, args=(settings, False))
    replay.start()
    replay.join(60)
    assert replay.exitcode == -signal.SIGKILL
    with suppress(psutil.NoSuchProcess):
        psutil.Process(held(settings)).wait(60)
    assert not answers(settings)
