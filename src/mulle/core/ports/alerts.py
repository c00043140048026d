"""Telling people: the outbox of what is still to be told, and the receivers it goes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mulle.core.records.notice import Silence, Untold

__all__ = ["Message", "Outbox", "Receiver"]


@dataclass(frozen=True, slots=True)
class Message:
    """What a receiver shows.

    Attributes
    ----------
    kind : str
        ``info``, ``success``, ``warning`` or ``failure``.
    """

    title: str
    body: str
    kind: str = "info"


class Receiver(Protocol):
    """One address that messages go to."""

    @property
    def id(self) -> str:
        """A short hash of the address, the same as long as that is the same; tells no secret."""
        ...

    @property
    def name(self) -> str:
        """The service and the id: what may be shown and logged of an address."""
        ...

    def send(self, message: Message) -> None:
        """Hand a message over; returns when the other side has taken it.

        Raises
        ------
        Unavailable
            When it did not; the words hold no secret of the address.
        """
        ...


class Outbox(Protocol):
    """Events of alerts until every receiver has them; an event enters in the transaction that records it."""

    def due(self, now: datetime, limit: int = 10_000) -> Sequence[Untold]:
        """List what is to be told now, oldest first: never a later event of an alert before an earlier one."""
        ...

    def claim(self, seqs: Sequence[int], now: datetime, until: datetime) -> bool:
        """Take events for sending until an instant; False when somebody else has one of them."""
        ...

    def told(self, seqs: Sequence[int], receiver: str) -> None:
        """Note that a receiver has taken events."""
        ...

    def put_off(self, seqs: Sequence[int], until: datetime, *, failed: bool = False, held: bool = False) -> None:
        """Let events wait; `failed` counts an attempt, `held` says that a silence is why."""
        ...

    def settle(self, seqs: Sequence[int] | None = None) -> None:
        """Drop events that need no telling any more; by default all."""
        ...

    def count(self) -> int:
        """Count what is not told."""
        ...

    def silence(self, silence: Silence) -> None:
        """Add a silence."""
        ...

    def silences(self) -> Sequence[Silence]:
        """List the last silence of each name, over or not."""
        ...
