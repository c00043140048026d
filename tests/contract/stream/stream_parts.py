"""Topics of one test, a home with hand-made models, and streams over them: in this process, or in one that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from confluent_kafka import Consumer, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from mulle.adapters.lake.delta import DeltaLake
from mulle.adapters.streams.kafka import KafkaStream
from mulle.bootstrap.inference import wire_stream
from mulle.core.clock import WallClock
from mulle.core.settings import Settings, load_settings
from mulle.kernel.faults import VARIABLE
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.lifecycle.serving.streaming import Answering, StreamOrder

LIFE = """
import signal, sys, threading
from mulle.bootstrap.inference import wire_stream
from mulle.core.settings import load_settings
from mulle.lifecycle.serving.streaming import StreamOrder
home, source, output, dead, most = sys.argv[1:]
order = StreamOrder(model="trip", input=source, output=output, dead=dead, most=int(most))
stream, handler = wire_stream(load_settings({"home": home}), order, say=lambda words: print(words, flush=True))
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
try:
    stream.run(handler, stopping)
finally:
    handler.close()
"""


class Topics:
    """An input of three partitions, an output, a dead-letter topic."""

    def __init__(self, servers: str) -> None:
        self.servers, self.name = servers, f"s{uuid4().hex[:12]}"
        self.input, self.output, self.dead = self.name, f"{self.name}-out", f"{self.name}-dead"
        self.admin = AdminClient({"bootstrap.servers": servers})
        made = self.admin.create_topics([NewTopic(t, 3, 1) for t in (self.input, self.output, self.dead)])
        for answer in made.values():
            answer.result()
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})

    def url(self, topic: str) -> str:
        return f"kafka://{self.servers}/{topic}?session.timeout.ms=6000"

    def send(self, *rows: Mapping[str, Any] | bytes | None, headers: Mapping[str, bytes] | None = None) -> None:
        for row in rows:
            value = json.dumps(row).encode() if isinstance(row, Mapping) else row
            key = str(row["id"]).encode() if isinstance(row, Mapping) else b"k"
            self._producer.produce(self.input, value, key, headers=list((headers or {}).items()))
        assert self._producer.flush(20) == 0

    def read(self, topic: str, count: int, seconds: float = 60.0) -> list[Message]:
        """Read committed messages until so many are there; then as long as it takes to see that no more come."""
        options = {"bootstrap.servers": self.servers, "group.id": f"g{uuid4().hex}", "isolation.level": "read_committed"}
        consumer = Consumer({**options, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20})
        consumer.subscribe([topic])
        found: list[Message] = []
        deadline, extra = time.monotonic() + seconds, 0
        try:
            while (len(found) < count or extra < 3) and time.monotonic() < deadline:
                taken = [m for m in consumer.consume(1000, 0.2) if m.error() is None]
                found += taken
                extra = 0 if taken else extra + (len(found) >= count)
        finally:
            consumer.close()
        return found

    def close(self) -> None:
        for answer in self.admin.delete_topics([self.input, self.output, self.dead]).values():
            answer.result()


def row(number: int, size: float | None = None, **more: object) -> dict[str, object]:
    moment = f"2024-03-01T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    return {"id": number, "at": moment, "size": number / 8 if size is None else size, "kind": "a", **more}


def ids(messages: list[Message]) -> list[int]:
    """The rows' keys in answers, sorted."""
    return sorted(json.loads(m.value() or b"{}")["key"]["id"] for m in messages)


def logged(home: Path) -> pl.DataFrame:
    """Drain the home's log, and give every prediction in the lake."""
    settings = home_settings(home)
    lake = DeltaLake(settings.lake)
    drain(log_folder(home), lake, now=WallClock().now())
    return lake.scan("predictions").collect()


def home_settings(home: Path) -> Settings:
    return load_settings({"home": home}, {})


@contextmanager
def streaming(home: Path, topics: Topics, **given: Any) -> Iterator[tuple[KafkaStream, Answering, list[str], threading.Event]]:
    """Run a stream in a thread of this process."""
    said: list[str] = []
    words = {"model": "trip", "input": topics.url(topics.input), "output": topics.url(topics.output), "dead": topics.dead}
    stream, handler = wire_stream(home_settings(home), StreamOrder(**(words | given)), say=said.append)
    stopping, ended = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            stream.run(handler, stopping)
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stream, handler, said, ended
    finally:
        stopping.set()
        thread.join(40)
        handler.close()
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def life(home: Path, topics: Topics, *, fault: str = "", most: int = 50) -> subprocess.Popen[bytes]:
    """Start a stream in a process of its own."""
    command = [sys.executable, "-c", LIFE, str(home), topics.url(topics.input), topics.url(topics.output), topics.dead, str(most)]
    return subprocess.Popen(command, env={**os.environ, VARIABLE: fault}, stdout=subprocess.DEVNULL)


def until(true: Callable[[], bool], what: str, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except KafkaException:
            pass
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.02)
