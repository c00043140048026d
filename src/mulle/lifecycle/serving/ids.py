"""Many identifiers at once: the ULIDs of `core.hashing.new_id`, made per batch because serving needs thousands a second."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence

__all__ = ["fresh_ids", "repeatable_ids"]

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS = (_CROCKFORD * 8).encode()
_TO_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _CROCKFORD.encode())


def fresh_ids(microseconds: int, count: int) -> list[str]:
    """Make identifiers that sort by time, with 80 random bits each.

    Parameters
    ----------
    microseconds : int
        Since the UTC epoch.
    count : int

    Examples
    --------
    >>> ids = fresh_ids(1_362_096_000_000_000, 3)
    >>> [i[:10] for i in ids] == ["017MHKZ300"] * 3, len(set(ids)), {len(i) for i in ids}
    (True, 3, {26})
    """
    head = _head(microseconds)
    if count > _STOCK:
        return [head + tail for tail in _drawn(count)]
    while True:
        try:
            return [head + _TAILS.pop() for _ in range(count)]
        except IndexError:  # another thread may take some too; what was taken in vain is not missed
            _TAILS.extend(_drawn(_STOCK))


_STOCK = 1024
_TAILS: list[str] = []
"""Random ends made ahead: one call for a thousand of them costs a tenth of a call for each."""

# A child that was forked must not give its parent's identifiers.
os.register_at_fork(after_in_child=_TAILS.clear)


def _drawn(count: int) -> list[str]:
    # Five bits of each byte are a letter; base 32 of as many bits as are needed costs ten times as much.
    tails = os.urandom(16 * count).translate(_LETTERS).decode()
    return [tails[i : i + 16] for i in range(0, 16 * count, 16)]


def repeatable_ids(microseconds: Sequence[int], parts: Sequence[bytes], salt: str) -> list[str]:
    """Make identifiers that are the same whenever the same rows are played again (replay).

    Parameters
    ----------
    microseconds : sequence of int
        Each row's own time.
    parts : sequence of bytes
        Each row's content.
    salt : str
        What else makes them differ, such as model and version.
    """
    start = hashlib.blake2b(salt.encode(), digest_size=10)
    digests = []
    for part in parts:
        digest = start.copy()
        digest.update(part)
        digests.append(digest.digest())
    # Eighty bits are sixteen letters of base 32 without a rest, so one call does for all.
    tails = base64.b32encode(b"".join(digests)).translate(_TO_CROCKFORD).decode()
    return [_head(moment) + tails[i * 16 : i * 16 + 16] for i, moment in zip(range(len(digests)), microseconds, strict=True)]


_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def _head(microseconds: int) -> str:
    milliseconds = microseconds // 1000 & (2**48 - 1)
    return "".join([_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
