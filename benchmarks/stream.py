"""Claim: a stream costs little more than a loop written by hand over the same broker, function and graph."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import polars as pl

from benchmarks.claim import Claim, Side, within
from benchmarks.side import Work

__all__ = ["CLAIMS", "by_hand", "differs", "make", "mulle"]

_TRANSACTION = 2_000


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write a home with one deployed model, and the topic's messages; the topic is on the broker MULLE_TEST_KAFKA."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    from benchmarks.served_model import make_model, request_rows, write_copy
    from mulle.core.clock import instant
    from mulle.kernel.routes import ROUTES, ModelRoutes, Routed, RoutedVersion, RoutingTable, write_routes

    mark, place = write_copy(make_model(folder), folder / "bundles")
    champion = RoutedVersion(version=1, share=1.0, mode="champion", bundle=mark, address=str(place))
    move = Routed(id="d", effective_at=instant("2024-01-01"), salt="s", routes=(champion,))
    write_routes(folder / "home" / ROUTES, RoutingTable(generation=1, models={"orders": ModelRoutes(deployments=(move,))}))
    servers, topic = os.environ["MULLE_TEST_KAFKA"], f"bench-{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    rows = request_rows(min(size["messages"], 20_000))
    for number in range(size["messages"]):
        producer.produce(topic, json.dumps({**rows[number % len(rows)], "id": number}), str(number))
        producer.poll(0)
    producer.flush(60)
    told = {"servers": servers, "topic": topic, "messages": size["messages"], "bundle": str(place)}
    (folder / "stream.json").write_text(json.dumps(told))


def mulle(folder: Path) -> Work:
    """Run ``mulle stream`` in this process: contract, routes, prediction log, dead letters, exactly once."""
    from mulle.bootstrap.inference import wire_stream
    from mulle.core.settings import load_settings
    from mulle.kernel.pauses import shorten_pauses
    from mulle.lifecycle.serving.streaming import StreamOrder

    told = json.loads((folder / "stream.json").read_text())
    output, settings = _output(told), load_settings({"home": folder / "home"}, {})
    shorten_pauses()  # as the command does

    def run() -> str:
        place = f"kafka://{told['servers']}"
        order = StreamOrder(
            model="orders", input=f"{place}/{told['topic']}", output=f"{place}/{output}", group=uuid4().hex, most=_TRANSACTION
        )
        stream, handler = wire_stream(settings, order, say=print)
        stopping = threading.Event()
        thread = threading.Thread(target=stream.run, args=(handler, stopping))
        thread.start()
        while stream.flow.answered < told["messages"] and thread.is_alive():
            time.sleep(0.005)
        stopping.set()
        thread.join()
        handler.close()
        return output

    return Work(run=run, keep=lambda _, path: _keep(told, output, path))


def by_hand(folder: Path) -> Work:
    """Consume, score and produce in transactions, as one would write it: no checks, no log, no routes."""
    import orjson
    from confluent_kafka import Consumer, Producer, TopicPartition

    from mulle.kernel.bundle import Predictor

    told = json.loads((folder / "stream.json").read_text())
    predictor, output = Predictor.open(Path(told["bundle"])), _output(told)
    names = [f.name for f in predictor.contract.inputs]

    def run() -> str:
        common = {"bootstrap.servers": told["servers"]}
        consumer = Consumer(
            {**common, "group.id": uuid4().hex, "enable.auto.commit": False, "auto.offset.reset": "earliest",
             "isolation.level": "read_committed"}
        )  # fmt: skip
        producer = Producer({**common, "transactional.id": uuid4().hex, "linger.ms": 1})
        producer.init_transactions(30)
        consumer.subscribe([told["topic"]])
        done = 0
        while done < told["messages"]:
            messages = [m for m in consumer.consume(_TRANSACTION, 0.05) if m.error() is None]
            if not messages:
                continue
            rows = [orjson.loads(m.value()) for m in messages]
            frame = pl.DataFrame({n: [r[n] for r in rows] for n in names}).with_columns(
                pl.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
            )
            values = predictor.score(predictor.transform(frame)).values
            producer.begin_transaction()
            for message, row, value in zip(messages, rows, values, strict=True):
                producer.produce(output, orjson.dumps({"key": {"id": row["id"]}, "value": value}), message.key())
            ends = {m.partition(): m.offset() + 1 for m in messages}
            positions = [TopicPartition(told["topic"], p, o) for p, o in ends.items()]
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
            producer.commit_transaction()
            done += len(messages)
        consumer.close()
        return output

    return Work(run=run, keep=lambda _, path: _keep(told, output, path))


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare the last answer to each message."""
    want, have = (json.loads((folder / f"{name}.answer").read_text()) for name in (limit, other))
    wrong = [key for key in want.keys() | have.keys() if want.get(key) != have.get(key)]
    return f"{len(wrong)} of {len(want)} answers differ" if wrong else ""


def _output(told: Mapping[str, str]) -> str:
    from confluent_kafka.admin import AdminClient, NewTopic

    name = f"bench-{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": told["servers"]})  # kept until it has answered
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    return name


def _keep(told: Mapping[str, int], output: str, path: Path) -> None:
    from confluent_kafka import Consumer

    options = {"bootstrap.servers": told["servers"], "group.id": uuid4().hex, "isolation.level": "read_committed"}
    consumer = Consumer({**options, "auto.offset.reset": "earliest"})
    consumer.subscribe([output])
    found: dict[str, float] = {}
    deadline = time.monotonic() + 120
    while len(found) < told["messages"] and time.monotonic() < deadline:
        for message in consumer.consume(5_000, 0.5):
            if message.error() is None:
                said = json.loads(message.value())
                found[str(said["key"]["id"])] = said["value"]
    consumer.close()
    path.with_suffix(".answer").write_text(json.dumps(found))


CLAIMS = (
    Claim(
        name="Stream",
        says="{messages} JSON messages of 16 mixed columns, 200 LightGBM trees, topic to topic in transactions.",
        make="benchmarks.stream:make",
        sizes={"small": {"messages": 500}, "full": {"messages": 100_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.stream:mulle", repeat=2, note="contract, routes, ids, prediction log"),
            Side(name="a loop by hand", call="benchmarks.stream:by_hand", repeat=2, note="confluent-kafka, none of these"),
        ),
        same=differs,
        targets=(within("a loop by hand", 2.0),),
    ),
)
