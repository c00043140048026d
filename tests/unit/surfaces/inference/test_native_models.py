"""Models that did not compile, in a real server: apart from it, within bounds, and nobody else's trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from native_parts import DIE, FAIL, GROW, HANG, REFUSE, native_bundle
from serving_parts import Server, bundle, route, row, version


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tmp_path = tmp_path_factory.mktemp("native")
    home, modules = tmp_path / "home", tmp_path / "modules"
    home.mkdir()
    route(home, version(1, bundle(tmp_path / "lean")))
    route(home, version(1, native_bundle(tmp_path / "odd", modules)), model="odd")
    route(home, version(1, native_bundle(tmp_path / "other", modules, model="other")), model="other")
    # Twice what a child holds once scikit-learn is imported.
    settings = {"deadline": "10s", "child_memory": str(400 * 2**20)}
    with Server(home, settings, environment={"PYTHONPATH": str(modules)}) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """The server, once its child has imported what it needs; the test before may have ended that."""
    again(running)
    again(running, "other")
    return running


def children(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    return psutil.Process(server.process.pid).children(recursive=True)


def odd(server: Server, size: float, model: str = "odd") -> tuple[int, dict[str, object]]:
    answer = server.predict(row(1, size), model=model)
    return answer.status, answer.json


def healthy(server: Server, model: str = "odd") -> bool:
    status, said = odd(server, 3.0, model)
    assert status in (200, 503, 504), said
    return status == 200 and said["predictions"][0]["value"] == 6.0


def again(server: Server, model: str = "odd") -> None:
    """Wait for a new child: importing what the model needs may take longer than the deadline."""
    until = time.monotonic() + 120
    while not healthy(server, model):
        assert time.monotonic() < until, "the child was not started again"


def test_native_models_share_one_child_and_the_server_never_imports_what_they_do(server: Server) -> None:
    assert healthy(server)
    assert healthy(server, "other")
    (child,) = children(server)
    libraries = {Path(m.path).parts[-3:-1] for m in psutil.Process(server.process.pid).memory_maps() if "sklearn" in m.path}
    assert not libraries, "scikit-learn is in the lean process"
    assert any("sklearn" in m.path for m in child.memory_maps())
    many = server.predict(*[row(n, n % 500) for n in range(2000)], model="odd")
    assert many.status == 200, many.body
    assert many.json["predictions"][1999]["value"] == 998.0


def test_a_child_that_dies_costs_its_requests_a_503_and_is_started_again(server: Server) -> None:
    assert healthy(server)
    (before,) = children(server)
    status, said = odd(server, DIE)
    assert (status, said["retryable"]) == (503, True)
    assert "died (exit code 9)" in said["detail"]
    assert server.predict(row(1, 5.0)).json["predictions"][0]["value"] == 5.0
    again(server)
    (after,) = children(server)
    assert after.pid != before.pid


def test_a_bundle_that_kills_each_child_rests_while_another_native_model_goes_on(server: Server) -> None:
    assert healthy(server, "other")
    until = time.monotonic() + 120
    while "starts again in" not in (answer := server.predict(row(1, DIE), model="odd")).json["detail"]:
        assert answer.status in (503, 504)  # 504 while a new child imports
        assert time.monotonic() < until
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    until = time.monotonic() + 120
    while not healthy(server, "other"):
        assert time.monotonic() < until


def test_a_model_that_hangs_is_ended_at_the_deadline_and_keeps_nobody_waiting(server: Server) -> None:
    assert healthy(server)
    found: list[tuple[int, dict[str, object]]] = []
    asking = threading.Thread(target=lambda: found.append(odd(server, HANG)))
    began = time.monotonic()
    asking.start()
    while asking.is_alive() and time.monotonic() - began < 6.0:
        assert server.predict(row(1, 5.0)).json["predictions"][0]["value"] == 5.0
    asking.join(10)
    ((status, said),) = found
    assert status == 504
    assert said["retryable"] is True
    again(server)


def test_a_model_that_takes_too_much_memory_is_ended(server: Server) -> None:
    assert healthy(server)
    status, said = odd(server, GROW)
    assert status == 503
    assert "MB of memory, more than it may" in said["detail"]
    again(server)


def test_rows_that_the_model_refuses_are_the_senders_fault_alone(server: Server) -> None:
    assert healthy(server)
    (before,) = children(server)
    status, said = odd(server, REFUSE)
    assert status == 422
    assert "something strange" in said["detail"]
    status, said = odd(server, FAIL)
    assert status == 500
    assert "broken inside" in said["detail"]
    assert healthy(server)
    assert [c.pid for c in children(server)] == [before.pid]


def test_the_child_goes_with_the_server_whatever_ends_it(server: Server) -> None:
    assert healthy(server)
    (child,) = children(server)
    server.kill()
    until = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "the child outlived its server"
        time.sleep(0.01)
