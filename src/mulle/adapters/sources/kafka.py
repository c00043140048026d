"""A Kafka topic as a source: JSON objects as rows, offsets kept with the published version instead of a consumer group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import polars as pl

from mulle.adapters.sources.environment import filled, hidden
from mulle.core.declare.sources import Kafka
from mulle.core.errors import DataError, MulleError, Unavailable, UsageError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, KafkaException, Message
    from confluent_kafka.admin import AdminClient

__all__ = ["KafkaReader"]

_SILENCE_SECONDS = 8.0
_PIECE_ROWS = 10_000
_LARGEST = 2**63 - 1
_RESET = "auto.offset.reset"
_EARLIEST = ("earliest", "smallest", "beginning")
_EXACT = {
    # Nothing but what is there: no group, no commit, no row of an open or aborted transaction.
    "group.id": "mulle",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    _RESET: "error",
    # A partition's end may be a gap (an aborted row, a transaction's mark): only this event tells that it is reached.
    "enable.partition.eof": True,
    # The reader stops at an end that it knows, so waiting for more to come would only delay that event.
    "fetch.wait.max.ms": 20,
    "fetch.queue.backoff.ms": 10,
}

_Client = TypeVar("_Client")


class KafkaReader:
    """Reads a topic's new messages; implements `SourceReader`.

    Positions are ``{"topic": id, "offsets": {partition: next offset}}``. They are kept with the published version and the
    broker is told nothing: a batch that was not published is read again, one that was is not. Rows come by partition and
    offset; the same offsets give the same rows. Messages without a value (tombstones) are left out.

    A column is Boolean, Int64 or Float64 where all of its values in the batch are; otherwise it is text, in which lists,
    objects and stray values are written as JSON. Fields that a message lacks are null.

    Parameters
    ----------
    source : Kafka
        Its options reach librdkafka, but for those that make the reading exact. By
        ``{"auto.offset.reset": "earliest"}`` the loss of messages that were never read is accepted: reading goes on with
        what is left.
    servers : str
        Bootstrap servers, ``host:port`` with commas between. Here and in the options ``${NAME}`` is filled in.

    Raises
    ------
    UsageError
        When confluent-kafka is not installed, or the environment lacks a name.
    """

    def __init__(self, source: Kafka, servers: str) -> None:
        try:
            import confluent_kafka  # noqa: F401
        except ImportError as error:
            raise UsageError("Kafka is read by confluent-kafka, which is not here", next="pip install 'mulle[kafka]'") from error
        self._source, self._servers = source, filled(servers)
        self._options = {name: filled(str(value)) for name, value in source.options.items()}
        self._heard = ""

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:  # noqa: ARG002
        """Return the rows of at most `limit` offsets after `positions`, or None when there is no row.

        The ends are fixed first; what arrives meanwhile is for the next read. Each partition gets an equal share of the
        limit, and what one does not need goes to the others. `until` is ignored.

        Raises
        ------
        DataError
            When there is no such topic, it was made anew, messages were removed before they were read, or a message is no
            JSON object; names its partition and offset.
        Unavailable
            When the brokers do not answer.
        UsageError
            When librdkafka does not know an option.
        """
        from confluent_kafka import KafkaException

        try:
            topic, bounds = self._bounds()
            spans, lost = self._spans(topic, bounds, positions)
            rows = _Rows()
            # A stretch of nothing but gaps and tombstones gives no row, and the next one may.
            while not rows.values and any(span.end > span.start for span in spans):
                part = _shares(spans, self._source.limit)
                self._consume(part, rows)
                spans = [replace(whole, start=done.end) for whole, done in zip(spans, part, strict=True)]
        except KafkaException as error:
            raise self._translated(error) from error
        if not rows.values:
            return None
        told = "".join(f", {count} {what}" for count, what in ((rows.tombstones, "tombstones"), (lost, "lost")) if count)
        return Batch(
            pieces=rows.pieces(),
            positions={"topic": topic, "offsets": {str(span.partition): span.start for span in spans}},
            origin=f"topic {self._source.topic}: {len(rows.values)} messages{told}",
        )

    def _bounds(self) -> tuple[str, dict[int, tuple[int, int]]]:
        """Return the topic's id, and each partition's first offset and end."""
        from confluent_kafka import IsolationLevel, TopicCollection, TopicPartition
        from confluent_kafka.admin import AdminClient, OffsetSpec

        name = self._source.topic
        admin: AdminClient = self._client(AdminClient, {})
        try:
            topic = admin.describe_topics(TopicCollection([name]), request_timeout=_SILENCE_SECONDS)[name].result()
            ends = []
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
                asked = {TopicPartition(name, partition.id): spec for partition in topic.partitions}
                answers = admin.list_offsets(
                    asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_SILENCE_SECONDS
                )
                ends.append({partition.partition: answer.result().offset for partition, answer in answers.items()})
        finally:
            admin.poll(0)  # what it heard is only told here
        return str(topic.topic_id), {partition: (low, ends[1][partition]) for partition, low in sorted(ends[0].items())}

    def _spans(self, topic: str, bounds: dict[int, tuple[int, int]], positions: Json) -> tuple[list[_Span], int]:
        """Return what is to be read of each partition, and how many messages are lost for good."""
        accepted = self._options.get(_RESET) in _EARLIEST
        known: dict[str, int] = positions.get("offsets", {})
        if known and positions.get("topic") != topic:
            if not accepted:
                raise self._broken("was deleted and made anew since it was read", lost=None)
            known = {}
        spans, total = [], 0
        for partition, (low, high) in bounds.items():
            # A partition that appears later is new as a whole; of a topic never read, what is there is all there is.
            start = known.get(str(partition), 0 if known else low)
            lost = max(low - start, 0)
            if not low <= start <= high:
                if not accepted:
                    said = f"{lost} messages were removed before they were read" if lost else f"it ends at {high}"
                    raise self._broken(
                        f"partition {partition} was read to offset {start} and begins at {low}: {said}",
                        partition=partition, offset=start, lost=lost,
                    )  # fmt: skip
                start = low
            spans.append(_Span(partition, start, high))
            total += lost
        return spans, total

    def _broken(self, said: str, **facts: object) -> DataError:
        return DataError(
            f"topic {self._source.topic}: {said}",
            next=f'to go on with what is there, declare Kafka(..., options={{"{_RESET}": "earliest"}}); '
            "against a next time, lengthen the topic's retention or ingest more often",
            topic=self._source.topic,
            **facts,
        )

    def _consume(self, spans: Iterable[_Span], rows: _Rows) -> None:
        from confluent_kafka import Consumer, TopicPartition

        consumer: Consumer = self._client(Consumer, _EXACT)
        try:
            for span in spans:
                if span.end > span.start:
                    consumer.assign([TopicPartition(self._source.topic, span.partition, span.start)])
                    for message in self._messages(consumer, span):
                        rows.add(message)
        finally:
            consumer.close()

    def _messages(self, consumer: Consumer, span: _Span) -> Iterator[Message]:
        """Give a span's messages in order, until its end is reached."""
        from confluent_kafka import KafkaError, KafkaException

        reached = span.start
        while reached < span.end:
            message = consumer.poll(_SILENCE_SECONDS)
            if message is None:
                where = f"partition {span.partition} from offset {reached}"
                raise Unavailable(f"topic {self._source.topic}: nothing came of {where}{self._why()}", next="try again")
            error, offset = message.error(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            assert offset is not None
            reached = offset if error else offset + 1
            if error is None and offset < span.end:
                yield message

    def _client(self, make: Callable[[dict[str, Any]], _Client], exact: dict[str, Any]) -> _Client:
        from confluent_kafka import KafkaException

        given = {name: value for name, value in self._options.items() if name != _RESET}
        try:
            return make({"log_level": 0, **given, **exact, "bootstrap.servers": self._servers, "error_cb": self._hear})
        except KafkaException as error:
            said = hidden(error.args[0].str(), *self._source.options.values())
            raise UsageError(f"topic {self._source.topic}: {said}", next="see Kafka's options in project.py") from error

    def _hear(self, error: KafkaError) -> None:
        self._heard = error.str()

    def _why(self) -> str:
        return f" ({self._heard})" if self._heard else ""

    def _translated(self, error: KafkaException) -> MulleError:
        from confluent_kafka import KafkaError

        topic, failure = self._source.topic, error.args[0]
        if failure.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.TOPIC_EXCEPTION):
            said = f"no topic '{topic}' at {self._servers}"
            return DataError(said, next="create it, or mend its name in project.py", topic=topic)
        if failure.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED):
            said = f"{self._servers} does not let topic '{topic}' be read: {failure.str()}"
            return DataError(said, next="see Kafka's options in project.py, and the topic's rights", topic=topic)
        if failure.code() == KafkaError._AUTO_OFFSET_RESET:
            return Unavailable(f"topic {topic}: messages were removed while they were read", next="try again", topic=topic)
        said = f"Kafka at {self._servers} did not answer: {failure.str()}{self._why()}"
        return Unavailable(said, next="see that the brokers run and can be reached, then try again", topic=topic)


@dataclass(frozen=True, slots=True)
class _Span:
    partition: int
    start: int
    end: int


def _shares(spans: list[_Span], limit: int) -> list[_Span]:
    """Shorten spans to `limit` offsets in all: equal shares, and what a short one leaves goes to the longer ones."""
    shortened, left = {}, limit
    for rank, span in enumerate(sorted(spans, key=lambda s: s.end - s.start)):
        taken = min(span.end - span.start, left // (len(spans) - rank))
        shortened[span.partition] = replace(span, end=span.start + taken)
        left -= taken
    return [shortened[span.partition] for span in spans]


class _Rows:
    """Messages as they came, and the columns that they make; kept unread, for as Python objects they would take much more."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.tombstones = 0
        self._kinds: dict[str, set[type]] = {}

    def add(self, message: Message) -> None:
        """Take the next message in.

        Raises
        ------
        DataError
            When it is no JSON object.
        """
        value = message.value()
        if value is None:
            self.tombstones += 1
            return
        for name, field in _row(message, value).items():
            self._kinds.setdefault(name, set()).add(_kind(field))
        self.values.append(value)

    def pieces(self) -> Iterator[pl.DataFrame]:
        """Give the rows as frames of one schema."""
        schema = {name: _dtype(kinds) for name, kinds in self._kinds.items()}
        for first in range(0, len(self.values), _PIECE_ROWS):
            rows = [orjson.loads(value) for value in self.values[first : first + _PIECE_ROWS]]
            yield pl.DataFrame([_column(name, dtype, [row.get(name) for row in rows]) for name, dtype in schema.items()])


def _row(message: Message, value: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(value)
        if isinstance(row, dict):
            return row
        said = "no object"
    except orjson.JSONDecodeError as error:
        said = f"no JSON, {error}"
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    raise DataError(
        f"topic {topic}, partition {partition}, offset {offset}: the message is {said}: {value[:80]!r}",
        next="mend its producer; to leave the message out, delete the partition's records up to it (kafka-delete-records) and "
        f'declare Kafka(..., options={{"{_RESET}": "earliest"}})',
        topic=topic, partition=partition, offset=offset,
    )  # fmt: skip


def _kind(value: object) -> type:
    # JSON bounds no number; a column does, and text keeps every digit.
    return str if type(value) is int and value > _LARGEST else type(value)


def _dtype(kinds: set[type]) -> pl.DataType:
    found = kinds - {type(None)}
    if not found:
        return pl.Null()
    if found == {bool}:
        return pl.Boolean()
    if found == {int}:
        return pl.Int64()
    return pl.Float64() if found <= {int, float} else pl.String()


def _column(name: str, dtype: pl.DataType, values: list[Any]) -> pl.Series:
    if dtype == pl.String:
        values = [value if value is None or isinstance(value, str) else orjson.dumps(value).decode() for value in values]
    return pl.Series(name, values, dtype=dtype, strict=dtype != pl.Float64)
