"""The inference runtime: one handler below every protocol; rows or labels in, logged answers out."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from mulle.core.clock import Clock, WallClock, duration
from mulle.core.declare.fleet import fleet_of
from mulle.core.errors import LogNotWritable, MulleError, NotFound, Overloaded, TooLarge, Unavailable
from mulle.core.ports.traces import Traces
from mulle.core.records.bundle import Contract
from mulle.core.settings import Settings
from mulle.kernel.routes import ROUTES
from mulle.kernel.worker import Worker
from mulle.lifecycle.serving.batch import Gone, Job, Lane, Outcome, Waiting, settle
from mulle.lifecycle.serving.explain import Explaining
from mulle.lifecycle.serving.fleet import spread
from mulle.lifecycle.serving.labels import Remembered, read_labels
from mulle.lifecycle.serving.log import Segment, log_folder
from mulle.lifecycle.serving.logged import TurnedAway, refused_record
from mulle.lifecycle.serving.peers import Peers
from mulle.lifecycle.serving.progress import lag
from mulle.lifecycle.serving.score import Answer, Ready, Scored
from mulle.lifecycle.serving.shadow import CALM, Shadows
from mulle.lifecycle.serving.shelf import Joiner, Shelf
from mulle.lifecycle.serving.table import Table
from mulle.lifecycle.serving.tally import Tally

__all__ = ["Runtime"]

POLL = 0.1
"""Seconds between looks at the routing table and at waiting requests' deadlines."""

TELLS = 1.0
"""Seconds after which the other workers are told what this one counted."""

_GIVES_WAY = 0.0005


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
    traces : Traces or None
        Where the spans of requests go.
    draining : bool
        Set when the process was asked to end: not ready any more, and finishing what it took.
    """

    def __init__(self, settings: Settings, joiner: Joiner, *, clock: Clock | None = None) -> None:
        self.settings, self.tally, self.draining = settings, Tally(), False
        self._clock = clock or WallClock()
        self._by_row = settings.clock == "rows"
        self._deadline = duration(settings.deadline).total_seconds()
        # Opening bundles, scoring what is large or slow, and scoring shadows must not wait for each other.
        self._openers = ThreadPoolExecutor(2, thread_name_prefix="mulle-open")
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="mulle-score")
        self._natives = ThreadPoolExecutor(2, thread_name_prefix="mulle-native")
        self._child = Worker(seconds=self._deadline, memory=settings.child_memory)
        self.explaining = Explaining(seconds=self._deadline, memory=settings.child_memory)
        self.table = Table(
            settings.serving / ROUTES,
            Shelf(joiner, self._child),
            self._openers,
            self._clock,
            by_row=self._by_row,
            most=settings.max_memory,
        )
        folder = log_folder(settings.serving)
        self._predictions = Segment(folder, "predictions", fsync=settings.fsync)
        self._labels = Segment(folder, "labels", fsync=settings.fsync)
        self._shadows = Shadows(self._predictions, self._count)
        self._remembered = Remembered()
        self._lanes: dict[str, Lane] = {}
        self._waiting = Waiting()
        self.turned_away = TurnedAway(self._predictions, self._clock)
        self._told: set[tuple[int, str]] = set()
        self._watches: list[asyncio.Task[None]] = []
        self._peers: Peers | None = None
        self.traces: Traces | None = None

    async def start(self) -> None:
        """Load what is routed and begin to watch the routing table."""
        # On a few rows the streaming engine's hand-over between threads costs more than the query.
        pl.Config.set_engine_affinity("in-memory")
        # A thread that opens a bundle or scores a shadow gives way to the event loop sooner than Python's five milliseconds.
        sys.setswitchinterval(_GIVES_WAY)
        await self.table.refresh()
        self._tell()
        loop = asyncio.get_running_loop()
        # Two, for bundles may take their time to open and deadlines do not wait for them.
        self._watches = [loop.create_task(self._poll()), loop.create_task(self._follow())]

    async def stop(self) -> None:
        """Answer what is queued, then let the log go; nothing is answered afterwards."""
        self.draining = True
        with suppress(TimeoutError):
            # After the deadline every request has its answer; what still runs is a child that nobody waits for.
            async with asyncio.timeout(self._deadline):
                await asyncio.gather(*(lane.idle() for lane in tuple(self._waiting.lanes)))
        await self._shadows.idle()
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._tell()
        self._predictions.close()
        self._labels.close()
        self._openers.shutdown(cancel_futures=True)
        self._workers.shutdown()
        self._child.close()
        self._natives.shutdown(cancel_futures=True)
        self.explaining.close()

    def submit(
        self,
        model: str,
        rows: Sequence[Mapping[str, Any]],
        request: str,
        version: int | None,
        started: float,
        gone: Gone | None = None,
    ) -> asyncio.Future[list[Answer]]:
        """Queue rows for a model, or for the members of a fleet.

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
        gone : callable, optional
            Returns when the client has left; it is asked only of requests that wait long.

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
            The queue is full, or what waits in it takes longer than the deadline allows; facts name ``retry_after`` in
            seconds.
        """
        lane = self._lanes.get(model)
        if lane is None or model not in self.table:
            lane = self._lane(model)
        if version is not None:
            self.table.route_of(model, version)
        if len(rows) > self.settings.most_rows:
            raise TooLarge(f"{len(rows)} rows in one request, at most {self.settings.most_rows}", next="split them", model=model)
        if self._waiting.rows:
            self.admit(model, len(rows))
        each = None if version is not None else self.table.each(model)
        loop = asyncio.get_running_loop()
        if each is not None:
            return spread(
                rows, each, model, self.table, loop,
                lambda name, part, n, held: self._queued(
                    name, Job(part, f"{request}-{n}" if n else request, None, started, loop.create_future(), gone, held)
                ),
                lambda records: loop.run_in_executor(self._workers, self._log, model, records, len(rows)),
            )  # fmt: skip
        job = Job(rows, request, version, started, loop.create_future(), gone)
        lane.submit(job)
        return job.future

    def _queued(self, model: str, job: Job) -> asyncio.Future[list[Answer]]:
        (self._lanes.get(model) or self._lane(model)).submit(job)
        return job.future

    def admit(self, model: str, rows: int) -> None:
        """Refuse rows that would wait too long.

        Raises
        ------
        Overloaded
        """
        waiting = self._waiting
        full = waiting.rows + rows > self.settings.max_queue
        if waiting.rows and (full or waiting.seconds > self._deadline / 2):
            said = f"{waiting.rows} rows are waiting, the most is {self.settings.max_queue}"
            if not full:
                said = f"{waiting.rows} rows are waiting, which takes about {waiting.seconds:.1f} s"
            raise Overloaded(
                said, next="try again after the time named", model=model, retry_after=max(1, math.ceil(waiting.seconds))
            )

    async def explain(self, model: str, rows: Sequence[Mapping[str, Any]], answers: list[Answer], started: float) -> None:
        """Add what each feature did to answers that were given; see `Explaining.add`."""
        await self.explaining.add(self.table, model, rows, answers, now=self._clock.now(), started=started)

    def among(self, peers: Peers) -> None:
        """Be one of several workers that count together; called before `start`."""
        self._peers = peers
        self.tally.add(peers.before())

    def counted(self) -> Tally:
        """Return the counters of all workers of this server; those of others are up to a second old."""
        return self.tally if self._peers is None else self._peers.counted(self.tally)

    def waiting(self) -> int:
        """Return the rows that are queued or being scored, in all workers."""
        own = self._waiting.rows
        return own if self._peers is None else int(self._peers.gauge("waiting", own, sum))

    def generation(self) -> int:
        """Return the routing table that is in force in every worker."""
        own = self.table.generation
        return own if self._peers is None else int(self._peers.gauge("generation", own, min))

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
            most=self.settings.max_rows, by=by, hidden=lambda name: self.table.log(name).redact,
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
        """Return the age in seconds of what is in the workers' logs and not yet in the lake."""
        own = self._own_lag()
        return own if self._peers is None else self._peers.gauge("lag", own, max)

    def _own_lag(self) -> float:
        segment = self._predictions
        return lag(log_folder(self.settings.serving), segment.path, segment.offset, segment.first_write, time.time())

    def _tell(self) -> None:
        self.turned_away.write()
        if self._peers is not None:
            own = {"waiting": self._waiting.rows, "lag": self._own_lag(), "generation": self.table.generation}
            with suppress(MulleError):  # a full disk is told by the log
                self._peers.tell(self.tally, **own)

    def _current(self, deployments: Sequence[Ready]) -> Ready | None:
        if self._by_row:
            return deployments[-1] if deployments else None
        now = self._clock.now()
        return next((r for r in reversed(deployments) if r.effective_at <= now), None)

    def _key(self, model: str) -> tuple[str, ...]:
        # A member that was not asked for yet has its fleet's key.
        ready = self.table.ready(model) or self.table.ready(fleet_of(model))
        return ready[-1].loaded[0].contract.key if ready else ()

    def _lane(self, model: str) -> Lane:
        if model not in self.table:
            raise NotFound(f"no model '{model}' is deployed here", next="GET /v1/models lists what is", model=model)

        def count(scored: Sequence[Scored]) -> None:
            self._count(model, scored)
            for part in scored:
                for shadow in part.later:
                    if not self._shadows.take(model, shadow, busy=self._waiting.rows > CALM):
                        self.tally.dropped[(model, str(shadow.route.version))] += len(shadow.batch.rows)

        deployments, work = partial(self.table.deployments, model), partial(self._work, model)
        lane = Lane(model, deployments, work, count, self._workers, self._waiting, self._natives, self.turned_away,
                    threaded=self.settings.fsync, patience=self._deadline)  # fmt: skip
        self._lanes[model] = lane
        return lane

    def _work(self, model: str, jobs: Sequence[Job], ready: Sequence[Ready]) -> tuple[list[Outcome], list[Scored]]:
        if not jobs:
            return [], []
        now = self._clock.now()
        outcomes, scored = settle(jobs, ready, model=model, now=now, by_row=self._by_row)
        records = [record for part in scored for record in part.records]
        refused = [(job.request, job.started, job.version, told) for job, told in outcomes if isinstance(told, Exception)]
        if told := refused_record(model, refused, [fault for part in scored for fault in part.faults], now=now):
            records.append(told)
        if jobs[0].held is not None and not refused:
            jobs[0].held += records
        elif records:
            self._log(model, records, sum(count for part in scored for _, _, count in part.rows))
        return outcomes, scored

    def _log(self, model: str, records: list[bytes], rows: int) -> None:
        try:
            self._predictions.write(records)
        except LogNotWritable:
            if self.settings.must_log:
                raise
            self.tally.unlogged[model] += rows

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
        told = 0.0
        while True:
            await asyncio.sleep(POLL)
            now = time.perf_counter()
            for lane in tuple(self._waiting.lanes):
                lane.expire(now)
            if now - told > TELLS:
                self._tell()
                told = now

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            try:
                if await self.table.refresh():
                    self._tell()
            except Exception as error:
                # The watch outlives whatever one table brings; what is in service stays.
                print(f"mulle: routes not taken up: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
