"""A stream of messages that are answered: what is taken from it, what is given back, and how the two meet in a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

__all__ = ["Codec", "Flow", "Given", "Handler", "Message", "Place"]

Headers = tuple[tuple[str, bytes | None], ...]

Place = tuple[str, int]
"""A topic's partition."""


class Message(NamedTuple):
    """A message as it was taken; a tuple, for one is made of each of many thousand messages a second.

    Attributes
    ----------
    at : int
        The broker's time of it, in microseconds since the UTC epoch.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    at: int
    headers: Headers = ()

    @property
    def name(self) -> str:
        """What names it for good: ``topic-partition-offset``."""
        return f"{self.topic}-{self.partition}-{self.offset}"


class Given(NamedTuple):
    """A message to be sent; `dead` ones go to the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    dead: bool = False


class Handler(Protocol):
    """What is done with messages. A transaction holds what was answered, and how far was read, together."""

    def answer(self, messages: Sequence[Message]) -> Sequence[Given]:
        """Answer messages; may be asked again for the same ones when their transaction failed.

        Raises
        ------
        MulleError
            When they cannot be answered now; nothing is sent and nothing counts as read.
        """
        ...

    def before_commit(self, reads: Mapping[Place, int]) -> str:
        """Keep what must not be lost, in doubt until the commit is known.

        Parameters
        ----------
        reads : mapping
            How far each partition is read by this transaction.

        Returns
        -------
        str
            A mark that is kept with the group's offsets, so that `resolve` can know this transaction again.
        """
        ...

    def committed(self) -> None:
        """Hear that the transaction counts."""
        ...

    def aborted(self) -> None:
        """Hear that it does not, and never will."""
        ...

    def doubts(self) -> Sequence[Place]:
        """List the partitions of transactions that earlier lives left in doubt."""
        ...

    def resolve(self, read: Mapping[Place, tuple[int, str]]) -> None:
        """Settle those doubts: how far the group has read each partition, and the mark of the transaction that said so."""
        ...

    def idle(self) -> None:
        """Use a moment without a transaction."""
        ...


class Codec(Protocol):
    """Turns a message's bytes into a row, and an answer into bytes."""

    def decode(self, value: bytes) -> Mapping[str, Any]:
        """Read a row.

        Raises
        ------
        Malformed
            When the bytes are none.
        Unavailable
            When the schemas' registry is away.
        """
        ...

    def encode(self, answer: Mapping[str, Any]) -> bytes:
        """Write an answer."""
        ...


@dataclass(slots=True)
class Flow:
    """Counters of a stream; `lag` is by partition, in messages."""

    taken: int = 0
    answered: int = 0
    dead: int = 0
    skipped: int = 0
    transactions: int = 0
    aborted: int = 0
    sessions: int = 0
    lag: dict[Place, int] = field(default_factory=dict)
