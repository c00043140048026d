"""A topic as a source, on a real broker: what is published is what stands in the topic, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from mulle.adapters.sources import kafka
from mulle.adapters.sources.kafka import KafkaReader
from mulle.bootstrap.parts import wire
from mulle.core.declare.sources import Kafka
from mulle.core.errors import DataError, Unavailable, UsageError
from mulle.core.records.dataset import DatasetVersion
from mulle.core.settings import Settings
from mulle.loop.data.ingest import ingest, published
from mulle.loop.parts import Parts

EARLIEST = {"auto.offset.reset": "earliest"}


class Topic:
    """A topic with three partitions, and a producer that waits until the broker has everything."""

    def __init__(self, servers: str) -> None:
        self.name, self.servers = f"t{uuid4().hex[:12]}", servers
        self.admin = AdminClient({"bootstrap.servers": servers})
        self.create()

    def create(self, partitions: int = 3) -> None:
        eventually(lambda: self.admin.create_topics([NewTopic(self.name, partitions, 1)])[self.name].result())
        eventually(lambda: self.reader().read({}))

    def delete(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result()

    def send(self, *values: Any, partition: int = 0) -> None:
        producer = self.producer()
        for value in values:
            producer.produce(self.name, encoded(value), partition=partition)
        assert producer.flush(10) == 0

    def producer(self, **options: str) -> Producer:
        return Producer(
            {"bootstrap.servers": self.servers, "linger.ms": 0, **{k.replace("_", "."): v for k, v in options.items()}}
        )

    def remove_before(self, offset: int, partition: int = 0) -> None:
        answers = self.admin.delete_records([TopicPartition(self.name, partition, offset)])
        for answer in answers.values():
            answer.result()

    def reader(self, limit: int = 1000, **options: str) -> KafkaReader:
        return KafkaReader(
            Kafka(topic=self.name, limit=limit, options={k.replace("_", "."): v for k, v in options.items()}), self.servers
        )


def encoded(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()


def ids(*numbers: int) -> list[dict[str, int]]:
    return [{"id": n} for n in numbers]


def all_reads(reader: KafkaReader, positions: dict[str, Any]) -> tuple[list[list[int]], dict[str, Any]]:
    found = []
    while batch := reader.read(positions):
        found.append(batch.frame()["id"].to_list())
        positions = batch.positions
    return found, positions


@pytest.fixture
def topic(kafka_servers: str) -> Iterator[Topic]:
    made = Topic(kafka_servers)
    yield made
    made.delete()


def test_rows_come_by_partition_and_offset_and_each_read_goes_on_where_the_last_ended(topic: Topic) -> None:
    assert topic.reader().read({}) is None
    topic.send(*ids(20, 21), partition=2)
    topic.send(*ids(0, 1, 2), partition=0)
    first = topic.reader().read({})
    assert first is not None
    assert first.frame()["id"].to_list() == [0, 1, 2, 20, 21]
    assert first.positions["offsets"] == {"0": 3, "1": 0, "2": 2}
    assert first.origin == f"topic {topic.name}: 5 messages"
    assert topic.reader().read(first.positions) is None
    topic.send(*ids(3), partition=0)
    topic.send(*ids(10), partition=1)
    positions = json.loads(json.dumps(first.positions))
    assert all_reads(topic.reader(), positions)[0] == [[3, 10]]


def test_the_same_positions_give_the_same_rows_although_more_arrived(topic: Topic) -> None:
    topic.send(*ids(*range(50)))
    topic.send(*ids(*range(100, 150)), partition=1)
    before = topic.reader(limit=30).read({})
    topic.send(*ids(*range(150, 200)), partition=1)
    topic.send(*ids(*range(50, 80)))
    again = topic.reader(limit=30).read({})
    assert before is not None
    assert again is not None
    assert before.frame().equals(again.frame())
    assert before.positions == again.positions


@pytest.mark.parametrize("limit", [1, 2, 7, 40])
def test_a_backlog_above_the_limit_comes_in_several_reads_each_row_once(topic: Topic, limit: int) -> None:
    topic.send(*ids(*range(25)), partition=0)
    topic.send(*ids(*range(100, 103)), partition=1)
    topic.send(*ids(*range(200, 212)), partition=2)
    reads, _ = all_reads(topic.reader(limit=limit), {})
    assert sorted(n for read in reads for n in read) == [*range(25), *range(100, 103), *range(200, 212)]
    assert all(len(read) <= limit for read in reads)
    for start in (0, 100, 200):
        mine = [n for read in reads for n in read if start <= n < start + 100]
        assert mine == sorted(mine)


def test_a_long_partition_does_not_keep_the_short_ones_waiting(topic: Topic) -> None:
    topic.send(*ids(*range(100)), partition=0)
    topic.send(*ids(200, 201), partition=2)
    batch = topic.reader(limit=10).read({})
    assert batch is not None
    assert batch.frame()["id"].to_list() == [*range(8), 200, 201]


def test_a_batch_larger_than_a_piece_comes_in_pieces_of_one_schema(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_PIECE_ROWS", 10)
    topic.send(*ids(*range(30)), {"id": 30.5, "late": True})
    batch = topic.reader().read({})
    assert batch is not None
    pieces = list(batch.pieces)
    assert [piece.height for piece in pieces] == [10, 10, 10, 1]
    assert {tuple(piece.schema.items()) for piece in pieces} == {(("id", pl.Float64()), ("late", pl.Boolean()))}


def test_types_are_those_of_all_values_of_the_batch(topic: Topic) -> None:
    topic.send(
        {"whole": 1, "mixed": 1, "text": "a", "flag": True, "none": None, "nested": {"b": 1, "a": [None]}, "stray": 1},
        {"whole": -(2**63), "mixed": 2.5, "text": "é", "flag": False, "none": None, "nested": [1, 2], "stray": "x"},
        {"whole": None, "large": 2**64 - 1, "stray": True},
    )
    batch = topic.reader().read({})
    assert batch is not None
    frame = batch.frame()
    assert dict(frame.schema) == {
        "whole": pl.Int64, "mixed": pl.Float64, "text": pl.String, "flag": pl.Boolean, "none": pl.Null, "nested": pl.String,
        "stray": pl.String, "large": pl.String,
    }  # fmt: skip
    assert frame.rows() == [
        (1, 1.0, "a", True, None, '{"b":1,"a":[null]}', "1", None),
        (-(2**63), 2.5, "é", False, None, "[1,2]", "x", None),
        (None, None, None, None, None, None, "true", str(2**64 - 1)),
    ]


def test_tombstones_are_left_out_and_told(topic: Topic) -> None:
    topic.send(*ids(0), None, *ids(1), None)
    batch = topic.reader().read({})
    assert batch is not None
    assert batch.frame()["id"].to_list() == [0, 1]
    assert batch.positions["offsets"]["0"] == 4
    assert "2 tombstones" in batch.origin


def test_a_stretch_without_rows_longer_than_the_limit_is_passed(topic: Topic) -> None:
    topic.send(*[None] * 25, *ids(1))
    assert all_reads(topic.reader(limit=5), {})[0] == [[1]]


def test_rows_of_aborted_and_open_transactions_are_not_seen(topic: Topic) -> None:
    writer = topic.producer(transactional_id=topic.name)
    writer.init_transactions(10)
    for number, ends in ((1, writer.commit_transaction), (2, writer.abort_transaction), (3, writer.commit_transaction)):
        writer.begin_transaction()
        for partition in (0, 1):
            writer.produce(topic.name, encoded({"id": 10 * number + partition}), partition=partition)
        ends(10)
    reads, positions = all_reads(topic.reader(), {})
    assert reads == [[10, 30, 11, 31]]
    writer.begin_transaction()
    writer.produce(topic.name, encoded({"id": 40}), partition=0)
    writer.flush(10)
    topic.send(*ids(50))
    assert topic.reader().read(positions) is None
    writer.commit_transaction(10)
    assert all_reads(topic.reader(), positions)[0] == [[40, 50]]


def test_a_topic_that_ends_in_an_aborted_transaction_is_read_to_its_end(topic: Topic) -> None:
    topic.send(*ids(1))
    writer = topic.producer(transactional_id=topic.name)
    writer.init_transactions(10)
    writer.begin_transaction()
    for number in range(20):
        writer.produce(topic.name, encoded({"id": 100 + number}), partition=0)
    writer.flush(10)
    writer.abort_transaction(10)
    for limit in (5, 1000):
        reads, positions = all_reads(topic.reader(limit=limit), {})
        assert reads == [[1]]
        assert topic.reader().read(positions) is None


@pytest.mark.parametrize("bad", [b"{'id': 1}", b"[1]", b"\xff", b"", b"3", b'{"id": NaN}'])
def test_a_message_that_is_no_json_object_is_refused_by_name(topic: Topic, bad: bytes) -> None:
    topic.send(*ids(0, 1), bad, *ids(3), partition=1)
    with pytest.raises(DataError, match="partition 1, offset 2") as caught:
        topic.reader().read({})
    assert caught.value.facts == {"topic": topic.name, "partition": 1, "offset": 2}
    # What stands before it can be had, and what stands behind it as the error says.
    before = topic.reader(limit=2).read({})
    assert before is not None
    topic.remove_before(3, partition=1)
    assert all_reads(topic.reader(**EARLIEST), before.positions)[0] == [[3]]


def test_messages_removed_before_they_were_read_are_told_and_not_passed_over(topic: Topic) -> None:
    topic.send(*ids(*range(5)))
    first = topic.reader().read({})
    assert first is not None
    topic.send(*ids(*range(5, 12)))
    topic.remove_before(8)
    with pytest.raises(DataError, match="3 messages were removed") as caught:
        topic.reader().read(first.positions)
    assert {"partition": 0, "offset": 5, "lost": 3}.items() <= caught.value.facts.items()
    assert '"auto.offset.reset": "earliest"' in caught.value.next
    went_on = topic.reader(**EARLIEST).read(first.positions)
    assert went_on is not None
    assert went_on.frame()["id"].to_list() == [8, 9, 10, 11]
    assert "3 lost" in went_on.origin


def test_what_was_removed_before_the_first_read_is_no_loss_and_neither_is_what_was_read(topic: Topic) -> None:
    topic.send(*ids(*range(5)))
    topic.remove_before(2)
    reads, positions = all_reads(topic.reader(), {})
    assert reads == [[2, 3, 4]]
    topic.remove_before(5)
    assert topic.reader().read(positions) is None


def test_a_topic_made_anew_is_not_read_as_if_it_were_the_old_one(topic: Topic) -> None:
    topic.send(*ids(*range(3)))
    _, positions = all_reads(topic.reader(), {})
    topic.delete()
    topic.create()
    topic.send(*ids(*range(100, 105)))
    with pytest.raises(DataError, match="made anew"):
        topic.reader().read(positions)
    assert all_reads(topic.reader(**EARLIEST), positions)[0] == [[100, 101, 102, 103, 104]]


def test_a_partition_that_is_added_later_is_read_from_its_first_message(topic: Topic) -> None:
    topic.send(*ids(0))
    _, positions = all_reads(topic.reader(), {})
    topic.admin.create_partitions([NewPartitions(topic.name, 4)])[topic.name].result()
    eventually(lambda: topic.send(*ids(30, 31), partition=3))
    reads, positions = all_reads(topic.reader(), positions)
    assert reads == [[30, 31]]
    assert positions["offsets"] == {"0": 1, "1": 0, "2": 0, "3": 2}


def test_an_unknown_topic_is_refused(kafka_servers: str) -> None:
    with pytest.raises(DataError, match="no topic 'nowhere'"):
        KafkaReader(Kafka(topic="nowhere"), kafka_servers).read({})


def test_an_unknown_option_is_the_callers_error(topic: Topic) -> None:
    with pytest.raises(UsageError, match=r"no\.such\.option"):
        topic.reader(no_such_option="1").read({})


def test_names_of_the_environment_are_filled_in_and_their_values_never_shown(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER", topic.servers)
    monkeypatch.setenv("SECRET", "s3cret")
    topic.send(*ids(1))
    source = Kafka(topic=topic.name, options={"client.id": "${SECRET}"})
    assert all_reads(KafkaReader(source, "${BROKER}"), {})[0] == [[1]]
    wrong = Kafka(topic=topic.name, options={"security.protocol": "${SECRET}"})
    with pytest.raises(UsageError, match=r"security\.protocol") as caught:
        KafkaReader(wrong, topic.servers).read({})
    assert "s3cret" not in str(caught.value.problem())
    with pytest.raises(UsageError, match="NOWHERE"):
        KafkaReader(source, "${NOWHERE}")


def test_brokers_that_are_away_are_unavailable_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kafka._SILENCE_SECONDS <= 10
    monkeypatch.setattr(kafka, "_SILENCE_SECONDS", 1.0)
    with pytest.raises(Unavailable, match="Connection refused"):
        KafkaReader(Kafka(topic="t"), "127.0.0.1:1").read({})


def test_options_cannot_make_the_reading_inexact(topic: Topic) -> None:
    writer = topic.producer(transactional_id=topic.name)
    writer.init_transactions(10)
    writer.begin_transaction()
    writer.produce(topic.name, encoded({"id": 1}), partition=0)
    writer.flush(10)
    writer.abort_transaction(10)
    topic.send(*ids(2))
    assert all_reads(topic.reader(isolation_level="read_uncommitted", enable_partition_eof="false"), {})[0] == [[2]]


def eventually(action: Callable[[], object]) -> None:
    """Repeat what the broker refuses until its own news of the topic has gone round."""
    deadline = time.monotonic() + 10
    while True:
        try:
            action()
            return
        except (KafkaException, Unavailable, DataError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# From the topic into the lake, by the loop's own ingest: a process that dies neither loses nor doubles a row.

PROJECT = """
import mulle as ml

clicks = ml.Dataset("clicks", ml.Kafka(topic="{topic}", limit=20))
"""

INGEST = """
import sys
from pathlib import Path

from mulle.bootstrap.parts import wire
from mulle.core.records.base import Cause
from mulle.core.settings import Settings
from mulle.loop.data.ingest import ingest

parts = wire(Settings(project=Path(sys.argv[1]), broker=sys.argv[2]).resolved())
why = (Cause(type="person", id="test", why="a test asked"),)
while ingest(parts, parts.project.datasets["clicks"], now=parts.clock.now(), causes=why):
    pass
"""
APPENDED, RECORDED = "during:publish:appended", "during:publish:recorded"


@pytest.fixture
def project(topic: Topic, tmp_path: Path) -> Path:
    (tmp_path / "project.py").write_text(PROJECT.format(topic=topic.name))
    return tmp_path


def opened(topic: Topic, project: Path) -> Parts:
    return wire(Settings(project=project, broker=topic.servers).resolved())


def ingested(topic: Topic, project: Path, fault: str) -> int:
    """Ingest all that is new in a process of its own; return its exit code."""
    environment = {**os.environ, "MULLE_FAULT": fault}
    return subprocess.run([sys.executable, "-c", INGEST, str(project), topic.servers], env=environment, timeout=60).returncode


def test_a_process_killed_while_it_publishes_neither_loses_nor_doubles_a_row(topic: Topic, project: Path) -> None:
    for life, fault in enumerate((APPENDED, RECORDED, APPENDED, "")):
        # What the life before had read is on offer again unless its commit counts, and there is more than it had.
        topic.send(*ids(*range(100 * life, 100 * life + 15)), partition=life % 3)
        assert ingested(topic, project, fault) == (-signal.SIGKILL if fault else 0)
    parts = opened(topic, project)
    clicks = parts.project.datasets["clicks"]
    wanted = [100 * life + n for life in range(4) for n in range(15)]
    assert sorted(published(parts, clicks)["id"].to_list()) == wanted
    assert sorted(parts.lake.scan("data/clicks").collect()["id"].to_list()) == wanted
    assert ingest(parts, clicks, now=parts.clock.now(), causes=()) == ()


def test_versions_keep_the_offsets_that_the_next_one_goes_on_from(topic: Topic, project: Path) -> None:
    topic.send(*ids(*range(50)), partition=2)
    parts = opened(topic, project)
    found = []
    while made := ingest(parts, parts.project.datasets["clicks"], now=parts.clock.now(), causes=()):
        (version,) = made
        assert isinstance(version, DatasetVersion)
        found.append((version.positions["offsets"]["2"], version.added, version.rows))
    assert found == [(20, 20, 20), (40, 20, 40), (50, 10, 50)]
