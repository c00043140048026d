"""Streams on a real broker: each message is answered exactly once, whoever dies, moves or goes away in between."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Message
from serving_parts import bundle, route, version
from stream_parts import Topics, ids, life, logged, row, streaming, until

from mulle.adapters.streams.kafka import read_topic
from mulle.core.errors import DataError, NotFound, UsageError
from mulle.kernel.routes import ROUTES, LogRule, read_routes, write_routes


@pytest.fixture
def topics(kafka_servers: str) -> Iterator[Topics]:
    made = Topics(kafka_servers)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which trip@1 answers size + 1."""
    made = tmp_path / "home"
    made.mkdir()
    route(made, version(1, bundle(tmp_path / "1", offset=1.0)))
    return made


def said_by(message: Message) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(message.value() or b"")
    return answer


def test_each_message_gets_its_answer_and_its_line_in_the_log(home: Path, topics: Topics) -> None:
    topics.send(*[row(n) for n in range(300)], headers={"trace": b"t1"})
    topics.send(None)
    with streaming(home, topics) as (stream, handler, *_):
        found = topics.read(topics.output, 300)
        until(lambda: sum(stream.flow.lag.values()) == 0 and len(stream.flow.lag) == 3, "everything is read")
        assert (stream.flow.answered, stream.flow.skipped, stream.flow.dead) == (300, 1, 0)
        assert handler.tally.rows[("trip", "1", "champion")] == 300
    assert ids(found) == list(range(300))
    for message in found:
        said = json.loads(message.value() or b"")
        assert said["value"] == said["key"]["id"] / 8 + 1
        assert (said["model"], said["version"], said["route"]) == ("trip", 1, "champion")
        headers = dict(message.headers() or ())
        assert headers["trace"] == b"t1"
        assert message.key() == str(said["key"]["id"]).encode()
        assert bytes(headers["mulle-source"] or b"").startswith(topics.input.encode())
    rows = logged(home)
    assert sorted(rows["id"]) == sorted(json.loads(m.value() or b"")["id"] for m in found)
    assert set(rows["request"]) == {bytes(dict(m.headers() or ())["mulle-source"]).decode() for m in found}


def test_bad_messages_go_to_the_dead_letters_as_they_came_with_the_reason(home: Path, topics: Topics) -> None:
    bad = [b"\xff not json", b"[1]", json.dumps(row(3, kind=7)).encode(), json.dumps(row(4, kind="boom")).encode()]
    for number, value in enumerate(bad):
        topics.send(row(100 + number), value, headers={"n": str(number).encode()})
    with streaming(home, topics):
        assert ids(topics.read(topics.output, 4)) == [100, 101, 102, 103]
        buried = topics.read(topics.dead, 4)
    assert sorted(m.value() or b"" for m in buried) == sorted(bad)
    told = {m.value(): {k: v.decode() for k, v in m.headers() or () if v} for m in buried}
    assert [told[value]["n"] for value in bad] == ["0", "1", "2", "3"]
    assert [told[value]["mulle-error"] for value in bad] == ["malformed", "malformed", "schema", "transform"]
    assert told[bad[2]]["mulle-field"] == "kind"
    assert told[bad[2]]["mulle-model"] == "trip"
    assert logged(home).height == 4


def test_without_a_topic_for_them_a_bad_message_ends_the_stream_and_stays_to_be_read(home: Path, topics: Topics) -> None:
    topics.send(b"poison")
    with pytest.raises(DataError, match=r"is refused.*not JSON") as caught, streaming(home, topics, dead="") as (*_, ended):
        until(ended.is_set, "the stream ended")
    assert "--dead-letter" in caught.value.next
    with streaming(home, topics):
        assert [m.value() for m in topics.read(topics.dead, 1)] == [b"poison"]


def test_partitions_move_between_processes_of_a_group_and_no_message_is_answered_twice(home: Path, topics: Topics) -> None:
    lives = [life(home, topics)]
    try:
        for wave in range(6):
            topics.send(*[row(n) for n in range(wave * 100, wave * 100 + 100)])
            if wave in (1, 3):
                lives.append(life(home, topics))
            if wave == 2:
                until(lambda: len(topics.read(topics.output, 150, seconds=5)) >= 150, "the first waves are answered")
                lives[0].kill()
            if wave == 4:
                lives[1].terminate()
        assert ids(topics.read(topics.output, 600, seconds=90)) == list(range(600))
    finally:
        for process in lives[1:]:
            process.terminate()
        assert [process.wait(40) for process in lives] == [-signal.SIGKILL, 0, 0]
    with streaming(home, topics):
        rows = logged(home)
    assert rows.height == rows["id"].n_unique() == 600


def test_a_new_champion_and_a_canary_are_taken_up_while_it_runs(home: Path, topics: Topics, tmp_path: Path) -> None:
    two = version(2, bundle(tmp_path / "2", offset=2.0))
    with streaming(home, topics):
        topics.send(*[row(n) for n in range(10)])
        assert {json.loads(m.value() or b"")["version"] for m in topics.read(topics.output, 10)} == {1}
        route(home, two)
        topics.send(*[row(n) for n in range(10, 20)])
        assert [json.loads(m.value() or b"")["version"] for m in topics.read(topics.output, 20)].count(2) == 10
        one = version(1, bundle(tmp_path / "1b", offset=1.0), share=0.5)
        half = version(2, bundle(tmp_path / "2b", offset=2.0), share=0.5, mode="canary")
        route(home, one, half)
        topics.send(*[row(n) for n in range(20, 120)])
        found = [json.loads(m.value() or b"") for m in topics.read(topics.output, 120)]
        split = [said["route"] for said in found if said["key"]["id"] >= 20]
        assert 25 < split.count("canary") < 75
        # A bundle that is refused changes nothing.
        route(home, version(3, ("0" * 32, tmp_path / "nowhere")))
        topics.send(row(500))
        last = next(s for s in map(said_by, topics.read(topics.output, 121)) if s["key"]["id"] == 500)
        assert last["version"] in (1, 2)
    rows = logged(home)
    assert rows.filter(route="shadow").height >= 100
    assert rows["id"].n_unique() == rows.height


def test_rows_of_a_fleet_are_answered_by_their_members(home: Path, topics: Topics, tmp_path: Path) -> None:
    route(home, version(4, bundle(tmp_path / "4", offset=4.0)), model="trip/a")
    route(home, version(5, bundle(tmp_path / "5", offset=5.0)), model="trip/later", at=datetime(2999, 1, 1, tzinfo=UTC))
    table = read_routes(home / ROUTES)
    fleet = replace(table.models["trip"], each="kind", log=LogRule(redact=("size",)))
    write_routes(home / ROUTES, replace(table, generation=table.generation + 1, models={**table.models, "trip": fleet}))
    topics.send(*[row(n, kind=kind) for n, kind in enumerate(("a", "b", "later", "a"))], row(4, kind=7))
    with streaming(home, topics):
        said = {s["key"]["id"]: s for s in map(said_by, topics.read(topics.output, 4))}
        assert len(topics.read(topics.dead, 1)) == 1
        route(home, version(6, bundle(tmp_path / "6", offset=6.0)), model="trip/a")
        topics.send(row(9, kind="a"))
        later = next(s for s in map(said_by, topics.read(topics.output, 5)) if s["key"]["id"] == 9)
    told = {id: (s["model"], s["version"], s["value"]) for id, s in said.items()}
    assert told == {0: ("trip/a", 4, 4.0), 1: ("trip", 1, 1.125), 2: ("trip", 1, 1.25), 3: ("trip/a", 4, 4.375)}
    assert (later["model"], later["version"]) == ("trip/a", 6)
    rows = logged(home)
    assert sorted(rows["model"]) == ["trip", "trip", "trip/a", "trip/a", "trip/a"]
    assert "size" not in str(rows.filter(model="trip")["row"].to_list()), "what is declared not to be logged is not"


def test_one_version_answers_when_it_was_asked_for(home: Path, topics: Topics, tmp_path: Path) -> None:
    route(home, version(2, bundle(tmp_path / "2", offset=2.0)), keep=True)
    topics.send(row(1))
    with streaming(home, topics, model="trip@1"):
        (found,) = topics.read(topics.output, 1)
    assert (json.loads(found.value() or b"")["version"], json.loads(found.value() or b"")["route"]) == (1, "pinned")


def test_a_message_without_a_time_has_the_brokers_so_that_it_is_the_same_prediction_each_time(home: Path, topics: Topics) -> None:
    timeless = {k: v for k, v in row(1).items() if k != "at"}
    topics.send(timeless)
    found = []
    for group in ("one", "two"):
        with streaming(home, topics, group=f"{topics.name}-{group}"):
            found = [json.loads(m.value() or b"") for m in topics.read(topics.output, len(found) + 1)]
    assert found[0]["id"] == found[1]["id"]
    assert found[0]["time"] == found[1]["time"] > "2026"


def test_what_is_not_there_is_told_at_once(home: Path, topics: Topics) -> None:
    with pytest.raises(DataError, match="no topic 'nowhere'"), streaming(home, topics, output=topics.url("nowhere")) as run:
        until(run[3].is_set, "it ended")
    with pytest.raises(UsageError, match="cannot span brokers"), streaming(home, topics, output="kafka://other:9092/x"):
        pass
    with pytest.raises(UsageError, match="is no topic"):
        read_topic("http://somewhere/x")
    topics.send(row(1))
    with pytest.raises(NotFound, match="no model 'none'"), streaming(home, topics, model="none") as run:
        until(run[3].is_set, "it ended")


# Avro, and a registry that speaks what Schema Registry's API speaks.


class Registry(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.schemas: dict[int, Any] = {}
        self.asked: list[str] = []
        self.away = False
        super().__init__(("127.0.0.1", 0), _Registry)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def framed(self, schema: Any, value: Any) -> bytes:
        id = next((i for i, s in self.schemas.items() if s == schema), len(self.schemas) + 1)
        self.schemas[id] = schema
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
        return b"\0" + id.to_bytes(4, "big") + body.getvalue()


class _Registry(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        schema = self.server.schemas.get(int(self.path.rsplit("/", 1)[1]))
        self._answer(503 if self.server.away else 200 if schema else 404, {"schema": json.dumps(schema)})

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        schema = json.loads(json.loads(self.rfile.read(int(self.headers["content-length"])))["schema"])
        id = next((i for i, s in self.server.schemas.items() if s == schema), len(self.server.schemas) + 1)
        self.server.schemas[id] = schema
        self._answer(200, {"id": id})

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.shutdown()


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "Trip", "namespace": "shop", "fields": [{"name": n, "type": t} for n, t in fields]}


TIME = {"type": "long", "logicalType": "timestamp-millis"}
OLD = record(("id", "int"), ("size", "float"))
NOW = record(("id", "long"), ("at", TIME), ("size", ["null", "double"]), ("kind", "string"), ("fresh", "boolean"))
TEXT = record(("id", "long"), ("at", "string"), ("size", "int"), ("kind", ["null", "string"]))
WRONG = record(("id", "long"), ("size", "string"), ("kind", "string"))


def fresh(number: int) -> dict[str, Any]:
    at = datetime(2024, 3, 1, tzinfo=UTC) + timedelta(seconds=number)
    return {"id": number, "at": at, "size": number / 4, "kind": "a", "fresh": True}


def test_avro_of_older_and_newer_writers_is_read_by_the_contract_and_answered_in_avro(
    home: Path, topics: Topics, registry: Registry
) -> None:
    topics.send(
        registry.framed(OLD, {"id": 1, "size": 0.5}),
        *[registry.framed(NOW, fresh(n)) for n in range(2, 60)],
        registry.framed(TEXT, {"id": 60, "at": "2024-03-01T10:00:00Z", "size": 3, "kind": None}),
        row(61),
        registry.framed(WRONG, {"id": 70, "size": "far", "kind": "a"}),
        b"\0\0\0\x03\xe7nonsense",
        b"\0\0",
        registry.framed(NOW, fresh(9))[:-9],
    )  # fmt: skip
    with streaming(home, topics, registry=registry.url, format="avro"):
        found = topics.read(topics.output, 61)
        buried = topics.read(topics.dead, 4)
    said = []
    for message in found:
        value = message.value() or b""
        schema = registry.schemas[int.from_bytes(value[1:5], "big")]
        said.append(fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(schema), None))
    answers = {s["key"]["id"]: s for s in said}
    assert sorted(answers) == list(range(1, 62))
    assert (answers[1]["value"], answers[40]["value"], answers[60]["value"]) == (1.5, 11.0, 4.0)
    assert answers[40]["time"] == "2024-03-01T00:00:40Z"
    assert len(buried) == 4
    reasons = {dict(m.headers() or ())["mulle-error"] for m in buried}
    assert reasons == {b"malformed"}
    # Each schema is asked for once, and the answers' is registered once.
    assert sorted(registry.asked) == sorted(
        [*(f"/schemas/ids/{i}" for i, s in registry.schemas.items() if s in (OLD, NOW, TEXT, WRONG)), "/schemas/ids/999",
         f"/subjects/{topics.output}-value/versions"]
    )  # fmt: skip


def test_a_registry_that_is_away_is_waited_for(home: Path, topics: Topics, registry: Registry) -> None:
    registry.away = True
    topics.send(registry.framed(OLD, {"id": 1, "size": 0.5}))
    with streaming(home, topics, registry=registry.url) as (_, _, said, _):
        until(lambda: any("registry" in words for words in said), "it says that the registry is away")
        registry.away = False
        assert ids(topics.read(topics.output, 1)) == [1]
    assert logged(home).height == 1


# The command, and a broker of its own that is killed.

SERVICES = Path(__file__).parents[2] / "services"


def test_the_command_tells_its_lag_and_ends_well_when_asked(home: Path, topics: Topics) -> None:
    topics.send(*[row(n) for n in range(20)])
    command = [sys.executable, "-m", "mulle", "stream", "trip", "--home", str(home), "--input", topics.url(topics.input)]
    command += ["--output", topics.url(topics.output), "--dead-letter", topics.dead, "--metrics-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[1]
        assert ids(topics.read(topics.output, 20)) == list(range(20))

        def told() -> bool:
            text = urllib.request.urlopen(url, timeout=5).read().decode()
            lags = [line for line in text.splitlines() if line.startswith("mulle_stream_lag_messages{")]
            answered = 'mulle_stream_messages_total{model="trip",outcome="answered"} 20.0' in text
            return answered and len(lags) == 3 and all(line.endswith(" 0.0") for line in lags)

        until(told, "the figures are told")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(out)["answered"] == 20
    assert logged(home).height == 20
