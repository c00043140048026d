"""A server's life: versions change under load, processes are killed, disks fill up, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import polars as pl
import psutil
import pytest
from serving_parts import T0, Server, bundle, route, row, utc, version

import mulle as ml
from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.core.errors import UsageError
from mulle.core.hashing import hash_folder
from mulle.core.settings import load_settings
from mulle.kernel.logs import Wanted, read_log
from mulle.kernel.routes import ROUTES, ModelRoutes, Routed, RoutingTable, write_routes
from mulle.lifecycle.monitoring.service import service_signals
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.app import create_app
from mulle.surfaces.inference.serve import serve

Made = list[tuple[str, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder / str(n), offset=float(n)) for n in range(4)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def drained(home: Path, table: str = "predictions") -> pl.DataFrame:
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    return lake.scan(table).collect()


class Load:
    """Clients that ask without pause; keeps every acknowledged id and every status."""

    def __init__(self, server: Server) -> None:
        self.server, self.ids, self.statuses, self.versions = server, list[str](), list[int](), list[int]()
        self._stop = threading.Event()

    @contextmanager
    def running(self, clients: int = 3) -> Iterator[Load]:
        threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, client: int) -> None:
        connection, number = self.server.connect(), 0
        while not self._stop.is_set():
            number += 1
            try:
                answer = self.server.predict(row(client * 100_000 + number), over=connection)
            except (OSError, json.JSONDecodeError):
                return
            except Exception as error:
                if type(error).__name__ in {"RemoteDisconnected", "BadStatusLine", "IncompleteRead", "CannotSendRequest"}:
                    return
                raise
            self.statuses.append(answer.status)
            if answer.status == 200:
                self.ids += [p["id"] for p in answer.json["predictions"]]
                self.versions += [p["version"] for p in answer.json["predictions"]]


def test_versions_change_under_load_without_a_failed_request(home: Path, made: Made) -> None:
    route(home, version(1, made[0]))
    with Server(home) as server:
        load = Load(server)
        with load.running():
            for number in (1, 2, 3):
                waited = server.until(route(home, version(number + 1, made[number]), keep=True))
                assert waited < 2.0
                assert server.predict(row()).json["version"] == number + 1
        assert set(load.statuses) == {200}
        assert set(load.versions) == {1, 2, 3, 4}
        assert load.versions[-1] == 4


def test_a_corrupt_bundle_is_refused_by_its_hash_and_the_champion_stays(home: Path, made: Made, tmp_path: Path) -> None:
    route(home, version(1, made[0]))
    with Server(home) as server:
        told, folder = bundle(tmp_path / "broken", offset=9.0)
        (folder / "model.onnx").write_bytes(b"no longer what was registered")
        server.until(route(home, version(2, (told, folder))))
        assert server.predict(row()).json["version"] == 1
        problem = server.get("/v1/routes").json["models"]["trip"]["problem"]
        assert problem["bundle"] == told
        assert told in problem["detail"]
        said = [line for line in read_log(home, Wanted(level="error")) if told in line["text"]]
        assert [line["model"] for line in said] == ["trip"], "in the log, once"
        # A canary that is refused leaves the champion alone with all the traffic.
        server.until(route(home, version(1, made[0], share=0.5), version(2, (told, folder), share=0.5, mode="canary")))
        assert {server.predict(row(n)).json["version"] for n in range(20)} == {1}
        server.until(route(home, version(3, made[2])))
        assert server.predict(row()).json["version"] == 3
        assert server.get("/v1/routes").json["models"]["trip"]["problem"] is None


def test_with_nothing_but_a_corrupt_bundle_the_answer_is_503(home: Path, tmp_path: Path) -> None:
    told, folder = bundle(tmp_path / "broken")
    (folder / "card.md").write_text("added later")
    route(home, version(1, (told, folder)))
    with Server(home) as server:
        answer = server.predict(row())
        assert (answer.status, answer.json["bundle"]) == (503, told)


def test_a_table_that_cannot_be_read_changes_nothing(home: Path, made: Made) -> None:
    route(home, version(1, made[0]))
    with Server(home) as server:
        (home / "routes.json").write_text("{ not a table")
        deadline = time.monotonic() + 3
        while server.get("/v1/routes").json["problem"] is None:
            assert time.monotonic() < deadline
        assert server.predict(row()).status == 200


def test_a_deployment_takes_effect_at_its_time(home: Path, made: Made) -> None:
    route(home, version(1, made[0]), keep=True)
    later = WallClock().now() + timedelta(seconds=3)
    route(home, version(2, made[1]), at=later, keep=True)
    with Server(home) as server:
        assert server.predict(row()).json["version"] == 1
        deadline = time.monotonic() + 6
        while server.predict(row()).json["version"] != 2:
            assert time.monotonic() < deadline
        assert WallClock().now() >= later


def test_a_canary_is_sticky_by_key_and_both_versions_are_logged(home: Path, made: Made) -> None:
    route(home, version(1, made[0], share=0.75), version(2, made[1], share=0.25, mode="canary"))
    with Server(home) as server:
        rows = [row(n) for n in range(400)]
        first = [p["version"] for p in server.predict(*rows).json["predictions"]]
        second = [server.predict(r).json["predictions"][0]["version"] for r in rows[:40]]
        assert second == first[:40]
        assert 60 < first.count(2) < 140
    logged = drained(home)
    assert logged.height == 880
    assert logged.filter(pl.col("route") == "shadow").height == 440
    assert logged.group_by("request").len()["len"].unique().to_list() == [2]


def test_killed_at_full_speed_no_acknowledged_prediction_is_lost(home: Path, made: Made) -> None:
    route(home, version(1, made[0]))
    server = Server(home).start()
    load = Load(server)
    with load.running(4):
        while len(load.ids) < 300:
            time.sleep(0.01)
        drain(log_folder(home), DeltaLake(str(home / "lake")), now=WallClock().now())
        server.kill()
    logged = drained(home)
    assert set(load.ids) <= set(logged["id"])
    assert logged["id"].n_unique() == logged.height
    assert not list(log_folder(home).glob("*.seg"))
    with Server(home) as again:
        assert again.predict(row()).status == 200


def test_asked_to_end_it_finishes_what_it_took(home: Path, made: Made) -> None:
    route(home, version(1, made[0]))
    server = Server(home).start()
    load = Load(server)
    with load.running(4):
        while len(load.ids) < 100:
            time.sleep(0.01)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    assert set(load.statuses) <= {200}
    assert set(load.ids) == set(drained(home)["id"])


def test_a_full_disk_gives_503_and_comes_back(home: Path, made: Made) -> None:
    route(home, version(1, made[0]))
    with Server(home) as server:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        assert server.predict(row()).status == 200
        process.rlimit(psutil.RLIMIT_FSIZE, (1500, psutil.RLIM_INFINITY))
        answers = [server.predict(row(n)) for n in range(12)]
        failed = [a for a in answers if a.status != 200]
        assert {a.status for a in failed} == {503}
        assert failed[-1].json["type"].endswith("/log")
        assert failed[-1].json["retryable"] is True
        process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert server.predict(row()).status == 200
        answered = 2 + sum(a.status == 200 for a in answers)
    assert drained(home).height == answered


def test_in_a_replay_rows_choose_their_version_by_their_own_time(home: Path, made: Made) -> None:
    route(home, version(1, made[0]), at=utc("2013-01-01"), keep=True)
    route(home, version(2, made[1]), at=utc("2013-03-05"), keep=True)
    rows = [row(n, at=f"2013-03-0{d}T00:00:00Z") for n, d in enumerate((1, 6, 4, 5))]
    with Server(home, {"clock": "rows"}) as server:
        first = server.predict(*rows).json["predictions"]
        assert [p["version"] for p in first] == [1, 2, 1, 2]
        assert [p["id"] for p in server.predict(*rows).json["predictions"]] == [p["id"] for p in first]
        assert server.predict(row(at="2012-01-01T00:00:00Z")).status == 503


def test_labels_and_predictions_meet_in_the_lake(home: Path, made: Made) -> None:
    route(home, version(1, made[0]))
    with Server(home) as server:
        id = server.predict(row(5)).json["predictions"][0]["id"]
        told = {"model": "trip", "labels": [
            {"prediction_id": id, "value": 3, "known_at": "2013-03-02T00:00:00Z"},
            {"key": {"id": 5}, "time": "2013-03-01T10:00:00Z", "value": None, "reason": "lost"},
        ]}  # fmt: skip
        assert server.ask("POST", "/v1/labels", told).json["accepted"] == 2
    labels = drained(home, "labels").sort("reason")
    predictions = drained(home)
    assert labels["prediction_id"].to_list() == [id, None]
    assert labels["value"].to_list() == ["3", None]
    assert labels["key_text"][1] == predictions["key_text"][0] == "5"


def test_the_process_stays_lean(home: Path, made: Made) -> None:
    probe = """
import atexit, sys
def tell():
    heavy = {"mlflow", "sklearn", "pandas", "lightgbm", "optuna", "dbos", "duckdb", "sqlalchemy", "fastapi", "deltalake"}
    open("modules.txt", "w").write(" ".join(sorted(heavy & set(sys.modules))))
atexit.register(tell)
"""
    route(home, version(1, made[0]))
    with Server(home, before=probe) as server:
        load = Load(server)
        with load.running():
            while len(load.ids) < 300:
                time.sleep(0.01)
        server.get("/metrics")
        assert server.process is not None
        assert psutil.Process(server.process.pid).memory_info().rss < 200 * 2**20
        server.process.terminate()
        server.process.wait(10)
    assert (home / "modules.txt").read_text() == ""


def test_a_full_queue_says_when_to_come_back_and_a_slow_one_gives_up(home: Path, tmp_path: Path) -> None:
    _, folder = bundle(tmp_path / "slow")
    source = (folder / "transform" / "project.py").read_text()
    slow = "    import time; time.sleep(0.8)\n    boom ="
    (folder / "transform" / "project.py").write_text(source.replace("    boom =", slow, 1))
    route(home, version(1, (hash_folder(folder), folder)))
    with Server(home, {"max_queue": "400", "deadline": "1s", "fsync": "true"}) as server:
        found = []

        def ask(rows: int) -> None:
            found.append(server.predict(*[row(n) for n in range(rows)]))

        threads = [threading.Thread(target=ask, args=(300,)) for _ in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        busy = [a for a in found if a.status == 429]
        assert len(busy) == 2
        assert busy[0].headers["retry-after"] == "1"
        assert busy[0].json["retryable"] is True
        first, second = threading.Thread(target=ask, args=(10,)), threading.Thread(target=ask, args=(390,))
        before, kinds = tuple(found), {429: "overloaded", 504: "deadline"}
        found.clear()
        first.start()
        time.sleep(0.3)
        second.start()
        first.join()
        second.join()
        assert sorted(a.status for a in found) == [200, 504]
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    log = lake.scan("predictions").collect()
    turned_away = log.filter(route="refused")
    assert sorted(turned_away["error"]) == sorted(kinds[a.status] for a in (*before, *found) if a.status in kinds)
    assert turned_away.filter(error="deadline")["seconds"].min() >= 1.0
    (errors,) = service_signals(ml.Monitor(service=ml.service(errors=0.4), min_rows=1), log)
    assert errors.verdict == "alarm", "more than two of five requests failed"


def test_beyond_this_machine_a_token_is_asked_for(home: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULLE_TOKEN", raising=False)
    settings = load_settings({"project": str(home), "host": "0.0.0.0"}, {})
    runtime = Runtime(settings, lambda contract: pytest.fail("no joins"))
    with pytest.raises(UsageError, match="without a token"):
        serve(settings, create_app(runtime, settings))
    route(home, version(1, made[0]))
    with Server(home, {"token": "s3cret"}) as server:
        assert server.predict(row()).status == 401
        assert server.predict(row(), headers={"authorization": "Bearer wrong"}).status == 401
        assert server.predict(row(), headers={"authorization": "Bearer s3cret"}).status == 200


def test_a_fleet_is_loaded_as_it_is_asked_for(home: Path, made: Made) -> None:
    move = Routed(id="d1", effective_at=T0, salt="s", routes=(version(1, made[1]),))
    fleet = {f"m{n}": ModelRoutes(deployments=(move,)) for n in range(300)}
    write_routes(home / ROUTES, RoutingTable(generation=1, models=fleet))
    with Server(home) as server:
        assert {server.predict(row(), model=f"m{n}").json["predictions"][0]["value"] for n in range(290)} == {3.0}
        assert server.predict(row(), model="m0").status == 200
        assert server.predict(row(), model="m300").status == 404
        assert server.get("/v1/routes").json["models"]["m299"]["loaded"] == []
        assert server.get("/v2/models/m299/ready").json["ready"] is True
