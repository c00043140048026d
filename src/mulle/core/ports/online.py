"""The online store: the last values of a key, read by the row's own time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

__all__ = ["Entry", "Online"]

Entry = tuple[str, int, dict[str, Any]]
"""Key as canonical text, instant in microseconds since the UTC epoch, values (JSON scalars)."""


class Online(Protocol):
    """Values by table, key and instant."""

    def put(self, table: str, entries: Iterable[Entry]) -> int:
        """Write entries, all or none; an entry of the same key and instant is replaced. Returns how many."""
        ...

    def get(self, table: str, keys: Sequence[str], at: Sequence[int]) -> list[tuple[int, dict[str, Any]] | None]:
        """Return, for each key, its last entry whose instant is not after `at`, or None; one round trip."""
        ...

    def mark(self, table: str, until: datetime) -> None:
        """Record that the table holds everything available up to an instant."""
        ...

    def marked(self, table: str) -> datetime | None:
        """Return the instant up to which a table is complete, or None."""
        ...

    def trim(self, table: str, before: int) -> int:
        """Delete entries older than an instant (microseconds), keeping each key's last one; return how many."""
        ...

    def close(self) -> None:
        """Release what the store holds."""
        ...
