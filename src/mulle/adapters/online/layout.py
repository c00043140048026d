"""How entries and marks are written, the same in every online store: instants that sort as bytes, values as JSON."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from mulle.core.clock import EPOCH
from mulle.core.ports.online import Mark

__all__ = ["BIAS", "INSTANT", "INSTANT_BYTES", "instant_of", "mark_text", "packed", "portions", "read_mark"]

BIAS = 2**63
"""Added to an instant, so that those before the epoch sort first."""

INSTANT = struct.Struct(">Q")
INSTANT_BYTES = INSTANT.size

T = TypeVar("T")
_MICROSECOND = timedelta(microseconds=1)


def packed(micros: int) -> bytes:
    """Write an instant as 8 bytes that sort as the instants do.

    Examples
    --------
    >>> sorted([packed(3), packed(-(2**62)), packed(0)]) == [packed(-(2**62)), packed(0), packed(3)]
    True
    """
    return INSTANT.pack(micros + BIAS)


def instant_of(data: bytes) -> int:
    """Read what `packed` wrote.

    Examples
    --------
    >>> instant_of(packed(-5))
    -5
    """
    found: int = INSTANT.unpack(data)[0]
    return found - BIAS


def mark_text(mark: Mark) -> bytes:
    """Write a mark as microseconds and version."""
    return f"{(mark.until - EPOCH) // _MICROSECOND},{mark.version}".encode()


def read_mark(text: bytes) -> Mark:
    """Read what `mark_text` wrote; a mark without version is from a time before versions were kept.

    Examples
    --------
    >>> read_mark(b"0,3").version, read_mark(b"0").version
    (3, 0)
    """
    until, _, version = bytes(text).partition(b",")
    return Mark(EPOCH + int(until) * _MICROSECOND, int(version or 0))


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Give items in lists of at most `size`, none of them empty.

    Examples
    --------
    >>> list(portions("abc", 2))
    [['a', 'b'], ['c']]
    """
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion
