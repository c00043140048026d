"""Runs on the engine: telling the records what the engine does, and running one model from a command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from mulle.core.errors import Conflict, MulleError
from mulle.core.hashing import derived_id
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Cause, Json
from mulle.core.records.run import Run, RunEvent
from mulle.kernel.faults import point
from mulle.loop.engine import Engine
from mulle.loop.lock import holder
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts
from mulle.loop.route import publish_routes
from mulle.loop.steps import Steps

__all__ = ["FINAL", "Progress", "Recorder", "open_engine", "run_model"]

FINAL = ("succeeded", "rejected", "failed", "cancelled")
"""States that a run does not leave."""

_WAITING = 1000
"""Queued runs that are looked for at a start."""

Progress = Callable[[str, str, str, float], None]
"""Told of run, stage (or ``state``), its state and its seconds."""


class Recorder:
    """Writes what the engine tells as run events; each has an id of its own, so telling twice writes once."""

    def __init__(self, parts: Parts, progress: Progress | None = None) -> None:
        self._parts, self._progress = parts, progress

    def state(self, run: str, state: str, reason: str) -> None:
        """Note a run's new state."""
        self._add(run, "state", state, "", 0.0, {"reason": reason} if reason else {})
        if self._progress:
            self._progress(run, "state", state, 0.0)

    def stage(self, run: str, name: str, state: str, seconds: float) -> None:
        """Note a stage's start or end."""
        self._add(run, "stage", name, state, seconds, {})
        if self._progress:
            self._progress(run, name, state, seconds)

    def _add(self, run: str, kind: str, name: str, state: str, seconds: float, detail: Json) -> None:
        record = self._parts.metadata.runs.get(run)
        made = record.created_at if record else self._parts.clock.now()
        identifier = derived_id(made, run, kind, name, state)
        event = RunEvent(
            id=identifier, run=run, at=self._parts.clock.now(), kind=kind, name=name, state=state, seconds=seconds, detail=detail
        )
        self._parts.metadata.runs.add_event(event)


@contextmanager
def open_engine(
    parts: Parts,
    *,
    progress: Progress | None = None,
    lag: timedelta | None = None,
    replay: bool = False,
    readers: Mapping[str, SourceReader] | None = None,
) -> Iterator[Engine]:
    """Start the home's engine, which first goes on with unfinished and queued runs; close it at the end.

    Raises
    ------
    Conflict
        When an engine runs on this home; names its pid.
    """
    told = None if progress is None else lambda run, said: progress(run, "members", said, 0.0)
    steps = Steps(parts, lag=lag or timedelta(0), replay=replay, readers=readers, told=told)
    engine = Engine(parts.settings.home, steps.table(), Recorder(parts, progress))
    engine.start()
    try:
        publish_routes(parts)
        # A run that was recorded by a process that died before it told the engine would wait for ever.
        for run in reversed(parts.metadata.runs.list(state="queued", limit=_WAITING)):
            engine.submit(run.id)
        yield engine
    finally:
        engine.close()
        # What could not be started is nothing to close, and its error has ended the run already.
        with suppress(MulleError):
            parts.compute().close()


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
    if holder(parts.settings.home / "engine.lock") is None:
        try:
            with open_engine(parts, progress=progress) as engine:
                engine.submit(run.id)
                engine.wait(run.id)
            return run
        except Conflict:
            # Another engine was started between the look and the lock; it takes the queued run up.
            pass
    _wait_elsewhere(parts, run.id, progress)
    return run


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
        if holder(parts.settings.home / "engine.lock") is None:
            raise Conflict(
                "the engine that held this home has gone before the run ended",
                next="start it again (`mulle up`), it goes on where it was",
                run=run,
            )
        time.sleep(0.2)
