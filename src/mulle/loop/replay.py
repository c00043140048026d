"""The loop on history: a project's past played through the real server, log, windows, alarms, runs and rollouts.

The replay clock drives schedules, ticks and holds. Data is loaded ahead by the week (the rule of `known_at` decides what
a row may see), every tick of a history is materialised before a row at or after it is sent, and what a tick decides
holds from a declared lag later, so that requests keep flowing while the loop thinks and versions switch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mulle.core.clock import ReplayClock, rfc3339
from mulle.core.declare.model import Model
from mulle.core.errors import Refused
from mulle.core.records.base import Cause, Json
from mulle.core.records.dataset import DatasetVersion, Quarantine
from mulle.core.records.run import Run, run_state
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.engine import Engine
from mulle.loop.history import Injected, Past, micros, read_past
from mulle.loop.ingest import ingest, needed
from mulle.loop.online import refresh_online
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts
from mulle.loop.runner import open_engine
from mulle.loop.score import summarise
from mulle.loop.server import free_port, inference_server
from mulle.loop.tick import tick
from mulle.loop.traffic import Event, Traffic

__all__ = ["Drill", "ReplayOptions", "Said", "replay"]

Said = Callable[[Json], None]
"""Told what happens: ``kind``, ``at``, ``text``, and the counts so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """Something bad thrown in on purpose: ``bad_batch`` or ``shuffled_targets``; the loop must hold it back."""

    kind: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How a past is played.

    Attributes
    ----------
    start, end : datetime
        The first instant asked about, and the first that is not. What was known at `start` trains the first model.
    connections : int
        Requests in flight, at most.
    step : timedelta
        Between two looks of the loop.
    lag : timedelta
        From a look until what it decided holds.
    ahead : timedelta
        How far data is loaded in one go.
    score_from : datetime, optional
        The headline score covers rows from here; defaults to `start`.
    drills : tuple of Drill
    """

    start: datetime
    end: datetime
    connections: int = 8
    step: timedelta = timedelta(days=1)
    lag: timedelta = timedelta(hours=6)
    ahead: timedelta = timedelta(days=7)
    score_from: datetime | None = None
    drills: tuple[Drill, ...] = ()


@dataclass(slots=True)
class _State:
    """Where a replay stands."""

    loaded: datetime
    drills: list[Drill]
    pending: Run | None = None
    ready: datetime | None = None
    run_seconds: float = 4.0
    compute_seconds: float = 0.0
    stages: list[Json] = field(default_factory=list)


def replay(parts: Parts, name: str, options: ReplayOptions, said: Said) -> Json:
    """Play a model's past and give the account of it.

    Parameters
    ----------
    parts : Parts
        Of a home of its own, with a `ReplayClock`.
    name : str
        The model.
    options : ReplayOptions
    said : callable
        Told of progress.

    Returns
    -------
    dict
        See `loop.score.summarise`; plus ``seconds``, ``requests``, ``failed_requests``, ``label_requests``.

    Raises
    ------
    Refused
        When the first model does not pass its own gates.
    """
    began = time.perf_counter()
    model = parts.project.model(name)
    past = read_past(parts, model)
    history = parts.metadata.runs.list(name, limit=1)
    if history:
        raise Refused(
            f"{parts.settings.home} holds a history already",
            next="name another home, or remove it",
            home=str(parts.settings.home),
        )
    readers = {d.name: parts.playback(past.frames[d.name], d.available) for d in needed(model)}
    with open_engine(parts, lag=options.lag + model.retrain.takes, replay=True, readers=readers) as engine:
        state = _State(loaded=options.start, drills=sorted(options.drills, key=lambda d: d.at))
        first = _first_model(parts, engine, model, past, options, said)
        settings = replace(parts.settings, clock="rows", inference_port=free_port(parts.settings.host))
        with inference_server(settings):
            traffic = _played(parts, engine, past, options, state, said, settings.inference_port)
    drain(log_folder(parts.settings.home), parts.lake, now=parts.clock.now())
    account = summarise(parts, model, frozen=first, start=options.start, end=options.end, score_from=options.score_from)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "requests": traffic["predictions"],
        "failed_requests": traffic["failed"],
        "failures": traffic["reasons"],
        "label_requests": traffic["labels"],
        "connections": options.connections,
        "compute_seconds": round(state.compute_seconds, 2),
        **account,
    }


def _first_model(parts: Parts, engine: Engine, model: Model, past: Past, options: ReplayOptions, said: Said) -> int:
    cause = Cause(type="replay", id=model.name, why=f"replay from {rfc3339(options.start)}: a first model on what was known then")
    _load(parts, past, options.start, cause)
    said({"kind": "run", "at": rfc3339(options.start), "text": f"training the first {model.name} on what was known by then"})
    run = start_run(parts, model.name, causes=(cause,), options={"rollout": "immediate", "first": True})
    engine.submit(run.id)
    _finished(parts, engine, run)
    version = parts.metadata.models.of_run(run.id)
    if version is None:
        events = parts.metadata.runs.events(run.id)
        reasons = "; ".join(str(e.detail["reason"]) for e in events if e.detail.get("reason"))
        raise Refused(f"the first {model.name} did not pass: {reasons}", next=f"see `mulle runs show {run.id}`", run=run.id)
    return version.version


def _played(parts: Parts, engine: Engine, past: Past, options: ReplayOptions, state: _State, said: Said, port: int) -> Json:
    traffic = Traffic(parts.settings.host, port, connections=options.connections)
    traffic.start()
    try:
        _look_ahead(parts, past, state, options, options.start + options.step)
        traffic.add(_events(past, options.start, options.start + options.step, options))
        for moment in _moments(options):
            # Everything before this instant is answered; what follows flows on while the loop looks back.
            _settle(parts, engine, state, traffic, said)
            traffic.allow(micros(moment))
            traffic.wait_answered(micros(moment))
            _look_ahead(parts, past, state, options, moment + options.step)
            traffic.add(_events(past, moment, moment + options.step, options))
            traffic.allow(micros(min(moment + options.lag, options.end)))
            assert isinstance(parts.clock, ReplayClock)
            parts.clock.advance(moment)
            _look(parts, engine, past, options, state, traffic, said)
        _settle(parts, engine, state, traffic, said)
        traffic.allow(micros(options.end + timedelta(days=3650)))
        traffic.wait_answered(micros(options.end + timedelta(days=3650)))
    finally:
        traffic.close()
    tally = traffic.tally
    return {"predictions": tally.predictions, "labels": tally.labels, "failed": tally.failed, "reasons": tally.reasons}


def _look(parts: Parts, engine: Engine, past: Past, options: ReplayOptions, state: _State, traffic: Traffic, said: Said) -> None:
    now, model = parts.clock.now(), past.model
    folder = log_folder(parts.settings.home)
    busy = frozenset() if state.pending is None else frozenset({model.name})
    seen = tick(parts, drain=lambda: drain(folder, parts.lake, now=now), effective_at=now + options.lag, busy=busy)
    counts = {"requests": traffic.tally.predictions, "failed": traffic.tally.failed}
    said({"kind": "tick", "at": rfc3339(now), "text": "", **counts})
    for kind, _, text in seen.happenings:
        said({"kind": kind, "at": rfc3339(now), "text": text, **counts})
    wanted: tuple[tuple[str, Cause, Json], ...] = tuple((m, c, {}) for m, c in seen.wanted)
    for name, cause, extra in (*_drills(parts, past, state, now, said), *wanted):
        if state.pending is None:
            _begin(parts, engine, state, options, model, name, cause, extra)
            said({"kind": "run", "at": rfc3339(now), "text": f"run of {name}: {cause.why}", **counts})
            # The span until the version may serve is spread over about the time that a run takes.
            assert state.ready is not None
            rows = max(1, len(past.requests(now + options.lag, state.ready)))
            traffic.allow(micros(min(state.ready, now + options.step)), pause=0.8 * state.run_seconds / rows)


def _begin(
    parts: Parts, engine: Engine, state: _State, options: ReplayOptions, model: Model, name: str, cause: Cause, extra: Json
) -> None:
    run = start_run(parts, name, causes=(cause,), options=extra)
    state.pending, state.ready = run, run.created_at + options.lag + model.retrain.takes
    engine.submit(run.id)


def _settle(parts: Parts, engine: Engine, state: _State, traffic: Traffic, said: Said) -> None:
    """Wait for the run under way: nothing from when its version may serve is sent before its verdict is known."""
    if state.pending is None or state.ready is None:
        return
    run = state.pending
    began = time.perf_counter()
    _finished(parts, engine, run)
    state.run_seconds = max(0.5, time.perf_counter() - began)
    events = parts.metadata.runs.events(run.id)
    state.compute_seconds += sum(e.seconds for e in events)
    reasons = "; ".join(str(e.detail["reason"]) for e in events if e.detail.get("reason"))
    made = parts.metadata.models.of_run(run.id)
    text = f"{run.model}@{made.version} passed its gates" if made else f"held back: {reasons}"
    said(
        {
            "kind": "verdict",
            "at": rfc3339(state.ready),
            "text": text,
            "requests": traffic.tally.predictions,
            "failed": traffic.tally.failed,
        }
    )
    state.pending = state.ready = None
    traffic.allow(0, pause=0.0)


def _drills(parts: Parts, past: Past, state: _State, now: datetime, said: Said) -> Iterator[tuple[str, Cause, Json]]:
    for drill in [d for d in state.drills if d.at <= now]:
        if drill.kind == "bad_batch":
            _throw_bad_batch(parts, past, now, said)
            state.drills.remove(drill)
        elif state.pending is None:
            cause = Cause(type="drill", id="shuffled_targets", why="drill: a challenger trained on shuffled targets is thrown in")
            state.drills.remove(drill)
            yield past.model.name, cause, {"drill": "shuffled_targets"}


def _throw_bad_batch(parts: Parts, past: Past, now: datetime, said: Said) -> None:
    dataset = past.model.features.dataset
    cause = Cause(type="drill", id="bad_batch", why="drill: a batch with an unknown code and an impossible number is thrown in")
    done = ingest(parts, dataset, now=now, causes=(cause,), reader=Injected(past.bad_batch(now), "drill"))
    if isinstance(done, Quarantine):
        failed = ", ".join(f"{c.name} ({c.failed} rows)" for c in done.checks if c.verdict == "fail")
        said({"kind": "quarantine", "at": rfc3339(now), "text": f"bad batch of {done.rows} {dataset.name} held back by {failed}"})


def _finished(parts: Parts, engine: Engine, run: Run) -> str:
    state = engine.wait(run.id)
    if state == "failed":
        events = parts.metadata.runs.events(run.id)
        reasons = "; ".join(str(e.detail["reason"]) for e in events if e.detail.get("reason"))
        raise Refused(f"run {run.id} failed: {reasons}", next=f"see `mulle runs show {run.id}`", run=run.id)
    return run_state(parts.metadata.runs.events(run.id))


def _look_ahead(parts: Parts, past: Past, state: _State, options: ReplayOptions, until: datetime) -> None:
    """Load and materialise what the rows before `until` may read; a week at a time."""
    if until <= state.loaded:
        return
    # A run under way reads the versions that are published now; it must be through before there are others.
    target = max(until, state.loaded + options.ahead)
    cause = Cause(type="replay", id=rfc3339(state.loaded), why=f"rows known by {rfc3339(target)}")
    _load(parts, past, target, cause)
    refresh_online(parts, parts.clock.now(), until=target)
    state.loaded = target


def _load(parts: Parts, past: Past, until: datetime, cause: Cause) -> None:
    for dataset in needed(past.model):
        done = ingest(
            parts,
            dataset,
            now=parts.clock.now(),
            causes=(cause,),
            until=until,
            reader=parts.playback(past.frames[dataset.name], dataset.available),
        )
        if isinstance(done, Quarantine):
            failed = ", ".join(c.name for c in done.checks if c.verdict == "fail")
            raise Refused(
                f"replay: real rows of {dataset.name} failed {failed}", next="mend the checks or the data", dataset=dataset.name
            )
        assert done is None or isinstance(done, DatasetVersion)


def _events(past: Past, start: datetime, end: datetime, options: ReplayOptions) -> list[Event]:
    end = min(end, options.end)
    if start >= end:
        return []
    events = [*past.requests(start, end), *past.labels(start, end, options.start)]
    return sorted(events, key=lambda e: e.at)


def _moments(options: ReplayOptions) -> Iterator[datetime]:
    moment = options.start + options.step
    while moment <= options.end:
        yield moment
        moment += options.step
