"""What answers: the inference plane's runtime, and a stream with its handler; lean, as no store of the loop is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mulle.core.clock import WallClock
from mulle.core.errors import UsageError
from mulle.core.settings import Settings

if TYPE_CHECKING:
    from mulle.adapters.streams.kafka import KafkaStream
    from mulle.core.ports.stream import Codec
    from mulle.lifecycle.serving.runtime import Runtime
    from mulle.lifecycle.serving.score import Ready
    from mulle.lifecycle.serving.streaming import Answering, StreamOrder

__all__ = ["wire_inference", "wire_stream"]


def wire_inference(settings: Settings) -> Runtime:
    """Make the inference plane's runtime; a surface serves it.

    Imports nothing that the lean process must not hold: no tracking, no database, no training library.
    """
    from mulle.adapters.online.open import open_online
    from mulle.adapters.traces.otel import open_traces
    from mulle.core.records.bundle import Contract
    from mulle.lifecycle.features.read import OnlineReader
    from mulle.lifecycle.serving.runtime import Runtime

    online = open_online(settings.online, readonly=True)

    def joiner(contract: Contract) -> OnlineReader:
        return OnlineReader(online, contract.joins)

    runtime = Runtime(settings, joiner)
    runtime.traces = open_traces(settings.otel, "mulle-serve")
    return runtime


def wire_stream(settings: Settings, order: StreamOrder, *, say: Callable[[str], None]) -> tuple[KafkaStream, Answering]:
    """Make a stream and its handler; both are as lean as the inference plane.

    Raises
    ------
    UsageError
        When the URLs are no topics, or input and output are not on the same brokers.
    """
    from mulle.adapters.online.open import open_online
    from mulle.adapters.sources.environment import filled
    from mulle.adapters.streams.kafka import KafkaStream, read_topic
    from mulle.core.records.bundle import Contract
    from mulle.kernel.routes import ROUTES
    from mulle.lifecycle.features.read import OnlineReader
    from mulle.lifecycle.serving.following import Following
    from mulle.lifecycle.serving.log import log_folder
    from mulle.lifecycle.serving.pending import PendingLog
    from mulle.lifecycle.serving.shelf import Shelf
    from mulle.lifecycle.serving.slot import take_slot
    from mulle.lifecycle.serving.streaming import Answering

    source = read_topic(order.input, settings.broker, filled)
    output = read_topic(order.output, source.servers)
    dead = read_topic(order.dead if "://" in order.dead else f"kafka:///{order.dead}", source.servers) if order.dead else None
    if {source.servers} != {t.servers for t in (source, output, *([dead] if dead else []))}:
        raise UsageError("a transaction cannot span brokers: input, output and dead letters must be on the same ones")
    name, _, version = order.model.partition("@")
    group = order.group or f"mulle-{name}"
    online = open_online(settings.online, readonly=True)

    def joiner(contract: Contract) -> OnlineReader:
        return OnlineReader(online, contract.joins)

    pinned = int(version) if version.isdigit() else None
    following = Following(settings.home / ROUTES, Shelf(joiner), name, pinned, say=say)
    log = PendingLog(log_folder(settings.home), group, fsync=settings.fsync)
    handler = Answering(name, following, _codec(order, output.name), log, WallClock(), dead=dead is not None)
    stream = KafkaStream(
        source, output.name, dead.name if dead else None, group=group, name=take_slot(settings.home / "streams", group),
        most=order.most, linger=order.linger, say=say,
    )  # fmt: skip
    return stream, handler


def _codec(order: StreamOrder, output: str) -> Callable[[Ready], Codec]:
    from mulle.lifecycle.serving.streaming import JsonCodec, MixedCodec

    if not order.registry:
        if order.format == "avro":
            raise UsageError("answers in Avro need a registry for their schema", next="name it: --registry http://HOST:PORT")
        return lambda _: JsonCodec()
    from mulle.adapters.streams.avro import AvroCodec
    from mulle.adapters.streams.registry import Registry

    registry = Registry(order.registry)

    def make(ready: Ready) -> Codec:
        avro = AvroCodec(registry, ready.loaded[0].contract.inputs, f"{output}-value")
        return MixedCodec(avro, avro if order.format == "avro" else JsonCodec())

    return make
