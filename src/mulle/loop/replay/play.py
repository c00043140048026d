"""The loop on history: a project's past played through the real server, log, windows, alarms, runs and rollouts.

The replay clock drives schedules, ticks and holds. Data is loaded ahead by the week (the rule of `known_at` decides what
a row may see), every tick of a history is materialised before a row at or after it is sent, and what a tick decides
holds from a declared lag later, so that requests keep flowing while the loop thinks and versions switch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from mulle.core.clock import ReplayClock, rfc3339
from mulle.core.errors import Refused
from mulle.core.records.base import Cause, Json
from mulle.core.records.dataset import Quarantine
from mulle.core.records.run import Run
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.data.ingest import ingest, needed
from mulle.loop.data.online import refresh_online
from mulle.loop.engine import Engine
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts
from mulle.loop.replay.history import Injected, Past, micros, read_past
from mulle.loop.replay.policy import DECLARED, Policy, unhurried
from mulle.loop.replay.score import summarise
from mulle.loop.replay.traffic import Event, Tally, Traffic
from mulle.loop.rollout.route import routes_written
from mulle.loop.runner import open_engine
from mulle.loop.server import InferenceServer, free_port, inference_server
from mulle.loop.steps import UNGATED
from mulle.loop.tick import tick

__all__ = ["Drill", "ReplayOptions", "Said", "replay"]

Said = Callable[[Json], None]
"""Told what happens: ``kind``, ``at``, ``text``, and the counts so far."""

_FAR = timedelta(days=3650)


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
    policy : Policy
        When the model is trained again; the parts' project holds what it changes of the declaration.
    """

    start: datetime
    end: datetime
    connections: int = 8
    step: timedelta = timedelta(days=1)
    lag: timedelta = timedelta(hours=6)
    ahead: timedelta = timedelta(days=7)
    score_from: datetime | None = None
    drills: tuple[Drill, ...] = ()
    policy: Policy = DECLARED


def replay(parts: Parts, name: str, options: ReplayOptions, said: Said, past: Past | None = None) -> Json:
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
    past : Past, optional
        What the sources hold, where it was read already.

    Returns
    -------
    dict
        See `loop.score.summarise`; plus ``seconds``, ``requests``, ``failed_requests``, ``label_requests``, ``compute_seconds``
        (of the runs' steps, by the clock) and ``cpu_seconds`` (what the compute processes took for them).

    Raises
    ------
    Refused
        When the home holds a history already, or the first model does not pass its own gates.
    """
    began = time.perf_counter()
    parts = replace(parts, project=unhurried(parts.project, name))
    model = parts.project.model(name)
    home = parts.settings.home
    if parts.metadata.runs.list(name, limit=1):
        raise Refused(f"{home} holds a history already", next="name another home, or remove it", home=str(home))
    past = replace(past, model=model) if past else read_past(parts, model)
    readers = {d.name: past.reader(parts, d) for d in needed(model)}
    with open_engine(parts, lag=options.lag + model.retrain.takes, replay=True, readers=readers) as engine:
        play = _Play(parts, engine, past, options, said)
        first = play.first_model()
        port = free_port("127.0.0.1")
        settings = replace(parts.settings, clock="rows", host="127.0.0.1", inference_port=port, grpc_port=0)
        with inference_server(settings) as server:
            tally = play.through(server)
    drain(log_folder(home), parts.lake, now=parts.clock.now())
    account = summarise(parts, model, frozen=first, start=options.start, end=options.end, score_from=options.score_from)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "requests": tally.predictions,
        "failed_requests": tally.failed,
        "failures": tally.reasons,
        "label_requests": tally.labels,
        "connections": options.connections,
        "compute_seconds": round(sum(run["seconds"] for run in account["runs"]), 2),
        "cpu_seconds": None if play.cpu is None else round(play.cpu, 2),
        **account,
    }


class _Play:
    """A replay under way."""

    def __init__(self, parts: Parts, engine: Engine, past: Past, options: ReplayOptions, said: Said) -> None:
        self._parts, self._engine, self._past, self._options, self._said = parts, engine, past, options, said
        self._model = past.model
        self._loaded = self._trained = options.start
        self._drills = sorted(options.drills, key=lambda d: d.at)
        self._pending: tuple[Run, datetime] | None = None
        self._run_seconds = 4.0
        self._tally = Tally()
        self.cpu: float | None = 0.0
        self._used: float | None = None

    def first_model(self) -> int:
        """Train and deploy what will be frozen beside the loop; return its version."""
        parts, start = self._parts, self._options.start
        cause = Cause(
            type="replay", id=self._model.name, why=f"replay from {rfc3339(start)}: a first model on what was known then"
        )
        self._load(start, cause)
        self._tell("run", start, f"training the first {self._model.name} on what was known by then")
        self._used = self._taken()
        run = start_run(parts, self._model.name, causes=(cause,), options={"rollout": "immediate", "first": True})
        self._engine.submit(run.id)
        reason = self._finish(run)
        version = parts.metadata.models.of_run(run.id)
        if version is None:
            raise Refused(
                f"the first {self._model.name} did not pass: {reason}", next=f"see `mulle runs show {run.id}`", run=run.id
            )
        return version.version

    def through(self, server: InferenceServer) -> Tally:
        """Play from start to end against a running server."""
        options, traffic = self._options, Traffic(*server.address, connections=self._options.connections)
        self._tally = traffic.tally
        traffic.start()
        try:
            self._look_ahead(options.start + options.step)
            traffic.add(self._events(options.start, options.start + options.step))
            for moment in _moments(options):
                # Everything before this instant is answered; what follows flows on while the loop looks back.
                self._settle(traffic, server)
                traffic.allow(micros(moment))
                self._look_ahead(moment + options.step)
                traffic.add(self._events(moment, moment + options.step))
                traffic.wait_answered(micros(moment))
                traffic.allow(micros(min(moment + options.lag, options.end)))
                assert isinstance(self._parts.clock, ReplayClock)
                self._parts.clock.advance(moment)
                self._look(traffic, server)
            self._settle(traffic, server)
            traffic.allow(micros(options.end + _FAR))
            traffic.wait_answered(micros(options.end + _FAR))
        finally:
            traffic.close()
        return traffic.tally

    def _look(self, traffic: Traffic, server: InferenceServer) -> None:
        parts, options, now = self._parts, self._options, self._parts.clock.now()
        folder = log_folder(parts.settings.home)
        busy = frozenset({self._model.name} if self._pending else ())
        seen = tick(parts, drain=lambda: drain(folder, parts.lake, now=now), effective_at=now + options.lag, busy=busy)
        self._tell("tick", now, "")
        for kind, _, text in seen.happenings:
            self._tell(kind, now, text)
        server.wait_routes(routes_written(parts))
        wanted: list[tuple[Cause, Json]] = [(cause, {}) for model, cause in seen.wanted if model == self._model.name]
        wanted += self._window_ended(now)
        for cause, extra in (*self._due_drills(now), *wanted):
            if self._pending is None:
                self._begin(cause, extra, traffic)

    def _window_ended(self, now: datetime) -> list[tuple[Cause, Json]]:
        window = self._model.monitor.longest
        if not self._options.policy.every_window or now - self._trained < window:
            return []
        self._trained = self._options.start + (now - self._options.start) // window * window
        why = f"policy {self._options.policy.name}: a window of {window.total_seconds() / 86400:g} days ended"
        return [(Cause(type="replay", id=self._options.policy.name, why=why), {"rollout": "immediate", UNGATED: True})]

    def _begin(self, cause: Cause, extra: Json, traffic: Traffic) -> None:
        now, options = self._parts.clock.now(), self._options
        run = start_run(self._parts, self._model.name, causes=(cause,), options=extra)
        ready = run.created_at + options.lag + self._model.retrain.takes
        self._pending = (run, ready)
        self._used = self._taken()
        self._engine.submit(run.id)
        self._tell("run", now, f"run of {self._model.name}: {cause.why}")
        # The span until the version may serve is spread over about the time that a run takes: requests flow meanwhile.
        until = min(ready, now + options.step)
        coming = max(1, len(self._past.requests(now, until)))
        traffic.allow(micros(until), pause=0.5 * self._run_seconds / coming)

    def _settle(self, traffic: Traffic, server: InferenceServer) -> None:
        """Wait for the run under way: nothing from when its version may serve is sent before its verdict is known."""
        if self._pending is None:
            return
        run, ready = self._pending
        reason = self._finish(run)
        made = self._parts.metadata.models.of_run(run.id)
        self._tell("verdict", ready, f"{run.model}@{made.version} passed its gates" if made else f"held back: {reason}")
        self._pending = None
        server.wait_routes(routes_written(self._parts))
        traffic.allow(0, pause=0.0)

    def _finish(self, run: Run) -> str:
        """Wait for a run's end; return why it ended badly, empty when it did not."""
        began = time.perf_counter()
        state = self._engine.wait(run.id)
        self._run_seconds = max(0.5, time.perf_counter() - began)
        used = self._taken()
        self.cpu = None if used is None or self.cpu is None or self._used is None else self.cpu + max(0.0, used - self._used)
        events = self._parts.metadata.runs.events(run.id)
        reason = "; ".join(str(e.detail["reason"]) for e in events if e.detail.get("reason"))
        if state == "failed":
            raise Refused(f"run {run.id} failed: {reason}", next=f"see `mulle runs show {run.id}`", run=run.id)
        return reason

    def _taken(self) -> float | None:
        """Tell what the compute processes took of the processors so far, in seconds; None where nobody says."""
        pids = getattr(self._parts.compute(), "pids", None)  # a cluster's are elsewhere
        try:
            return None if pids is None else sum(_cpu(pid) for pid in pids())
        except OSError:
            return None

    def _due_drills(self, now: datetime) -> Iterator[tuple[Cause, Json]]:
        for drill in [d for d in self._drills if d.at <= now]:
            if drill.kind == "bad_batch":
                self._drills.remove(drill)
                self._throw_bad_batch(now)
            elif self._pending is None:
                self._drills.remove(drill)
                why = "drill: a challenger trained on shuffled targets is thrown in"
                yield Cause(type="drill", id="shuffled_targets", why=why), {"drill": "shuffled_targets"}

    def _throw_bad_batch(self, now: datetime) -> None:
        dataset = self._model.features.dataset
        why = "drill: a batch with an unknown code and an impossible number is thrown in"
        cause = Cause(type="drill", id="bad_batch", why=why)
        bad = Injected(self._past.bad_batch(now), "drill")
        for done in ingest(self._parts, dataset, now=now, causes=(cause,), reader=bad):
            if not isinstance(done, Quarantine):
                continue
            failed = ", ".join(f"{c.name} ({c.failed} rows)" for c in done.checks if c.verdict == "fail")
            self._tell("quarantine", now, f"bad batch of {done.rows} {dataset.name} held back by {failed}")

    def _look_ahead(self, until: datetime) -> None:
        """Load and materialise what the rows before `until` may read, a week at a time."""
        if until <= self._loaded:
            return
        target = max(until, self._loaded + self._options.ahead)
        cause = Cause(type="replay", id=rfc3339(self._loaded), why=f"rows known by {rfc3339(target)}")
        self._load(target, cause)
        refresh_online(self._parts, self._parts.clock.now(), until=target)
        self._loaded = target

    def _load(self, until: datetime, cause: Cause) -> None:
        for dataset in needed(self._model):
            reader = self._past.reader(self._parts, dataset)
            now = self._parts.clock.now()
            done = ingest(self._parts, dataset, now=now, causes=(cause,), until=until, reader=reader)
            bad = next((d for d in done if isinstance(d, Quarantine)), None)
            if bad is not None:
                failed = ", ".join(c.name for c in bad.checks if c.verdict == "fail")
                raise Refused(
                    f"replay: real rows of {dataset.name} failed {failed}",
                    next="mend the checks or the data",
                    dataset=dataset.name,
                )

    def _events(self, start: datetime, end: datetime) -> list[Event]:
        end = min(end, self._options.end)
        if start >= end:
            return []
        events = [*self._past.requests(start, end), *self._past.labels(start, end, self._options.start)]
        return sorted(events, key=lambda e: e.at)

    def _tell(self, kind: str, at: datetime, text: str) -> None:
        counts = {"requests": self._tally.predictions, "failed": self._tally.failed}
        self._said({"kind": kind, "at": rfc3339(at), "text": text, **counts})


def _cpu(pid: int) -> float:
    # After the name, which may hold anything: state is the third field, times of the process and its children 14 to 17.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _moments(options: ReplayOptions) -> Iterator[datetime]:
    moment = options.start + options.step
    while moment <= options.end:
        yield moment
        moment += options.step
