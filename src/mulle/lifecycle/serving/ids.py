"""Many identifiers at once: the ULIDs of `core.hashing.new_id`, made per batch because serving needs thousands a second."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np

__all__ = ["fresh_ids", "repeatable_ids"]

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS = (_CROCKFORD * 8).encode()
_ALPHABET = np.frombuffer(_CROCKFORD.encode(), np.uint8)
_FIVE_BITS = np.array([16, 8, 4, 2, 1], np.uint8)
_HEAD_SHIFTS = np.arange(45, -1, -5)


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
    tails = np.unpackbits(np.frombuffer(b"".join(digests), np.uint8)).reshape(-1, 16, 5) @ _FIVE_BITS
    moments = np.asarray(microseconds, np.int64) // 1000
    heads = moments[:, None] >> _HEAD_SHIFTS & 31
    # All at once: letter by letter it would cost as much as the digests.
    letters: str = _ALPHABET[np.concatenate([heads, tails], axis=1)].tobytes().decode()
    return [letters[i : i + 26] for i in range(0, len(letters), 26)]


_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def _head(microseconds: int) -> str:
    milliseconds = microseconds // 1000 & (2**48 - 1)
    return "".join([_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
