"""Kafka in and out: messages are taken, answered, and given with the group's offsets in one transaction, exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from mulle.adapters.streams.bounded import Silent, again
from mulle.core.errors import DataError, MulleError, Unavailable, UsageError
from mulle.core.ports.stream import Flow, Given, Handler, Message, Place

if TYPE_CHECKING:
    import confluent_kafka as ck

__all__ = ["KafkaStream", "Topic", "read_topic"]

_EXACT_IN = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    # What waits in this process is bounded: a slow model must not fill the memory with messages.
    "queued.max.messages.kbytes": 16_384,
    "queued.min.messages": 10_000,
    # And a fast one must not wait: by default nothing is fetched for a second once these bounds were met.
    "fetch.queue.backoff.ms": 10,
    "partition.assignment.strategy": "range",
    # A look at an end that nothing follows should come back at once when something does.
    "fetch.wait.max.ms": 50,
}
_EXACT_OUT = {"enable.idempotence": True, "transaction.timeout.ms": 10_000, "linger.ms": 1}
_DEFAULTS_IN = {"auto.offset.reset": "earliest", "session.timeout.ms": 10_000, "heartbeat.interval.ms": 2_000}
_BACK = {"reconnect.backoff.max.ms": 1_000, "retry.backoff.max.ms": 500}
_CALL_SECONDS = 15.0
_PAUSES = (0.1, 0.3, 1.0, 2.0, 5.0)
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its URL.

    Attributes
    ----------
    options : dict
        librdkafka's own; never shown, for they may hold secrets.
    """

    servers: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_topic(url: str, servers: str = "", fill: Callable[[str], str] = str) -> Topic:
    """Read ``kafka://host:port[,host:port]/topic[?option=value]``.

    Parameters
    ----------
    servers : str
        Used where the URL names none: ``kafka:///topic``.
    fill : callable
        Fills ``${NAME}`` in options from the environment.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> read_topic("kafka://a:9092,b:9092/flights?security.protocol=SSL").servers
    'a:9092,b:9092'
    """
    parts = urlsplit(url)
    name = parts.path.strip("/")
    if parts.scheme != "kafka" or not name or "/" in name:
        raise UsageError(f"'{url.partition('?')[0]}' is no topic", next="write kafka://HOST:PORT/TOPIC")
    if not (parts.netloc or servers):
        raise UsageError(f"no broker is named for the topic {name}", next="write kafka://HOST:PORT/TOPIC, or set MULLE_BROKER")
    options = {key: fill(value) for key, value in parse_qsl(parts.query, keep_blank_values=True)}
    return Topic(parts.netloc or servers, name, options)


class KafkaStream:
    """Runs a handler over a topic.

    Parameters
    ----------
    input : Topic
    output : str
        The topic that answers go to, on the same brokers.
    dead : str or None
        The topic that bad messages go to.
    group : str
    name : str
        The transactional id: the same for the same place of work, so that a new life ends what the last left open.
    most : int
        Messages in a transaction.
    linger : float
        Seconds that a transaction waits for more messages.
    say : callable
        Hears in words what goes wrong and comes back.

    Raises
    ------
    UsageError
        When confluent-kafka is not installed.
    """

    def __init__(
        self,
        input: Topic,
        output: str,
        dead: str | None,
        *,
        group: str,
        name: str,
        most: int = 2_000,
        linger: float = 0.05,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        try:
            import confluent_kafka  # noqa: F401
        except ImportError as error:
            raise UsageError("streams run on confluent-kafka, which is not here", next="pip install 'mulle[kafka]'") from error
        self._input, self._output, self._dead, self._group, self._name = input, output, dead, group, name
        self._most, self._linger, self._say = most, linger, say
        self._mine: set[Place] = set()
        self._looked = 0.0
        self._heard, self._out = "", False
        self.flow = Flow()

    def run(self, handler: Handler, stopping: threading.Event) -> None:
        """Answer until told to stop; what goes away is waited for, what was begun is ended.

        Raises
        ------
        MulleError
            What no waiting mends: a message that is refused where there is no dead-letter topic, an unknown topic or option.
        """
        from confluent_kafka import KafkaException

        failures = 0
        while not stopping.is_set():
            try:
                began = self.flow.transactions
                self._session(handler, stopping)
                return
            except KafkaException as error:
                told = self._translated(error)
                if not told.retryable:
                    raise told from error
                failures = 0 if self.flow.transactions > began else failures
                self._say(f"{told.detail}; going on when it is back")
            except Unavailable as error:
                failures = 0 if self.flow.transactions > began else failures
                self._say(f"{error.detail}; going on when it is back")
            except Silent as error:
                failures = 0 if self.flow.transactions > began else failures
                self._say(f"Kafka at {self._input.servers}: {error}; going on with a new client")
            stopping.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    def _session(self, handler: Handler, stopping: threading.Event) -> None:
        producer, consumer = self._producer(), self._consumer()
        self.flow.sessions += 1
        self._mine, self._out = set(), False
        try:
            producer.init_transactions(_CALL_SECONDS)
            self._settle(consumer, handler)
            if not self.flow.transactions:
                self._known(consumer)
            consumer.subscribe(
                [self._input.name],
                on_assign=lambda client, parts: self._assigned(client, parts, handler),
                on_revoke=lambda _, parts: self._gone(parts),
                on_lost=lambda _, parts: self._gone(parts),
            )
            while not stopping.is_set():
                messages = self._taken(consumer)
                given = self._answers(handler, messages, stopping) if messages else None
                if given is not None and self._out:
                    # The old one may wait for ever for a coordinator that it remembers. No transaction is open here.
                    self._out, producer = False, self._producer()
                    producer.init_transactions(_CALL_SECONDS)
                if given is not None:
                    self._transact(consumer, producer, handler, messages, given)
                handler.idle()
                self._look(consumer)
        finally:
            consumer.close()

    def _assigned(self, consumer: ck.Consumer, parts: Sequence[ck.TopicPartition], handler: Handler) -> None:
        # Before anything of these is read: once another transaction followed, nothing tells how a doubtful one ended.
        self._settle(consumer, handler)
        self._mine |= {(p.topic, p.partition) for p in parts}

    def _gone(self, parts: Sequence[ck.TopicPartition]) -> None:
        for part in parts:
            self._mine.discard((part.topic, part.partition))
            self.flow.lag.pop((part.topic, part.partition), None)

    def _settle(self, consumer: ck.Consumer, handler: Handler) -> None:
        from confluent_kafka import TopicPartition

        places = handler.doubts()
        asked = [TopicPartition(topic, partition) for topic, partition in places]
        found = consumer.committed(asked, timeout=_CALL_SECONDS) if asked else []
        handler.resolve({(p.topic, p.partition): (p.offset, p.metadata or "") for p in found})

    def _known(self, consumer: ck.Consumer) -> None:
        """Refuse topics that are not there: a subscription would wait for ever without a word."""
        from confluent_kafka import KafkaError, KafkaException

        for name in filter(None, (self._input.name, self._output, self._dead)):
            topic = consumer.list_topics(name, timeout=_CALL_SECONDS).topics[name]
            if topic.error is not None and topic.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise DataError(f"no topic '{name}' at {self._input.servers}", next="create it, or mend its name", topic=name)
            if topic.error is not None:
                raise KafkaException(topic.error)

    def _taken(self, consumer: ck.Consumer) -> list[Message]:
        from confluent_kafka import KafkaError, KafkaException

        found: list[Message] = []
        for message in consumer.consume(self._most, self._linger):
            error = message.error()
            if error is not None:
                if error.code() in (KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    continue
                raise KafkaException(error)
            # A rebalance may fall into the call: what was taken before it is not ours any more.
            place = (message.topic(), message.partition())
            if place in self._mine:
                found.append(_message(message, place))
        return found

    def _transact(
        self, consumer: ck.Consumer, producer: ck.Producer, handler: Handler, messages: Sequence[Message], given: Sequence[Given]
    ) -> None:
        from confluent_kafka import KafkaException

        reads = {(m.topic, m.partition): m.offset + 1 for m in messages}
        producer.begin_transaction()
        try:
            for each in given:
                self._produce(producer, each)
            mark = handler.before_commit(reads)
            self._commit(consumer, producer, reads, mark)
        except (KafkaException, MulleError) as error:
            failure = error.args[0] if isinstance(error, KafkaException) else None
            if failure is not None and not failure.txn_requires_abort():
                raise  # whether it counts is not known: the next session asks
            again(producer.abort_transaction)
            handler.aborted()
            self.flow.aborted += 1
            self._rewind(consumer, messages)
            if failure is None:
                raise
            self._say(f"a transaction was taken back: {failure.str()}")
            return
        handler.committed()
        self._count(messages, given)

    def _answers(self, handler: Handler, messages: Sequence[Message], stopping: threading.Event) -> Sequence[Given] | None:
        """Answer, waiting as long as what the answers need is away; None when told to stop meanwhile."""
        for pause in (*_PAUSES, *(_PAUSES[-1:] * 10_000)):
            try:
                return handler.answer(messages)
            except Unavailable as error:
                self._say(f"{error.detail}; going on when it is back")
                if stopping.wait(pause):
                    return None
        return None

    def _produce(self, producer: ck.Producer, given: Given) -> None:
        topic = self._dead if given.dead else self._output
        assert topic is not None
        while True:
            try:
                producer.produce(topic, given.value, given.key, headers=list(given.headers))
                return
            except BufferError:
                producer.poll(0.05)

    def _commit(self, consumer: ck.Consumer, producer: ck.Producer, reads: Mapping[Place, int], mark: str) -> None:
        from confluent_kafka import TopicPartition

        positions = [TopicPartition(t, p, offset, mark) for (t, p), offset in reads.items()]
        group = consumer.consumer_group_metadata()
        again(lambda seconds: producer.send_offsets_to_transaction(positions, group, seconds))
        again(producer.commit_transaction)

    def _rewind(self, consumer: ck.Consumer, messages: Sequence[Message]) -> None:
        from confluent_kafka import TopicPartition

        firsts: dict[Place, int] = {}
        for message in messages:
            firsts.setdefault((message.topic, message.partition), message.offset)
        for place, offset in firsts.items():
            if place in self._mine:
                consumer.seek(TopicPartition(*place, offset))

    def _count(self, messages: Sequence[Message], given: Sequence[Given]) -> None:
        dead = sum(each.dead for each in given)
        self.flow.transactions += 1
        self.flow.taken += len(messages)
        self.flow.dead += dead
        self.flow.answered += len(given) - dead
        self.flow.skipped += len(messages) - len(given)

    def _look(self, consumer: ck.Consumer) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for place in tuple(self._mine):
            part = TopicPartition(*place)
            try:
                bounds = consumer.get_watermark_offsets(part, timeout=0.5)
                (at,) = consumer.position([part])
                (read,) = [at] if at.offset >= 0 else consumer.committed([part], timeout=0.5)
            except KafkaException:
                return
            if bounds is not None:
                start = read.offset if read.offset >= 0 else bounds[0]
                self.flow.lag[place] = max(0, bounds[1] - start)

    def _producer(self) -> ck.Producer:
        from confluent_kafka import Producer

        options = {k: v for k, v in self._input.options.items() if not k.startswith(("fetch.", "session.", "auto.", "max.poll"))}
        made: ck.Producer = self._client(Producer, {**options, **_EXACT_OUT, "transactional.id": self._name})
        return made

    def _consumer(self) -> ck.Consumer:
        from confluent_kafka import Consumer

        options = {**_DEFAULTS_IN, **self._input.options, **_EXACT_IN, "group.id": self._group}
        made: ck.Consumer = self._client(Consumer, options)
        return made

    def _client(self, make: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> Any:
        from confluent_kafka import KafkaException

        try:
            return make({"log_level": 0, **_BACK, **options, "bootstrap.servers": self._input.servers, "error_cb": self._hear})
        except KafkaException as error:
            said = error.args[0].str()
            for value in self._input.options.values():
                said = said.replace(value, "***") if value else said
            raise UsageError(f"topic {self._input.name}: {said}", next="see the options in the URL") from error

    def _hear(self, error: ck.KafkaError) -> None:
        from confluent_kafka import KafkaError

        self._heard = error.str()
        self._out |= error.code() == KafkaError._ALL_BROKERS_DOWN

    def _translated(self, error: ck.KafkaException) -> MulleError:
        from confluent_kafka import KafkaError

        failure, name = error.args[0], self._input.name
        if failure.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ):  # fmt: skip
            said = f"{self._input.servers} does not let topic '{name}' be streamed: {failure.str()}"
            return DataError(said, next="see the URL's options, and the rights of topic, group and transaction", topic=name)
        why = f" ({self._heard})" if self._heard else ""
        return Unavailable(f"Kafka at {self._input.servers}: {failure.str()}{why}", next="see that the brokers run", topic=name)


def _message(found: ck.Message, place: Place) -> Message:
    kind, milliseconds = found.timestamp()
    return Message(
        *place, found.offset() or 0, found.key(), found.value(), milliseconds * 1000 if kind else 0, tuple(found.headers() or ())
    )
