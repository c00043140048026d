"""The inference runtime: one handler below every protocol; rows or labels in, logged answers out."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import polars as pl

from mulle.core.clock import Clock, WallClock, duration
from mulle.core.errors import NotFound, Overloaded, TooLarge, Unavailable
from mulle.core.records.bundle import Contract
from mulle.core.settings import Settings
from mulle.kernel.routes import ROUTES
from mulle.lifecycle.serving.batch import Job, Lane, Outcome, settle
from mulle.lifecycle.serving.labels import Remembered, read_labels
from mulle.lifecycle.serving.log import Segment, log_folder
from mulle.lifecycle.serving.progress import lag
from mulle.lifecycle.serving.score import Answer, Ready, Scored
from mulle.lifecycle.serving.shelf import Joiner, Shelf
from mulle.lifecycle.serving.table import Table
from mulle.lifecycle.serving.tally import Tally

__all__ = ["Runtime"]

POLL = 0.1
"""Seconds between looks at the routing table and at waiting requests' deadlines."""


class Runtime:
    """Everything an inference process holds. Its methods belong to the event loop that started it.

    Parameters
    ----------
    settings : Settings
        Resolved; ``clock = "rows"`` makes each row's own time its now (replay).
    joiner : callable
        Makes the reader of a contract's joins.
    clock : Clock, optional
        The wall clock by default.

    Attributes
    ----------
    tally : Tally
    table : Table
    draining : bool
        Set when the process was asked to end: not ready any more, and finishing what it took.
    """

    def __init__(self, settings: Settings, joiner: Joiner, *, clock: Clock | None = None) -> None:
        self.settings, self.tally, self.draining = settings, Tally(), False
        self._clock = clock or WallClock()
        self._by_row = settings.clock == "rows"
        self._deadline = duration(settings.deadline).total_seconds()
        # Opening bundles and scoring large batches must not wait for each other.
        self._openers = ThreadPoolExecutor(1, thread_name_prefix="mulle-open")
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="mulle-score")
        self._shelf = Shelf(joiner)
        self.table = Table(settings.home / ROUTES, self._shelf, self._openers, self._clock, by_row=self._by_row)
        folder = log_folder(settings.home)
        self._predictions = Segment(folder, "predictions", fsync=settings.fsync)
        self._labels = Segment(folder, "labels", fsync=settings.fsync)
        self._remembered = Remembered()
        self._lanes: dict[str, Lane] = {}
        self._told: set[tuple[int, str]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what is routed and begin to watch the routing table."""
        # On a few rows the streaming engine's hand-over between threads costs more than the query.
        pl.Config.set_engine_affinity("in-memory")
        await self.table.refresh()
        self._watch = asyncio.get_running_loop().create_task(self._poll())

    async def stop(self) -> None:
        """Answer what is queued, then let the log go; nothing is answered afterwards."""
        self.draining = True
        await asyncio.gather(*(lane.idle() for lane in self._lanes.values()))
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        self._predictions.close()
        self._labels.close()
        self._openers.shutdown(cancel_futures=True)
        self._workers.shutdown()

    def submit(
        self, model: str, rows: Sequence[Mapping[str, Any]], request: str, version: int | None, started: float
    ) -> asyncio.Future[list[Answer]]:
        """Queue rows for a model.

        Parameters
        ----------
        rows : sequence of mapping
            At least one; raw columns.
        request : str
            The request's id, unique.
        version : int or None
            One version, or the model's routes.
        started : float
            When the request came, `time.perf_counter`.

        Returns
        -------
        future of list of Answer
            In the rows' order. Logged before it is set.

        Raises
        ------
        NotFound
            No such model or version.
        TooLarge
            More rows than one request may have.
        Overloaded
            The queue is full; facts name ``retry_after`` in seconds.
        """
        lane = self._lanes.get(model)
        if lane is None or model not in self.table:
            lane = self._lane(model)
        if version is not None:
            self.table.route_of(model, version)
        if len(rows) > self.settings.max_rows:
            raise TooLarge(f"{len(rows)} rows in one request, at most {self.settings.max_rows}", next="split them", model=model)
        waiting = self.waiting()
        if waiting and waiting + len(rows) > self.settings.max_queue:
            raise Overloaded(
                f"{waiting} rows are waiting, the most is {self.settings.max_queue}",
                next="try again after the time named", model=model, retry_after=1,
            )  # fmt: skip
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        lane.submit(Job(rows, request, version, started, future))
        return future

    def waiting(self) -> int:
        """Return the rows that are queued or being scored."""
        return sum([lane.waiting for lane in self._lanes.values() if lane.waiting])

    def label(self, body: object, by: str = "") -> dict[str, object]:
        """Take late labels; they are logged before this returns.

        Returns
        -------
        dict
            ``accepted``, ``duplicates`` and ``unknown``, as the surface answers.

        Raises
        ------
        Malformed, ContractError
            None of the labels is taken.
        LogNotWritable
        """
        receipt = read_labels(
            body, now=self._clock.now(), known=self.table.__contains__, columns=self._key, remembered=self._remembered,
            most=self.settings.max_rows, by=by,
        )  # fmt: skip
        if self._by_row:
            receipt = replace(receipt, labels=[replace(label, created_at=label.known_at) for label in receipt.labels])
        records = receipt.records()
        if records:
            self._labels.write(records)
        self._remembered.add(receipt.labels)
        answer = {"accepted": len(receipt.labels), "duplicates": receipt.duplicates, "unknown": receipt.unknown}
        self.tally.labels.update(accepted=len(receipt.labels), duplicates=receipt.duplicates, unknown=len(receipt.unknown))
        return answer

    async def contract(self, model: str, version: int | None = None) -> tuple[int, Contract]:
        """Return the answering version's number and contract, loading it when needed.

        Raises
        ------
        NotFound, Unavailable
        """
        ready = self._current(await self.table.deployments(model, version))
        if ready is None:
            raise Unavailable(f"no version of {model} answers yet", next="deploy one: `mulle deploy`", model=model)
        return ready.loaded[0].version, ready.loaded[0].contract

    def ready(self) -> bool:
        """Tell whether requests should come here: routes read, every eagerly loaded model answers, not ending."""
        return not self.draining and self.table.generation >= 0 and "" not in self.table.problems

    def routes(self, model: str) -> dict[str, object]:
        """Describe a model: the versions in force, those loaded, and what stands in the way."""
        current = self._current(self.table.ready(model))
        problem = self.table.problems.get(model)
        return {
            "model": model,
            "deployment": current.id if current else None,
            "in_force": [{"version": r.version, "share": r.share, "mode": r.mode} for r in current.routes] if current else [],
            "loaded": self.table.versions(model),
            "problem": problem.problem() if problem else None,
        }

    def log_lag(self) -> float:
        """Return the age in seconds of what is in this worker's log and not yet in the lake."""
        segment = self._predictions
        return lag(log_folder(self.settings.home), segment.path, segment.offset, segment.first_write, time.time())

    def _current(self, deployments: Sequence[Ready]) -> Ready | None:
        if self._by_row:
            return deployments[-1] if deployments else None
        now = self._clock.now()
        return next((r for r in reversed(deployments) if r.effective_at <= now), None)

    def _key(self, model: str) -> tuple[str, ...]:
        ready = self.table.ready(model)
        return ready[-1].loaded[0].contract.key if ready else ()

    def _lane(self, model: str) -> Lane:
        if model not in self.table:
            raise NotFound(f"no model '{model}' is deployed here", next="GET /v1/models lists what is", model=model)

        def work(jobs: Sequence[Job], ready: Sequence[Ready]) -> tuple[list[Outcome], list[Scored]]:
            return self._work(model, jobs, ready)

        async def deployments(version: int | None) -> Sequence[Ready]:
            return await self.table.deployments(model, version)

        lane = Lane(model, deployments, work, lambda scored: self._count(model, scored), self._workers,
                    threaded=self.settings.fsync)  # fmt: skip
        self._lanes[model] = lane
        return lane

    def _work(self, model: str, jobs: Sequence[Job], ready: Sequence[Ready]) -> tuple[list[Outcome], list[Scored]]:
        if not jobs:
            return [], []
        outcomes, scored = settle(jobs, ready, model=model, now=self._clock.now(), by_row=self._by_row)
        records = [record for part in scored for record in part.records]
        if records:
            self._predictions.write(records)
        return outcomes, scored

    def _count(self, model: str, scored: Sequence[Scored]) -> None:
        tally = self.tally
        for part in scored:
            for version, route, count in part.rows:
                tally.rows[(model, str(version), route)] += count
            for feature in part.unseen:
                tally.unseen[(model, feature)] += 1
            for version, error in part.faults:
                tally.faults[(model, str(version))] += 1
                if (version, model) not in self._told:
                    self._told.add((version, model))
                    print(f"mulle: challenger {model}@{version} fails: {error.detail}", file=sys.stderr, flush=True)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            before = time.perf_counter() - self._deadline
            for lane in tuple(self._lanes.values()):
                if lane.waiting:
                    lane.expire(before)
            try:
                await self.table.refresh()
            except Exception as error:
                # The watch outlives whatever one table brings; what is in service stays.
                print(f"mulle: routes not taken up: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
