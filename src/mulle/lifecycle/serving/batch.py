"""The micro-batching queue: one lane per model gathers the rows of waiting requests and scores them together.

A batch that fails is halved until the guilty request stands alone, so only that one is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime
from time import perf_counter
from typing import Any

from mulle.core.errors import Deadline, MulleError, Unavailable
from mulle.lifecycle.serving.logged import TurnedAway
from mulle.lifecycle.serving.score import Answer, Batch, Ready, Scored, score_batch

__all__ = ["Gone", "Job", "Lane", "Waiting", "settle"]

REQUESTS = 256
"""Most requests in a batch."""

ROWS = 512
"""A batch takes no further request once it has this many rows."""

FEW = 64
"""With fewer requests waiting, more are let in before a batch; with more, each turn spent on refusals is lost for answers."""

INLINE = 256
"""Batches up to this many rows are scored on the event loop itself: a thread's hand-over would cost more."""

SLOW = 0.02
"""Seconds; a model whose batches usually take longer is scored in a thread, so that others need not wait for it."""

Gone = Callable[[], Awaitable[None]]
"""Returns when nobody waits for the answer any more."""


class Job:
    """A request in the queue.

    Attributes
    ----------
    version : int or None
        The one version asked for, or None for the model's routes.
    started : float
        Seconds of `time.perf_counter`.
    gone : callable or None
        How to learn that the client left.
    cost : float
        Seconds that it was expected to take when it came.
    held : list of bytes or None
        Where its log records wait, if it is a part of a request whose other parts may still be refused.
    """

    __slots__ = ("cost", "future", "gone", "held", "request", "rows", "started", "version")

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        request: str,
        version: int | None,
        started: float,
        future: asyncio.Future[list[Answer]],
        gone: Gone | None = None,
        held: list[bytes] | None = None,
    ) -> None:
        self.rows, self.request, self.version, self.started, self.future = rows, request, version, started, future
        self.gone, self.held, self.cost = gone, held, 0.0


class Waiting:
    """What waits in all lanes together: rows, and the seconds that they are expected to take."""

    __slots__ = ("lanes", "rows", "seconds")

    def __init__(self) -> None:
        self.rows, self.seconds = 0, 0.0
        self.lanes: set[Lane] = set()


Outcome = tuple[Job, "list[Answer] | Exception"]


def settle(
    jobs: Sequence[Job], deployments: Sequence[Ready], *, model: str, now: datetime, by_row: bool
) -> tuple[list[Outcome], list[Scored]]:
    """Score jobs together; where that fails, in halves, down to the one that is to blame.

    Parameters
    ----------
    jobs : sequence of Job
        Of one model and one version.
    deployments : sequence of Ready

    Returns
    -------
    outcomes : list of (Job, answers or error)
    scored : list of Scored
        What is to be logged and counted.
    """
    try:
        scored = score_batch(deployments, _batch(jobs, model, now, by_row), defer=True)
    except Exception as error:
        if len(jobs) == 1 or (isinstance(error, Unavailable) and not by_row):
            # What is away is nobody's fault: trying again by halves would only wait for it again.
            return [(job, error) for job in jobs], []
        half = len(jobs) // 2
        left, right = (settle(part, deployments, model=model, now=now, by_row=by_row) for part in (jobs[:half], jobs[half:]))
        return left[0] + right[0], left[1] + right[1]
    outcomes: list[Outcome] = []
    at = 0
    for job in jobs:
        outcomes.append((job, scored.answers[at : at + len(job.rows)]))
        at += len(job.rows)
    return outcomes, [scored]


def _batch(jobs: Sequence[Job], model: str, now: datetime, by_row: bool) -> Batch:
    rows: list[Mapping[str, Any]] = []
    requests: list[str] = []
    started: list[float] = []
    for job in jobs:
        rows += job.rows
        requests.append(job.request)
        started.append(job.started)
        for row in range(1, len(job.rows)):
            requests.append(f"{job.request}.{row}")
            started.append(job.started)
    return Batch(model, rows, requests, started, now, by_row)


class Lane:
    """One model's queue, and the task that empties it while there is something in it.

    Parameters
    ----------
    model : str
    deployments : callable
        Gives what answers (for the version asked for, or None), loading it when it must.
    work : callable
        Scores jobs and writes the log; raises only when the log cannot be written.
    count : callable
        Takes what was scored, when the answers are out; called on the event loop.
    executor : Executor
        For batches that are large or slow.
    waiting : Waiting
        Shared by all lanes.
    natives : Executor
        For versions that did not compile: who waits for their child keeps no thread from the others.
    threaded : bool
        Always use the executor.
    patience : float
        Seconds after which a request is refused; work for it is then not begun.
    turned_away : TurnedAway
        Logs the requests that no version could take.
    """

    def __init__(
        self,
        model: str,
        deployments: Callable[[int | None], Awaitable[Sequence[Ready]]],
        work: Callable[[Sequence[Job], Sequence[Ready]], tuple[list[Outcome], list[Scored]]],
        count: Callable[[Sequence[Scored]], None],
        executor: Executor,
        waiting: Waiting,
        natives: Executor,
        turned_away: TurnedAway,
        *,
        threaded: bool = False,
        patience: float = 3600.0,
    ) -> None:
        self.model, self._took = model, 0.0
        self._deployments, self._work, self._count = deployments, work, count
        self._executor, self._threaded, self._slow = executor, threaded, False
        self._waiting, self._natives, self._patience = waiting, natives, patience
        self._turned_away = turned_away
        self._jobs: deque[Job] = deque()
        self._flying: list[Job] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, job: Job) -> None:
        """Queue a job; its future gets the answers or the error."""
        # Under load batches are full, and this is right; below, too little, which refuses nobody.
        job.cost = self._took * max(1 / REQUESTS, len(job.rows) / ROWS)
        self._jobs.append(job)
        self._waiting.rows += len(job.rows)
        self._waiting.seconds += job.cost
        if self._task is None:
            self._waiting.lanes.add(self)
            # The task starts after the requests that are already readable have been parsed: they share its batch.
            self._task = asyncio.get_running_loop().create_task(self._empty())

    def expire(self, now: float) -> None:
        """Refuse the jobs whose time is over, and begin to watch whether the clients of the others are still there."""
        for job in (*self._flying, *self._jobs):
            if not job.future.done():
                if job.started < now - self._patience:
                    self._late(job)
                elif job.gone is not None:
                    watch = asyncio.get_running_loop().create_task(_watch(job, job.gone, self.model))
                    job.future.add_done_callback(lambda _, watch=watch: watch.cancel())  # type: ignore[misc]
                    job.gone = None

    async def idle(self) -> None:
        """Wait until the queue is empty."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def _empty(self) -> None:
        try:
            while self._jobs:
                # Two more turns of the loop let the requests that are on the wire join: measured at 16 connections,
                # half the work per request.
                await asyncio.sleep(0)
                if len(self._jobs) < FEW:
                    await asyncio.sleep(0)
                await self._run(self._take())
        finally:
            self._task = None
            self._waiting.lanes.discard(self)

    def _take(self) -> list[Job]:
        first = self._jobs.popleft()
        jobs, rows = [first], len(first.rows)
        while self._jobs and len(jobs) < REQUESTS and rows + len(self._jobs[0].rows) <= ROWS:
            if first.held is not None or self._jobs[0].held is not None:
                break  # by itself, for its records are not to be mixed with others
            if self._jobs[0].version != first.version or type(self._jobs[0].version) is not type(first.version):
                break
            jobs.append(self._jobs.popleft())
            rows += len(jobs[-1].rows)
        return jobs

    async def _run(self, taken: list[Job]) -> None:
        self._flying = taken
        try:
            ready = await self._answering(taken)
            jobs = self._awaited(taken)
            if jobs:
                await self._score(jobs, ready)
        except Exception as error:
            for job in taken:
                _answer(job, error)
        finally:
            self._waiting.rows -= sum(len(job.rows) for job in taken)
            # Sums of fractions drift: an empty queue takes no time.
            self._waiting.seconds = self._waiting.seconds - sum(job.cost for job in taken) if self._waiting.rows else 0.0
            self._flying = []

    async def _answering(self, taken: list[Job]) -> Sequence[Ready]:
        try:
            return await self._deployments(taken[0].version)
        except Unavailable as error:
            for job in taken:
                if not job.future.done():
                    self._turned_away.add(self.model, job.request, job.started, error)
            raise

    def _awaited(self, taken: list[Job]) -> list[Job]:
        # Nobody waits for an answer that comes too late, so it is not worked out.
        late = perf_counter() - self._patience
        for job in taken:
            if job.started < late:
                self._late(job)
        return [job for job in taken if not job.future.done()]

    async def _score(self, jobs: list[Job], ready: Sequence[Ready]) -> None:
        rows = sum(len(job.rows) for job in jobs)
        began = perf_counter()
        apart = any(loaded.contract.compiled == "native" for r in ready for loaded in r.loaded)
        if rows > INLINE or self._threaded or self._slow or apart:
            loop = asyncio.get_running_loop()
            executor = self._natives if apart else self._executor
            outcomes, scored = await loop.run_in_executor(executor, self._work, jobs, ready)
        else:
            outcomes, scored = self._work(jobs, ready)
        took = perf_counter() - began
        self._took += 0.2 * (took - self._took)
        self._slow = self._took > SLOW
        for job, outcome in outcomes:
            _answer(job, outcome)
        self._count(scored)

    def _late(self, job: Job) -> None:
        if not job.future.done():
            job.future.set_exception(
                Deadline(f"{self.model} did not answer in time", next="try again; the server is busy", model=self.model)
            )


async def _watch(job: Job, gone: Gone, model: str) -> None:
    await gone()
    if not job.future.done():
        job.future.set_exception(Deadline("the client left before the answer", model=model, left=True))


def _answer(job: Job, outcome: list[Answer] | Exception) -> None:
    if job.future.done():
        return
    if isinstance(outcome, list):
        job.future.set_result(outcome)
    else:
        # Requests that fail together must not share one error object: each adds its own request id.
        job.future.set_exception(_own(outcome))


def _own(error: Exception) -> Exception:
    return type(error)(error.detail, next=error.next, **error.facts) if isinstance(error, MulleError) else error
