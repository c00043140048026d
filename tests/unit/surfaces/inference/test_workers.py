"""Several processes behind one port: they count together, a dead one is replaced, and a restart fails nobody."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import orjson
import psutil
import pytest
from serving_parts import Server, bundle, route, row, version
from tests.ports import free_port

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.core.hashing import hash_folder
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.lifecycle.serving.tally import Tally


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "project.py").write_text("")
    route(tmp_path / "home", version(1, bundle(tmp_path / "one")))
    return tmp_path / "home"


@contextmanager
def workers(home: Path, count: int = 2, *words: str, **settings: str) -> Iterator[Server]:
    """Run ``mulle serve`` with several workers."""
    server = Server(home, port=free_port())
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "MULLE_HOME": str(home),
        "MULLE_WORKERS": "1" if words else str(count), "MULLE_INFERENCE_PORT": str(server.port),
        **{f"MULLE_{k.upper()}": v for k, v in settings.items()},
    }  # fmt: skip
    server.process = subprocess.Popen([sys.executable, "-m", "mulle", "serve", *words], env=environment, cwd=home.parent)
    try:
        until(lambda: len(answering(server)) == count)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


def until(done: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def children(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    return psutil.Process(server.process.pid).children()


def answering(server: Server) -> list[Path]:
    """The workers that told how far they are, by file; each does so when it has its routes."""
    try:
        server.get("/v2/health/ready")
    except OSError:
        return []
    return list((server.home / "counters").glob("*/*.json"))


def counted(server: Server) -> float:
    text = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in text if line.startswith("mulle_requests_total"))


def told(server: Server) -> int:
    """What the workers told each other, all together."""
    tallies = [Tally.read(orjson.loads(path.read_bytes())["tally"]) for path in answering(server)]
    return sum(tally.requests.total() for tally in tallies)


class Load:
    """Clients that ask without pause and open a new connection when an answer closes theirs."""

    def __init__(self, server: Server, clients: int = 4) -> None:
        self.server, self.ids, self.failed = server, list[str](), list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        least = len(self.ids) + count
        until(lambda: len(self.ids) >= least or bool(self.failed))

    def _ask(self, client: int) -> None:
        connection, number = self.server.connect(), 0
        while not self._stop.is_set():
            number += 1
            try:
                answer = self.server.predict(row(client * 100_000 + number), over=connection)
            except (OSError, HTTPException) as error:
                self.failed.append(repr(error))
                connection = self.server.connect()
                continue
            if answer.status == 200:
                self.ids.append(answer.json["predictions"][0]["id"])
            else:
                self.failed.append(f"{answer.status} {answer.body[:200]!r}")
            if number % 20 == 0:  # the system gives each connection to a worker
                connection.close()
                connection = self.server.connect()


def test_workers_share_the_port_and_count_together_though_one_dies(home: Path) -> None:
    with workers(home) as server:
        with Load(server) as load:
            load.more(200)
        assert load.failed == []
        asked = len(load.ids)
        logs = list(log_folder(home).glob("predictions-*"))
        assert len(logs) == 2, "each worker has its own log"
        until(lambda: counted(server) == asked)
        # Whoever answered that knows its own counts before it has told them; killed then, it takes them along.
        until(lambda: told(server) == asked)
        first = children(server)[0]
        first.kill()
        until(lambda: len(children(server)) == 2 and first.pid not in {c.pid for c in children(server)})
        with Load(server) as again:
            again.more(200)
        until(lambda: counted(server) >= asked + len(again.ids))
        assert "mulle_log_lag_seconds" in server.get("/metrics").body.decode()
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    assert {*load.ids, *again.ids} <= set(lake.scan("predictions").collect()["id"])


def test_a_restart_one_by_one_under_load_fails_no_request(home: Path) -> None:
    with workers(home) as server:
        before = {c.pid for c in children(server)}
        with Load(server) as load:
            load.more(100)
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            until(lambda: not before & {c.pid for c in children(server)} or bool(load.failed))
            load.more(100)
        assert load.failed == []
        assert len(children(server)) == 2


def test_routes_are_told_to_be_in_force_when_every_worker_has_them(home: Path, tmp_path: Path) -> None:
    with workers(home) as server:
        assert server.until(route(home, version(2, bundle(tmp_path / "two", offset=1.0)))) < 1.0
        for _ in range(20):  # a connection each
            assert server.predict(row()).json["version"] == 2


def test_workers_end_with_their_parent(home: Path) -> None:
    with workers(home, 2, "--workers", "2") as server:
        left = children(server)
        assert len(left) == 2, "as the flag says"
        server.kill()
        assert psutil.wait_procs(left, timeout=20)[1] == []


def test_a_taken_port_is_not_shared(home: Path) -> None:
    with workers(home) as server:
        second = subprocess.run(
            [sys.executable, "-m", "mulle", "serve"], cwd=home.parent, capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "MULLE_HOME": str(home), "MULLE_WORKERS": "2", "MULLE_INFERENCE_PORT": str(server.port)},
        )  # fmt: skip
        assert second.returncode == 3
        assert "cannot be listened on" in second.stderr
        assert server.predict(row()).status == 200


def test_two_servers_share_a_home(home: Path, tmp_path: Path) -> None:
    with Server(home) as one, Server(home) as two:
        ids = [s.predict(row(n)).json["predictions"][0]["id"] for n in range(10) for s in (one, two)]
        generation = route(home, version(2, bundle(tmp_path / "two", offset=1.0)))
        assert max(one.until(generation), two.until(generation)) < 1.0
        assert [s.predict(row()).json["version"] for s in (one, two)] == [2, 2]
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    assert set(ids) <= set(lake.scan("predictions").collect()["id"])


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_that_ends_shuts_its_door_at_once_and_finishes_what_it_took(home: Path, tmp_path: Path, count: int) -> None:
    route(home, version(2, slow_bundle(tmp_path / "slow", 2.0)))
    with workers(home, count) if count > 1 else Server(home) as server:
        found = list[int]()
        # More than there are workers: while all of them are busy, the others wait where nobody has taken them yet.
        clients = [threading.Thread(target=lambda: found.append(server.predict(row()).status)) for _ in range(6)]
        for client in clients:
            client.start()
            time.sleep(0.1)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)

        def turned_away() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), 5).close()
            except ConnectionRefusedError:
                return True
            return False

        until(turned_away)
        assert found == [], "the door is shut while everyone still works"
        for client in clients:
            client.join()
        assert found == [200] * 6, "who was there before it was shut is answered"
        assert server.process.wait(20) == 0


def slow_bundle(folder: Path, seconds: float) -> tuple[str, Path]:
    _, made = bundle(folder)
    source = (made / "transform" / "project.py").read_text()
    slower = source.replace("    boom =", f"    import time; time.sleep({seconds})\n    boom =", 1)
    (made / "transform" / "project.py").write_text(slower)
    return hash_folder(made), made


def test_while_it_ends_it_is_not_ready_and_its_answers_close_their_connections(home: Path, tmp_path: Path) -> None:
    route(home, version(2, slow_bundle(tmp_path / "slow", 0.5)))
    with Server(home) as server:
        kept, found = server.connect(), list[int]()
        assert server.get("/v2/health/ready", over=kept).status == 200
        slow = threading.Thread(target=lambda: found.append(server.predict(row()).status))
        slow.start()
        time.sleep(0.1)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        while True:
            answer = server.get("/v2/health/ready", over=kept)
            assert answer.status == 503
            if answer.headers.get("connection") == "close":
                break
        slow.join()
        assert found == [200], "what was taken is finished"
        assert server.process.wait(20) == 0
