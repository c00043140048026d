"""Shadows: versions that only log; they score when the answers are out, and what they cannot keep up with is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mulle.core.errors import MulleError
from mulle.lifecycle.serving.log import Segment
from mulle.lifecycle.serving.score import Scored, Shadow, score_shadow

__all__ = ["CALM", "Shadows"]

CALM = 512
"""With more rows waiting than this, shadows are left out: the time is needed for answers."""

_BEHIND = 1024
"""Rows that shadows may be behind."""


class Shadows:
    """One thread that scores shadows, behind a bounded queue.

    Parameters
    ----------
    log : Segment
    count : callable
        Takes the model and what was scored; called on the event loop.
    """

    def __init__(self, log: Segment, count: Callable[[str, Sequence[Scored]], None]) -> None:
        self._log, self._count = log, count
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mulle-shadow")
        self._behind = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, model: str, shadow: Shadow, *, busy: bool) -> bool:
        """Queue a shadow's batch; returns False where it is left out.

        Parameters
        ----------
        busy : bool
            The server has enough to do with answers.
        """
        rows = len(shadow.batch.rows)
        if busy or self._behind + rows > _BEHIND:
            return False
        self._behind += rows
        task = asyncio.get_running_loop().create_task(self._score(model, shadow, rows))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def idle(self) -> None:
        """Wait until nothing is left to be scored, and end the thread."""
        await asyncio.gather(*self._tasks)
        self._thread.shutdown()

    async def _score(self, model: str, shadow: Shadow, rows: int) -> None:
        try:
            scored = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, shadow)
            self._count(model, [scored])
        finally:
            self._behind -= rows

    def _work(self, shadow: Shadow) -> Scored:
        scored = score_shadow(shadow)
        if scored.records:
            try:
                self._log.write(scored.records)
            except MulleError:
                # No answer hangs on it; the champion's own write tells of the disk.
                return Scored(answers=[])
        return scored
