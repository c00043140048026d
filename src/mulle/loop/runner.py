"""Runs on the engine: telling the records what the engine does, and running one model from a command."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from threading import Event

from mulle.core.errors import Conflict, MulleError, UsageError
from mulle.core.hashing import derived_id
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Cause, Json
from mulle.core.records.deployment import PRODUCTION, STAGING
from mulle.core.records.run import FINAL, Run, RunEvent
from mulle.core.settings import Settings
from mulle.kernel.faults import point
from mulle.loop.engine import Engine, Turns
from mulle.loop.lock import hold
from mulle.loop.operate import enqueue, start_run
from mulle.loop.parts import Parts
from mulle.loop.place import ENGINE, shared_journal, workers_here
from mulle.loop.rollout.route import publish_routes
from mulle.loop.stages import Told
from mulle.loop.steps import Steps
from mulle.loop.tracing import trace_run
from mulle.loop.training.tracked import CatchUp

__all__ = ["Progress", "Recorder", "await_run", "open_engine", "run_model", "work"]

_WAITING = 1000
"""Unfinished runs that are looked for at a start."""

log = logging.getLogger("mulle.runs")

Progress = Callable[[str, str, str, float], None]
"""Told of run, stage (or ``state``), its state and its seconds."""


class Recorder:
    """Writes what the engine tells as run events; each has an id of its own, so telling twice writes once."""

    def __init__(self, parts: Parts, progress: Progress | None = None) -> None:
        self._parts, self._progress = parts, progress
        # A run's record never changes, and all of its stages tell.
        self._record = lru_cache(maxsize=256)(parts.metadata.runs.get)

    def tell(self, run: str, *told: Told) -> None:
        """Note what happened in a run."""
        record = self._record(run)
        events = [self._event(run, record, one) for one in told]
        self._parts.metadata.runs.add_events(*events)
        for one, event in zip(told, events, strict=True):
            if record is not None and self._parts.traces is not None:
                trace_run(self._parts.traces, record, event)
            said = " ".join(filter(None, (one.kind if one.kind == "stage" else "", one.name, one.state, one.reason)))
            about = {"run": run, "model": record.model if record else "", "seconds": one.seconds or None}
            log.info("run %s: %s", run, said, extra=about)
            if self._progress:
                self._progress(run, *((one.name, one.state) if one.kind == "stage" else ("state", one.name)), one.seconds)

    def _event(self, run: str, record: Run | None, told: Told) -> RunEvent:
        now = self._parts.clock.now()
        return RunEvent(
            id=derived_id(record.created_at if record else now, run, told.kind, told.name, told.state),
            run=run,
            at=now,
            kind=told.kind,
            name=told.name,
            state=told.state,
            seconds=told.seconds,
            detail={name: text for name, text in (("reason", told.reason), ("next", told.next)) if text},
        )


@contextmanager
def open_engine(
    parts: Parts,
    *,
    progress: Progress | None = None,
    lag: timedelta | None = None,
    replay: bool = False,
    readers: Mapping[str, SourceReader] | None = None,
    leads: bool = False,
) -> Iterator[Engine]:
    """Start an engine on the home, which first goes on with unfinished and queued runs; close it at the end.

    Parameters
    ----------
    leads : bool
        Whether the loop runs beside it: there is one on a home, however many workers there are.

    Raises
    ------
    Conflict
        When an engine runs on this home whose journal allows for one only, or another loop; names its pid.
    """
    told = None if progress is None else lambda run, said: progress(run, "members", said, 0.0)
    steps = Steps(parts, lag=lag or timedelta(0), replay=replay, readers=readers, told=told)
    catching = CatchUp()
    shared = shared_journal(parts.settings.journal, parts.settings.database)
    engine = Engine(
        parts.settings.home,
        steps.table(),
        Recorder(parts, progress),
        parts.metadata.queue,
        database=shared,
        turns=_turns(parts.settings, bool(shared)),
        stop=lambda run: parts.compute().stop(run),
    )
    with ExitStack() as held:
        if leads and shared:
            held.callback(hold(parts.settings.home / ENGINE).release)
        engine.start()
        try:
            _make_good(parts)
            catching.look(parts)
            yield engine
        finally:
            engine.close()
            catching.stop()
            # What could not be started is nothing to close, and its error has ended the run already.
            with suppress(MulleError):
                parts.compute().close()
            if parts.traces is not None:
                parts.traces.flush()


def _make_good(parts: Parts) -> None:
    """Do what a process that died left undone: the routes may not follow the last deployments, nor the queue the runs."""
    for environment in (PRODUCTION, STAGING):
        if environment == PRODUCTION or parts.metadata.deployments.count(environment):
            publish_routes(parts, environment=environment)
    # A run that was recorded by a process that died before it queued it would wait for ever.
    for state in ("running", "queued"):
        for run in reversed(parts.metadata.runs.list(state=state, limit=_WAITING)):
            enqueue(parts, run)


def work(parts: Parts, stop: Event, ready: Callable[[], None]) -> None:
    """Take runs beside the other workers of the home until told to stop.

    Raises
    ------
    UsageError
        When the home's journal allows for one engine only.
    """
    if not shared_journal(parts.settings.journal, parts.settings.database):
        raise UsageError(
            "workers need records that they can share: this home keeps them in a file",
            next="set MULLE_DATABASE=postgresql://user@host/name, or use `mulle up` alone",
        )
    with open_engine(parts):
        ready()
        stop.wait()


def _turns(settings: Settings, shared: bool) -> Turns:
    if shared:
        return Turns(here=1, everywhere=settings.runs_at_once or None)
    return Turns(here=max(1, settings.runs_at_once))


def run_model(
    parts: Parts,
    model: str,
    *,
    causes: Sequence[Cause],
    options: Json | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run a model once and wait for its end, on an engine of our own or on the one that runs on this home.

    Returns
    -------
    Run
        Its state is in its events.
    """
    run = start_run(parts, model, causes=causes, options=options)
    point("before:submit")
    await_run(parts, run, progress)
    return run


def await_run(parts: Parts, run: Run, progress: Progress | None = None) -> None:
    """Wait for the end of a run that was recorded, on an engine of our own or on those that run on this home.

    Raises
    ------
    Conflict
        When the last engine of the home ends before the run does.
    """
    if not workers_here(parts.settings.home):
        try:
            with open_engine(parts, progress=progress) as engine:
                enqueue(parts, run)
                engine.wait(run.id)
            return
        except Conflict:
            # Another engine was started between the look and the lock; it takes the queued run up.
            pass
    _wait_elsewhere(parts, run.id, progress)


def _wait_elsewhere(parts: Parts, run: str, progress: Progress | None) -> None:
    told = 0
    while True:
        events = parts.metadata.runs.events(run)
        for event in events[told:]:
            if progress and event.kind in ("state", "stage"):
                progress(run, "state" if event.kind == "state" else event.name, event.state or event.name, event.seconds)
        told = len(events)
        if any(e.kind == "state" and e.name in FINAL for e in events):
            return
        if not workers_here(parts.settings.home):
            raise Conflict(
                "the engine that held this home has gone before the run ended",
                next="start it again (`mulle up`), it goes on where it was",
                run=run,
            )
        time.sleep(0.2)
