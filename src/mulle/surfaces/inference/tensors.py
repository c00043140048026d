"""Tensors of the Open Inference Protocol: what REST and gRPC share, between bytes, columns and rows.

Binary layout: little-endian, row by row, without padding; text as its length in four bytes and then UTF-8.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mulle.core.errors import Malformed
from mulle.core.records.bundle import Contract
from mulle.lifecycle.serving.score import Answer

__all__ = ["DATATYPES", "Tensor", "check_shape", "inputs_of", "outputs_of", "pack", "pick", "rows_of", "tensors_of", "unpack"]

_CODES = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I",
    "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_SIZES = {name: struct.calcsize(f"<{code}") for name, code in _CODES.items()}
_LENGTH = struct.Struct("<I")

DATATYPES = (*_CODES, "BYTES")
"""Datatypes that a tensor may have here."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor; `values` are flat, row by row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


def unpack(name: str, datatype: str, raw: bytes) -> Sequence[Any]:
    """Read a tensor's values from its binary form.

    Raises
    ------
    Malformed
        When the bytes are not whole values of the datatype; names the tensor as ``field``.

    Examples
    --------
    >>> list(unpack("x", "INT16", bytes([1, 0, 2, 0]))), unpack("t", "BYTES", bytes([1, 0, 0, 0, 97]))
    ([1, 2], ['a'])
    """
    if datatype == "BYTES":
        return _texts(name, raw)
    code = _CODES.get(datatype)
    if code is None:
        raise _unknown(name, datatype)
    count, rest = divmod(len(raw), _SIZES[datatype])
    if rest:
        raise Malformed(f"tensor {name} has {len(raw)} bytes, no whole number of {datatype}", next=_SIZE, field=name)
    return struct.unpack(f"<{count}{code}", raw)


def pack(tensor: Tensor) -> bytes:
    """Give a tensor's values in their binary form.

    Examples
    --------
    >>> pack(Tensor("t", "BYTES", (1,), ["a"]))
    b'\\x01\\x00\\x00\\x00a'
    """
    if tensor.datatype == "BYTES":
        return b"".join(chain.from_iterable((_LENGTH.pack(len(b)), b) for b in (v.encode() for v in tensor.values)))
    return struct.pack(f"<{len(tensor.values)}{_CODES[tensor.datatype]}", *tensor.values)


def check_shape(name: str, shape: object, count: int) -> tuple[int, ...]:
    """Take a tensor's shape, one value a row.

    Raises
    ------
    Malformed
        When it is neither ``[n]`` nor ``[n, 1]`` of the values that came.
    """
    found = tuple(shape) if isinstance(shape, (list, tuple)) else ()
    if not all(type(n) is int for n in found) or found not in ((count,), (count, 1)):
        shown = str(shape)[:80]
        raise Malformed(f"tensor {name} has shape {shown} and {count} values", next="use [n] or [n, 1]", field=name)
    return found


def rows_of(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Turn tensors, one a column, into rows.

    Raises
    ------
    Malformed
        Without tensors, or when they differ in length or share a name.
    """
    columns = {tensor.name: tensor.values for tensor in tensors}
    if not columns:
        raise Malformed("there are no input tensors", next="send one tensor per raw column")
    if len(columns) != len(tensors):
        raise Malformed("two tensors have the same name", next="send one tensor per raw column")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise Malformed(f"the tensors have different numbers of rows: {sorted(lengths)}", next="send one value per row in each")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def tensors_of(answers: Sequence[Answer]) -> list[Tensor]:
    """Turn answers into output tensors: ``value``, and ``probabilities`` of a classifier."""
    values = [answer["value"] for answer in answers]
    found = [Tensor("value", "BYTES" if isinstance(values[0], str) else "FP64", (len(values), 1), values)]
    first = answers[0].get("probabilities")
    if first is not None:
        chances = [p for answer in answers for p in answer["probabilities"].values()]
        found.append(Tensor("probabilities", "FP64", (len(values), len(first)), chances))
    return found


def pick(tensors: Sequence[Tensor], asked: Mapping[str, Any]) -> list[Tensor]:
    """Keep the outputs that were asked for; all when none was.

    Raises
    ------
    Malformed
        When one is unknown.
    """
    names = {tensor.name for tensor in tensors}
    for name in asked:
        if name not in names:
            raise Malformed(f"there is no output {name[:80]!r}", next=f"ask for {', '.join(sorted(names))}", field=name[:80])
    return [tensor for tensor in tensors if not asked or tensor.name in asked]


def inputs_of(contract: Contract) -> list[tuple[str, str, list[int]]]:
    """Describe the inputs of a model: name, datatype and shape."""
    return [(f.name, "BYTES" if f.type == "TIME" else f.type, [-1, 1]) for f in contract.inputs]


def outputs_of(contract: Contract) -> list[tuple[str, str, list[int]]]:
    """Describe the outputs of a model: name, datatype and shape."""
    if not contract.classes:
        return [("value", "FP64", [-1, 1])]
    return [("value", "BYTES", [-1, 1]), ("probabilities", "FP64", [-1, len(contract.classes)])]


_SIZE = "send every value in the size of its datatype, little-endian"


def _texts(name: str, raw: bytes) -> list[str]:
    found, at, end = [], 0, len(raw)
    while at < end:
        start = at + 4
        at = start + _LENGTH.unpack_from(raw, at)[0] if start <= end else end + 1
        if at > end:
            raise Malformed(f"tensor {name} ends within a text", next="send each text's length in 4 bytes, then it", field=name)
        try:
            found.append(raw[start:at].decode())
        except UnicodeDecodeError as error:
            raise Malformed(f"tensor {name} has text that is not UTF-8", next="send UTF-8", field=name) from error
    return found


def _unknown(name: str, datatype: object) -> Malformed:
    known = ", ".join(DATATYPES)
    return Malformed(f"tensor {name} has datatype {str(datatype)[:40]!r}, not spoken here", next=f"use {known}", field=name)
