"""Messages in Avro with a registry's framing: a zero byte, the schema's id in four bytes (big endian), the record.

Framing: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mulle.adapters.streams.registry import Registry
from mulle.core.errors import Malformed, MulleError, UsageError
from mulle.core.records.bundle import InputField

__all__ = ["AvroCodec"]

_HEAD = struct.Struct(">bI")
_TYPES: dict[str, list[Any]] = {
    "FP64": ["null", "double"],
    "INT64": ["null", "long"],
    "BOOL": ["null", "boolean"],
    "BYTES": ["null", "string"],
    "TIME": ["null", {"type": "long", "logicalType": "timestamp-micros"}, {"type": "long", "logicalType": "timestamp-millis"}],
}
_PREDICTION = {
    "type": "record",
    "name": "Prediction",
    "namespace": "mulle",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "model", "type": "string"},
        {"name": "version", "type": "long"},
        {"name": "route", "type": "string"},
        {"name": "value", "type": ["double", "string"]},
        {"name": "probabilities", "type": ["null", {"type": "map", "values": "double"}], "default": None},
        {"name": "key", "type": {"type": "map", "values": ["null", "string", "long", "double", "boolean"]}, "default": {}},
        {"name": "time", "type": ["null", "string"], "default": None},
    ],
}


class AvroCodec:
    """Meets `mulle.core.ports.stream.Codec`.

    A message is read by its writer's schema, and resolved to what the contract asks for: fields that the contract has not
    are dropped, fields that the writer has not are null, whole numbers widen.

    Parameters
    ----------
    registry : Registry
    inputs : sequence of InputField
    subject : str
        Where the answers' schema is registered, when the first one is written.

    Raises
    ------
    UsageError
        When fastavro is not installed.
    """

    def __init__(self, registry: Registry, inputs: Sequence[InputField], subject: str = "") -> None:
        try:
            import fastavro  # noqa: F401
        except ImportError as error:
            raise UsageError("Avro is read by fastavro, which is not here", next="pip install 'mulle[avro]'") from error
        self._registry, self._inputs, self._subject = registry, tuple(inputs), subject
        self._readers: dict[int, tuple[Any, Any]] = {}
        self._own: tuple[int, Any] | None = None

    def decode(self, value: bytes) -> Mapping[str, Any]:
        """Read a row; see the port. A message that does not begin with a zero byte is read as JSON."""
        import fastavro

        if value[:1] != b"\0":
            return _object(value)
        if len(value) < _HEAD.size:
            raise Malformed("a message of less than five bytes has no schema id", next="frame it as a registry's serialiser does")
        _, id = _HEAD.unpack_from(value)
        writer, reader = self._schemas(id)
        try:
            found = fastavro.schemaless_reader(io.BytesIO(value[_HEAD.size :]), writer, reader)
        except MulleError:
            raise
        except Exception as error:  # fastavro raises whatever the bytes led it into
            said = str(error).splitlines()[0][:200] if str(error) else ""
            raise Malformed(
                f"the Avro record of schema {id} cannot be read: {type(error).__name__}: {said}",
                next="see the schema's fields against the model's contract",
            ) from error
        if not isinstance(found, dict):
            raise Malformed(f"schema {id} is no record", next="send records")
        return found

    def encode(self, answer: Mapping[str, Any]) -> bytes:
        """Write an answer as ``mulle.Prediction``."""
        import fastavro

        if self._own is None:
            self._own = (self._registry.register(self._subject, _PREDICTION), fastavro.parse_schema(_PREDICTION))
        id, schema = self._own
        body = io.BytesIO(_HEAD.pack(0, id))
        body.seek(_HEAD.size)
        key = {name: v if isinstance(v, (str, int, float, bool)) or v is None else str(v) for name, v in answer["key"].items()}
        fastavro.schemaless_writer(body, schema, {**answer, "key": key, "probabilities": answer.get("probabilities")})
        return body.getvalue()

    def _schemas(self, id: int) -> tuple[Any, Any]:
        import fastavro

        if id not in self._readers:
            written = self._registry.schema(id)
            try:
                writer = fastavro.parse_schema(written)
                reader = fastavro.parse_schema(self._wanted(written))
            except MulleError:
                raise
            except Exception as error:
                raise Malformed(f"schema {id} is no Avro schema: {error}", next="register it anew") from error
            self._readers[id] = (writer, reader)
        return self._readers[id]

    def _wanted(self, written: Any) -> Any:
        """Make the reader's schema: the contract's fields under the writer's name."""
        if not isinstance(written, dict) or written.get("type") != "record":
            raise Malformed("the schema is no record", next="send records")
        known = {f["name"]: f["type"] for f in written["fields"]}
        # A time may be written as text or as an instant; the contract's reader takes both.
        fields = [
            {"name": f.name, "type": _nullable(known[f.name]) if f.type == "TIME" and f.name in known else _TYPES[f.type],
             "default": None}
            for f in self._inputs
        ]  # fmt: skip
        head = {k: written[k] for k in ("name", "namespace") if k in written}
        return {"type": "record", **head, "fields": fields}


def _nullable(kind: Any) -> Any:
    if isinstance(kind, list):
        return ["null", *(k for k in kind if k != "null")]
    return ["null", kind]


def _object(value: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the message is neither framed Avro nor JSON: {error}", next="send JSON objects or Avro") from error
    if not isinstance(found, dict):
        raise Malformed("the message is no JSON object", next="send one object a message")
    return found
