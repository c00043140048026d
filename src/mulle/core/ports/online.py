"""The online store: the last values of a key, read by the row's own time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

__all__ = ["Ask", "Entry", "Found", "Mark", "Online"]

Entry = tuple[str, int, dict[str, Any]]
"""Key as canonical text, instant in microseconds since the UTC epoch, values (JSON scalars)."""

Ask = tuple[str, str, int]
"""Table, key, instant: the last entry not after it is wanted."""

Found = tuple[int, dict[str, Any]]
"""An entry's instant and values."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a table is filled.

    Attributes
    ----------
    until : datetime
        It holds everything available up to here ...
    version : int
        ... of the dataset's published rows up to this version; 0 when none is known.
    """

    until: datetime
    version: int = 0


class Online(Protocol):
    """Values by table, key and instant."""

    def put(self, table: str, entries: Iterable[Entry]) -> int:
        """Write entries; an entry of the same key and instant is replaced. Returns how many.

        Entries may be many and are taken in portions; a portion is written whole or not at all, and since `mark` comes
        after all of them, a feed that dies is simply repeated.
        """
        ...

    def get(self, asks: Sequence[Ask]) -> list[Found | None]:
        """Return, for each ask, the key's last entry whose instant is not after the asked one, or None; one round trip."""
        ...

    def mark(self, table: str, mark: Mark) -> None:
        """Record how far a table is filled."""
        ...

    def marked(self, table: str) -> Mark | None:
        """Return how far a table is filled, or None when it never was."""
        ...

    def trim(self, table: str, before: int) -> int:
        """Delete entries older than an instant (microseconds), keeping each key's last one; return how many."""
        ...

    def forget(self, table: str, keys: Sequence[str]) -> int:
        """Delete every entry of the keys; return how many."""
        ...

    def close(self) -> None:
        """Release what the store holds."""
        ...
