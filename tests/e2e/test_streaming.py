"""Topics that feed a model while it serves: a message is part of the next answer, and a kill loses and doubles none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from commands import command
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.ports import free_port

from mulle.bootstrap.parts import wire
from mulle.core.clock import instant, rfc3339
from mulle.core.settings import load_settings

MULLE = [sys.executable, "-m", "mulle"]
STATIONS = ("a", "b", "c")
PROJECT = """
import polars as pl
import mulle as ml

stations = ml.Dataset("stations", ml.Kafka(topic="{topic}-stations"), key="station")
readings = ml.Dataset(
    "readings", ml.Kafka(topic="{topic}", limit=400), key="station", time="seen",
    schema={{"seen": "Datetime", "wind": "Float64"}}, checks=[ml.not_null("station", "wind")],
)
flights = ml.Dataset("flights", ml.Files("flights.csv"), key="id", time="at", known_at="landed", outcome="delay")

@ml.features(
    flights,
    place=ml.lookup(stations, on="station"),
    now=ml.asof(readings, on="station", within="2h"),
    past=ml.history(readings, on="station", window="1h", every="1s", highest=pl.col("wind").max()),
)
def shape(rows):
    return rows.select("place.height", "now.wind", "past.highest")

delay = ml.Model(
    "delay", features=shape, target="delay", task="regression", split=ml.holdout(0.2),
    search=ml.Search([ml.ridge()], trials=1), gates=[ml.parity(1e-4)], rollout=ml.immediate(),
)
"""


class Weather:
    """The topics of one project, with what their stations reported in the past two hours."""

    def __init__(self, servers: str) -> None:
        self.name, self._servers = f"e{uuid4().hex[:12]}", servers
        self._admin = AdminClient({"bootstrap.servers": servers})
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
        self.topics = (self.name, f"{self.name}-stations")
        for made in self._admin.create_topics([NewTopic(topic, 3, 1) for topic in self.topics]).values():
            made.result()
        self.sent = 0

    def station(self, name: str, height: float) -> None:
        self._send(self.topics[1], name, {"station": name, "height": height})

    def reading(self, station: str, wind: float, seen: datetime | None = None) -> None:
        moment = rfc3339(seen or datetime.now(UTC))
        self._send(self.name, station, {"n": self.sent, "station": station, "seen": moment, "wind": wind})
        self.sent += 1

    def flush(self) -> None:
        assert self._producer.flush(10) == 0

    def close(self) -> None:
        for gone in self._admin.delete_topics(list(self.topics)).values():
            gone.result()

    def _send(self, topic: str, key: str, row: dict[str, Any]) -> None:
        self._producer.produce(topic, json.dumps(row), key=key)


def a_past(weather: Weather, folder: Path) -> None:
    """Two hours of readings, one a minute, and flights whose delay follows from them."""
    random, now = np.random.default_rng(5), datetime.now(UTC).replace(microsecond=0)
    begin, flights = now - timedelta(hours=2), []
    for place, name in enumerate(STATIONS):
        weather.station(name, 10.0 * place)
        winds = random.gamma(2.0, 5.0 * (place + 1), 120).round(2)
        for minute, wind in enumerate(winds):
            weather.reading(name, float(wind), begin + timedelta(minutes=minute))
        for minute in range(20, 119):
            at = begin + timedelta(minutes=minute, seconds=30)
            highest = float(winds[max(0, minute - 59) : minute + 1].max())
            flights.append((f"{name}{minute}", name, rfc3339(at), rfc3339(at), float(winds[minute]) + 3 * highest))
    weather.flush()
    pl.DataFrame(flights, ["id", "station", "at", "landed", "delay"], orient="row").write_csv(folder / "flights.csv")


class Platform:
    """A project, and `mulle up` on it as a process that can be killed."""

    def __init__(self, folder: Path, servers: str, online: str) -> None:
        self.folder = folder
        self.port, control = free_port(), free_port()
        self.environment = os.environ | {
            "MULLE_BROKER": servers, "MULLE_ONLINE": online, "MULLE_TICK": "250ms",
            "MULLE_INFERENCE_PORT": str(self.port), "MULLE_PORT": str(control),
        }  # fmt: skip
        self.parts = wire(load_settings({"project": folder, "broker": servers}, {}))
        self._process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen([*MULLE, "up"], cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        until(lambda: self.ready(), "mulle up answers")

    def ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "up.log").read_text()
        try:
            self.predict("a")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        assert self._process.wait(10) == -signal.SIGKILL

    def down(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", self.port)) != 0, "a server was left behind"

    def predict(self, station: str, at: datetime | None = None) -> dict[str, Any]:
        row = {"id": "x", "station": station} | ({"at": rfc3339(at)} if at else {})
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/models/delay/predict",
            json.dumps({"rows": [row]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["predictions"][0]
        return found

    def has(self, at: datetime) -> bool:
        """Tell whether a request of an instant finds its readings: the last one, and the history of its very tick."""
        found = self.predict("b", at)["freshness"]
        return "now" in found and instant(found.get("past", "1970-01-01")) == tick_of(at)

    def features(self, station: str) -> dict[str, float]:
        """What a prediction that is asked for now is made of, as the log tells."""
        asked = self.predict(station)["id"]
        found: list[str] = []

        def logged() -> bool:
            if self.parts.lake.version("predictions") is None:
                return False
            rows = self.parts.lake.scan("predictions").filter(pl.col("id") == asked).select("features").collect()
            found.extend(rows["features"])
            return bool(found)

        until(logged, "the prediction is in the log")
        answer: dict[str, float] = json.loads(found[0])
        return answer

    def in_lake(self) -> list[int]:
        """The number of every reading in the lake's table, as often as it stands there."""
        return self.parts.lake.scan("data/readings").select("n").collect()["n"].to_list()


def tick_of(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def until(true: Callable[[], bool], what: str, seconds: float = 30) -> float:
    """Wait for a condition; return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"after {seconds} s still not: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def servers() -> str:
    if not (found := os.environ.get("MULLE_TEST_KAFKA", "")):
        pytest.skip("MULLE_TEST_KAFKA is not set")
    return found


@pytest.fixture(scope="module")
def weather(servers: str) -> Iterator[Weather]:
    made = Weather(servers)
    yield made
    made.close()


@pytest.fixture(scope="module")
def project(weather: Weather, servers: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    (folder / "project.py").write_text(PROJECT.format(topic=weather.name))
    a_past(weather, folder)
    done = command(folder, "run", "delay", environment={"MULLE_BROKER": servers})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def platform(request: pytest.FixtureRequest, project: Path, servers: str) -> Iterator[Platform]:
    """The same project on both stores; the second one is filled from the lake."""
    online, prefix = f"lmdb://{project / '.mulle' / 'online.lmdb'}", f"e{uuid4().hex[:12]}"
    redis = os.environ.get("MULLE_TEST_REDIS", "")
    if request.param == "redis":
        if not redis:
            pytest.skip("MULLE_TEST_REDIS is not set")
        online = f"{redis}{'&' if '?' in redis else '?'}prefix={prefix}"
    made = Platform(project, servers, online)
    made.up()
    yield made
    made.down()
    if request.param == "redis":
        swept(redis, prefix)


def swept(url: str, prefix: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{prefix}*"):
            client.delete(key)


def test_a_message_is_part_of_the_next_answer_by_every_kind_of_join(platform: Platform, weather: Weather) -> None:
    before = datetime.now(UTC)
    until(lambda: platform.has(before), "the store is filled")
    then, other = platform.predict("b", before), platform.predict("c")
    seen, wind, height = datetime.now(UTC), 1000.0 + weather.sent, 50.0 + weather.sent
    weather.station("b", height)
    weather.reading("b", wind, seen)
    weather.flush()
    took = until(lambda: instant(platform.predict("b")["freshness"]["now"]) == seen, "an answer is made of the message")
    assert took < 5
    wanted = {"place.height": height, "now.wind": wind, "past.highest": wind}
    until(lambda: platform.features("b") == wanted, "an answer is made of the message by every join")
    now = platform.predict("b")
    assert now["value"] > then["value"]
    # It was not available before it came, and is nobody else's.
    assert platform.predict("b", before)["freshness"] == then["freshness"]
    assert platform.predict("c")["freshness"]["now"] == other["freshness"]["now"]


def test_every_answer_has_the_history_of_its_very_tick(platform: Platform) -> None:
    # A look at the world every quarter of a second: what a tick gives stands in the store before it is asked for.
    until(lambda: platform.has(datetime.now(UTC)), "the store is filled")
    asked: dict[datetime, bool] = {}

    def three_ticks() -> bool:
        now = datetime.now(UTC)
        asked[now] = platform.has(now)
        return len({tick_of(moment) for moment in asked}) > 3

    until(three_ticks, "three ticks have gone by")
    assert [moment for moment, found in asked.items() if not found] == []


def test_a_kill_in_the_middle_of_a_stream_loses_and_doubles_no_message(platform: Platform, weather: Weather) -> None:
    first, count = weather.sent, 2400
    last: dict[str, float] = {}
    halt = threading.Event()

    def stream() -> None:
        for number in range(count):
            station = STATIONS[number % 3]
            last[station] = 1000.0 + weather.sent  # above all before it
            weather.reading(station, last[station])
            if number % 100 == 99:
                weather.flush()
                halt.wait(0.1)

    producing = threading.Thread(target=stream)
    producing.start()
    until(lambda: len(platform.in_lake()) >= first + count // 4, "a part of the stream is in the lake")
    platform.kill()
    held = len(platform.in_lake())
    platform.up()
    producing.join(30)
    until(lambda: len(platform.in_lake()) >= weather.sent, "the whole stream is in the lake")
    assert held < weather.sent == first + count
    assert sorted(platform.in_lake()) == list(range(weather.sent))
    for station in STATIONS:
        wanted = {"now.wind": last[station], "past.highest": last[station]}
        until(lambda s=station, w=wanted: w.items() <= platform.features(s).items(), f"{station} has its last reading")
    assert sorted(platform.in_lake()) == list(range(weather.sent))
