"""Answering a stream's messages: decoded, scored together by the routes in force, logged; bad ones set apart with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import orjson

from mulle.core.clock import EPOCH, Clock, rfc3339
from mulle.core.errors import DataError, Malformed, MulleError, Unavailable
from mulle.core.ports.stream import Codec, Given, Message, Place
from mulle.kernel.faults import point
from mulle.lifecycle.serving.following import Following
from mulle.lifecycle.serving.pending import PendingLog
from mulle.lifecycle.serving.score import Answer, Batch, Ready, Scored, score_batch
from mulle.lifecycle.serving.tally import Tally

__all__ = ["Answering", "JsonCodec", "MixedCodec", "StreamOrder"]

_TEXT = 1_000


class JsonCodec:
    """Meets `mulle.core.ports.stream.Codec`: a row is one JSON object, and so is an answer.

    Examples
    --------
    >>> JsonCodec().decode(b'{"x": 1}')
    {'x': 1}
    """

    def decode(self, value: bytes) -> Mapping[str, Any]:
        """Read a row; see the port."""
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"the message is not JSON: {error}", next="send one JSON object a message") from error
        if not isinstance(found, dict):
            raise Malformed(f"the message is a JSON {type(found).__name__}, no object", next="send one JSON object a message")
        return found

    def encode(self, answer: Mapping[str, Any]) -> bytes:
        """Write an answer."""
        return orjson.dumps(answer, default=str)


@dataclass(frozen=True, slots=True)
class MixedCodec:
    """Reads by one codec and writes by another."""

    reader: Codec
    writer: Codec

    def decode(self, value: bytes) -> Mapping[str, Any]:
        """Read a row; see the port."""
        return self.reader.decode(value)

    def encode(self, answer: Mapping[str, Any]) -> bytes:
        """Write an answer."""
        return self.writer.encode(answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOrder:
    """What ``mulle stream`` was asked for.

    Attributes
    ----------
    input, output, dead : str
        Topics by URL; `dead` may be a bare name, or empty.
    registry : str
        A schema registry's URL; empty for JSON alone.
    format : str
        Of the answers: ``json`` or ``avro``.
    most : int
        Messages in a transaction.
    linger : float
        Seconds that a transaction waits for more.
    """

    model: str
    input: str
    output: str
    dead: str = ""
    group: str = ""
    registry: str = ""
    format: str = "json"
    most: int = 2_000
    linger: float = 0.05


class Answering:
    """Meets `mulle.core.ports.stream.Handler`.

    Parameters
    ----------
    model : str
    following : Following
    codec : callable
        Makes the codec when the first bundle, and so the contract, is known.
    log : PendingLog
    dead : bool
        Whether there is a topic for bad messages; without one they end the stream.
    """

    def __init__(
        self, model: str, following: Following, codec: Callable[[Ready], Codec], log: PendingLog, clock: Clock, *, dead: bool
    ) -> None:
        self._model, self._following, self._make, self._log = model, following, codec, log
        self._clock, self._dead = clock, dead
        self._codec: Codec | None = None
        self._contracted = ""
        self._fields: frozenset[str] = frozenset()
        self._records: list[bytes] = []
        self._scored: list[tuple[str, Scored]] = []
        self.tally = Tally()

    def answer(self, messages: Sequence[Message]) -> Sequence[Given]:
        """Answer messages; see the port. Those without a value (tombstones) get no answer.

        Raises
        ------
        DataError
            When a message is bad and there is no dead-letter topic.
        Unavailable
            When the routes, the registry or the online store are away.
        """
        now, started = self._clock.now(), perf_counter()
        ready = self._following.ready(now)
        codec = self._codec_of(ready)
        self._records, self._scored = [], []
        read = [(m, self._row(codec, ready, m, m.value)) for m in messages if m.value is not None]
        rows = [(message, row) for message, row in read if not isinstance(row, MulleError)]
        answers = iter(self._spread(rows, now, started))
        outcomes = [(message, row, row if isinstance(row, MulleError) else next(answers)) for message, row in read]
        return [self._given(codec, ready, *outcome) for outcome in outcomes]

    def before_commit(self, reads: Mapping[Place, int]) -> str:
        """Write the log, in doubt until the commit."""
        return self._log.write(self._records, reads)

    def committed(self) -> None:
        """Count what was scored."""
        point("during:stream:committed")
        self._log.commit()
        for model, part in self._scored:
            for version, route, count in part.rows:
                self.tally.rows[(model, str(version), route)] += count
            for feature in part.unseen:
                self.tally.unseen[(model, feature)] += 1
            for version, _ in part.faults:
                self.tally.faults[(model, str(version))] += 1
        self._records, self._scored = [], []

    def aborted(self) -> None:
        """Take the log's last records out again."""
        self._log.cut()
        self._records, self._scored = [], []

    def doubts(self) -> Sequence[Place]:
        """List what earlier lives left in doubt; our own last transaction too, when nobody could say how it ended."""
        return self._log.doubts()

    def resolve(self, read: Mapping[Place, tuple[int, str]]) -> None:
        """Settle it."""
        self._log.resolve(read)

    def idle(self) -> None:
        """Hand the log's finished part to the drainer."""
        self._log.settle()

    def close(self) -> None:
        """Let the log go."""
        self._log.close()

    def _codec_of(self, ready: Ready) -> Codec:
        bundle = ready.routes[0].bundle
        if self._codec is None or bundle != self._contracted:
            self._codec, self._contracted = self._make(ready), bundle
            self._fields = frozenset(field.name for field in ready.loaded[0].contract.inputs)
        return self._codec

    def _row(self, codec: Codec, ready: Ready, message: Message, value: bytes) -> Mapping[str, Any] | MulleError:
        contract = ready.loaded[0].contract
        try:
            found = codec.decode(value)
        except Unavailable:
            raise
        except MulleError as error:
            return error
        row = dict(found) if found.keys() <= self._fields else {k: v for k, v in found.items() if k in self._fields}
        if contract.time is not None and row.get(contract.time) is None:
            # The broker's time of the message, not now: read again, it must give the same answer.
            row[contract.time] = rfc3339(EPOCH + timedelta(microseconds=message.at))
        return row

    def _spread(
        self, rows: Sequence[tuple[Message, Mapping[str, Any]]], now: datetime, started: float
    ) -> list[Answer | MulleError]:
        """Let each row's model answer, and give the answers in the rows' order; a member's names it."""
        found: list[Answer | MulleError] = [{}] * len(rows)
        for model, ready, places in self._following.spread([row for _, row in rows], now):
            for place, answer in zip(places, self._settled(model, ready, [rows[i] for i in places], now, started), strict=True):
                if not isinstance(answer, MulleError):
                    answer["model"] = model
                found[place] = answer
        return found

    def _settled(
        self, model: str, ready: Ready, rows: Sequence[tuple[Message, Mapping[str, Any]]], now: datetime, started: float
    ) -> list[Answer | MulleError]:
        """Score rows together; where that fails, in halves, down to the one that is to blame."""
        if not rows:
            return []
        batch = Batch(
            model, [row for _, row in rows], [m.name for m, _ in rows], [started] * len(rows), now, by_row=False, named=True
        )
        try:
            scored = score_batch([ready], batch)
        except Unavailable:
            raise
        except MulleError as error:
            if len(rows) == 1:
                return [error]
            half = len(rows) // 2
            return [part for side in (rows[:half], rows[half:]) for part in self._settled(model, ready, side, now, started)]
        self._records += scored.records
        self._scored.append((model, replace(scored, records=[])))
        return list(scored.answers)

    def _given(
        self, codec: Codec, ready: Ready, message: Message, row: Mapping[str, Any] | MulleError, answer: Answer | MulleError
    ) -> Given:
        if isinstance(answer, MulleError) or isinstance(row, MulleError):
            return self._buried(message, answer)  # type: ignore[arg-type]
        contract = ready.loaded[0].contract
        answer["key"] = {k: row.get(k) for k in contract.key}
        if contract.time is not None:
            answer["time"] = _text(row.get(contract.time))
        return Given(message.key, codec.encode(answer), (*message.headers, ("mulle-source", message.name.encode())))

    def _buried(self, message: Message, error: MulleError) -> Given:
        if not self._dead:
            raise DataError(
                f"message {message.name} is refused: {error.detail}",
                next="name a topic for such messages with --dead-letter, or mend its producer", topic=message.topic,
                partition=message.partition, offset=message.offset,
            )  # fmt: skip
        reasons = {
            "mulle-error": error.slug, "mulle-detail": error.detail[:_TEXT], "mulle-field": str(error.facts.get("field", "")),
            "mulle-model": self._model, "mulle-source": message.name,
        }  # fmt: skip
        return Given(message.key, message.value, (*message.headers, *((k, v.encode()) for k, v in reasons.items())), dead=True)


def _text(value: object) -> str | None:
    return rfc3339(value) if isinstance(value, datetime) else None if value is None else str(value)
