"""The inference server beside a loop that dies: it goes on answering, and the next loop's takes its place."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mulle.core.settings import Settings
from mulle.kernel.routes import ROUTES, RoutingTable, write_routes
from mulle.loop.server import InferenceServer, free_port


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


def a_loop_that_dies(settings: Settings) -> None:
    server = InferenceServer(settings)
    server.start()
    server.wait_ready()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_server_outlives_its_loop_and_ends_when_the_next_one_starts(settings: Settings) -> None:
    loop = multiprocessing.get_context("spawn").Process(target=a_loop_that_dies, args=(settings,))
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
