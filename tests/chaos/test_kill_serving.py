"""The server and the drain killed with SIGKILL: every prediction that was acknowledged is in the lake exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from chaos_home import THREADS, Home, make_home
from tests.ports import free_port

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.core.records.prediction import PREDICTIONS
from mulle.kernel.faults import VARIABLE
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.server import environment

ROW = {"id": 1, "at": "2024-03-09T12:00:00Z", "area": "north", "kind": "car", "distance": 7.5}
DRAIN = """
from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.core.settings import load_settings
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder

settings = load_settings()
drain(log_folder(settings.home), DeltaLake(settings.lake), now=WallClock().now())
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = make_home(tmp_path_factory.mktemp("serving") / "project")
    assert made.live(start=True).state[-1] == "succeeded"
    yield made
    made.close()


def test_every_acknowledged_prediction_survives_the_death_of_its_server_and_of_the_drain(home: Home) -> None:
    acknowledged: list[str] = []
    for _ in range(2):
        with serving(home) as (server, port):
            acknowledged += under_load(port, server, until=300)
    # The second server died too: what both wrote waits in their segments.
    faults = ("during:drain", "during:drain:finished", "during:drain", "during:drain:finished")
    assert [drained(home, fault) for fault in faults] == [-signal.SIGKILL] * 4
    assert drained(home, "") == 0
    settings = home.settings
    found = DeltaLake(settings.lake).scan(PREDICTIONS).collect()["id"].to_list()
    assert len(acknowledged) >= 600
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert list(log_folder(settings.home).glob("*.seg")) == []
    again = drain(log_folder(settings.home), DeltaLake(settings.lake), now=WallClock().now())
    assert (again.predictions, again.labels) == (0, 0)


def under_load(port: int, server: subprocess.Popen[bytes], *, until: int) -> list[str]:
    """Ask over four connections until so many were answered, kill the server in the middle, and give what it answered."""
    answered: list[str] = []

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        body = json.dumps({"rows": [ROW, ROW]})
        try:
            while True:
                connection.request("POST", "/v1/models/duration/predict", body, {"content-type": "application/json"})
                reply = connection.getresponse()
                said = json.loads(reply.read())
                assert reply.status == 200, said
                answered.extend(p["id"] for p in said["predictions"])
        except (OSError, HTTPException, ValueError):
            return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(answered) < until and any(t.is_alive() for t in threads) and time.monotonic() < deadline:
        time.sleep(0.001)
    server.kill()
    for thread in threads:
        thread.join()
    return answered


@contextmanager
def serving(home: Home) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    command = [sys.executable, "-m", "mulle", "serve"]
    server = subprocess.Popen(command, env={**inherited(home), "MULLE_INFERENCE_PORT": str(port)}, cwd=home.folder)
    try:
        deadline = time.monotonic() + 40
        while not ready(port):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.02)
        yield server, port
    finally:
        server.kill()
        server.wait()


def ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def drained(home: Home, fault: str) -> int:
    command = [sys.executable, "-c", DRAIN]
    return subprocess.run(command, env={**inherited(home), VARIABLE: fault}, cwd=Path(home.folder), check=False).returncode


def inherited(home: Home) -> dict[str, str]:
    return {**os.environ, **THREADS, **environment(home.settings)}
