"""The micro-batching queue: one lane per model gathers the rows of waiting requests and scores them together.

A batch that fails is halved until the guilty request stands alone, so only that one is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Any

from mulle.core.errors import Deadline, MulleError
from mulle.lifecycle.serving.score import Answer, Batch, Ready, Scored, score_batch

__all__ = ["Job", "Lane", "settle"]

REQUESTS = 64
"""Most requests in a batch."""

ROWS = 512
"""A batch takes no further request once it has this many rows."""

INLINE = 256
"""Batches up to this many rows are scored on the event loop itself: a thread's hand-over would cost more."""


class Job:
    """A request in the queue.

    Attributes
    ----------
    version : int or None
        The one version asked for, or None for the model's routes.
    started : float
        Seconds of `time.perf_counter`.
    """

    __slots__ = ("future", "request", "rows", "started", "version")

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        request: str,
        version: int | None,
        started: float,
        future: asyncio.Future[list[Answer]],
    ) -> None:
        self.rows, self.request, self.version, self.started, self.future = rows, request, version, started, future


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
        scored = score_batch(deployments, _batch(jobs, model, now, by_row))
    except Exception as error:
        if len(jobs) == 1:
            return [(jobs[0], error)], []
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
        Counts what was scored; called on the event loop.
    """

    def __init__(
        self,
        model: str,
        deployments: Callable[[int | None], Awaitable[Sequence[Ready]]],
        work: Callable[[Sequence[Job], Sequence[Ready]], tuple[list[Outcome], list[Scored]]],
        count: Callable[[Sequence[Scored]], None],
        executor: Executor,
        *,
        threaded: bool = False,
    ) -> None:
        self.model, self.waiting = model, 0
        self._deployments, self._work, self._count = deployments, work, count
        self._executor, self._threaded = executor, threaded
        self._jobs: deque[Job] = deque()
        self._flying: list[Job] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, job: Job) -> None:
        """Queue a job; its future gets the answers or the error."""
        self._jobs.append(job)
        self.waiting += len(job.rows)
        if self._task is None:
            # The task starts after the requests that are already readable have been parsed: they share its batch.
            self._task = asyncio.get_running_loop().create_task(self._empty())

    def expire(self, before: float) -> None:
        """Refuse the jobs that came before an instant and are not answered."""
        for job in (*self._flying, *self._jobs):
            if job.started < before and not job.future.done():
                job.future.set_exception(
                    Deadline(f"{self.model} did not answer in time", next="try again; the server is busy", model=self.model)
                )

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
                await asyncio.sleep(0)
                await self._run(self._take())
        finally:
            self._task = None

    def _take(self) -> list[Job]:
        first = self._jobs.popleft()
        jobs, rows = [first], len(first.rows)
        while self._jobs and len(jobs) < REQUESTS and rows + len(self._jobs[0].rows) <= ROWS:
            if self._jobs[0].version != first.version:
                break
            jobs.append(self._jobs.popleft())
            rows += len(jobs[-1].rows)
        return jobs

    async def _run(self, taken: list[Job]) -> None:
        self._flying = taken
        rows = sum(len(job.rows) for job in taken)
        jobs = [job for job in taken if not job.future.done()]
        try:
            ready = await self._deployments(taken[0].version)
            if rows > INLINE or self._threaded:
                loop = asyncio.get_running_loop()
                outcomes, scored = await loop.run_in_executor(self._executor, self._work, jobs, ready)
            else:
                outcomes, scored = self._work(jobs, ready)
            self._count(scored)
            for job, outcome in outcomes:
                _answer(job, outcome)
        except Exception as error:
            for job in jobs:
                _answer(job, error)
        finally:
            self.waiting -= rows
            self._flying = []


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
