"""Content addresses and identifiers: the same content gives the same name, and ids sort by time."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

__all__ = ["derived_id", "hash_bytes", "hash_folder", "hash_json", "new_id"]

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def hash_bytes(data: bytes) -> str:
    """Return the first 32 hex digits (128 bits) of the SHA-256 of ``data``.

    Examples
    --------
    >>> hash_bytes(b"")
    'e3b0c44298fc1c149afbf4c8996fb924'
    """
    return hashlib.sha256(data).hexdigest()[:32]


def hash_json(value: object) -> str:
    """Hash a JSON value; key order does not matter.

    Examples
    --------
    >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    True
    """
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def hash_folder(folder: Path) -> str:
    """Hash every file below ``folder`` with its relative name, in order.

    Parameters
    ----------
    folder : Path
        Symbolic links are followed as files; byte-code caches are left out.

    Returns
    -------
    str
        32 hex digits.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        name = path.relative_to(folder).as_posix().encode()
        digest.update(len(name).to_bytes(4, "big") + name)
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _base32(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        digits.append(_CROCKFORD[number & 31])
        number >>= 5
    return "".join(reversed(digits))


def new_id(now: datetime) -> str:
    """Make a fresh identifier (ULID: 48 bits of milliseconds, 80 random bits, Crockford base 32).

    Parameters
    ----------
    now : datetime
        The instant that the identifier sorts by.

    Returns
    -------
    str
        26 characters. Layout: https://github.com/ulid/spec.
    """
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    return _base32((milliseconds << 80) | int.from_bytes(os.urandom(10), "big"), 26)


def derived_id(now: datetime, *parts: str) -> str:
    """Make an identifier that is the same each time it is derived from the same parts.

    Durable steps use it, so that a step that runs again writes the same record again.

    Parameters
    ----------
    now : datetime
        The instant that the identifier sorts by; must be the same at each derivation.
    *parts : str
        What makes the thing unique.

    Returns
    -------
    str
        26 characters, ULID layout.
    """
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    tail = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:10], "big")
    return _base32((milliseconds << 80) | tail, 26)
