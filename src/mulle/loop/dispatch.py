"""Who runs what: an engine's turn-taking with the other workers of its home, by the queue that all of them share.

A worker beats; one whose beat stands still for long is taken for dead, and its runs are taken over. A hung worker that wakes
finds that its runs bear another token: what it writes is refused, and it lets them go.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mulle.core.records.base import Json

if TYPE_CHECKING:
    from mulle.core.ports.metadata import Queue

__all__ = ["BEAT", "DEAD", "Pulse", "Turns"]

BEAT = 2.0
"""Seconds between two beats of a worker."""

DEAD = 15.0
"""Seconds that a beat may stand still until its worker is taken for dead; measured by who looks, so clocks may differ."""


@dataclass(frozen=True, slots=True)
class Turns:
    """How many runs may be under way: in this worker, and in all of them (None: as many as the workers take)."""

    here: int = 1
    everywhere: int | None = None


class Pulse:
    """A worker's own beat, and which of the others are dead.

    Parameters
    ----------
    queue : Queue
    worker : str
        The own id.
    dead : float
        Seconds that a beat may stand still.
    """

    def __init__(self, queue: Queue, worker: str, *, dead: float = DEAD) -> None:
        self._queue, self.worker, self._patience = queue, worker, dead
        self._count = time.time_ns()
        self._next = 0.0
        self._seen: dict[str, tuple[int, float]] = {}
        self._dead: tuple[str, ...] = ()

    def look(self, runs: Sequence[str]) -> Sequence[str]:
        """Beat when it is time to, and name the workers that are dead.

        Parameters
        ----------
        runs : sequence of str
            What this worker has under way.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + min(BEAT, self._patience / 5)
            self._count += 1
            self._queue.beat(self.worker, self._count, {"pid": os.getpid(), "host": socket.gethostname(), "runs": list(runs)})
            self._dead = self._silent(self._queue.beats(), now)
        return self._dead

    def stop(self) -> None:
        """Say that this worker ends in order: what it leaves behind may be taken at once."""
        self._queue.leave(self.worker)

    def _silent(self, beats: Mapping[str, tuple[int, Json]], now: float) -> tuple[str, ...]:
        before = self._seen
        self._seen = {w: before[w] if before.get(w, (None,))[0] == count else (count, now) for w, (count, _) in beats.items()}
        return tuple(w for w, (_, since) in self._seen.items() if now - since > self._patience and w != self.worker)
