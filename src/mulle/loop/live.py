"""The loop on the wall clock: ``mulle up``. Engine, inference server and ticks, until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from mulle.core.clock import duration
from mulle.core.errors import MulleError
from mulle.core.records.base import Cause
from mulle.core.records.dataset import DatasetVersion, Quarantine
from mulle.core.records.deployment import STAGING
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.run import Run, run_stages
from mulle.kernel.project import hash_code, load_project
from mulle.lifecycle.data.version import table_name
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.batch.schedule import Schedule
from mulle.loop.data.ingest import all_datasets, ingest, needed
from mulle.loop.data.online import refresh_online, take_back
from mulle.loop.data.outcomes import label_from_datasets
from mulle.loop.declared import Trial, note_broken, note_good
from mulle.loop.engine import Engine
from mulle.loop.monitoring.telling import Teller
from mulle.loop.operate import enqueue, snapshot_code, start_wanted
from mulle.loop.parts import Parts
from mulle.loop.rollout.route import publish_routes
from mulle.loop.runner import open_engine
from mulle.loop.server import InferenceServer
from mulle.loop.tick import tick
from mulle.loop.training.tracked import CatchUp

__all__ = ["Live", "up"]

log = logging.getLogger("mulle.loop")

_AHEAD = 2
"""How many looks ahead histories are filled, so that a request just after a tick finds one; corrected as rows come in."""

_LEAST_AHEAD, _MOST_AHEAD = timedelta(seconds=2), timedelta(seconds=20)
"""At least so far, and twice as far as the last two looks lay apart, at most so far: a busy machine holds looks up."""

_PATIENCE = 5.0
"""Seconds that a look waits for a changed project file to load; the next look asks again."""

_AGAIN = 600.0
"""Seconds until a project that did not load is tried again unchanged: the machine may have been busy, what it reads away."""

Control = Callable[[Callable[[], Parts]], None]
"""Serves the control plane until the process is told to stop; takes what gives the parts in force."""


def up(parts: Parts, control: Control) -> None:
    """Run everything; returns when the control plane stops.

    Raises
    ------
    Conflict
        When an engine runs on this home; names its pid.
    """
    with open_engine(parts, leads=True) as engine:
        live = Live(parts, engine)
        live.start()
        try:
            control(lambda: live.parts)
        finally:
            live.stop()


_TIDIED = timedelta(hours=1)
"""How often small files of the lake are put together; each look at a source that has something makes one."""


class Live:
    """The ticking loop beside an engine.

    Attributes
    ----------
    parts : Parts
        In force: a changed project file replaces the declaration, a broken one leaves the last good one.
    """

    def __init__(self, parts: Parts, engine: Engine) -> None:
        self.parts = parts
        self._engine = engine
        self._server = InferenceServer(parts.settings)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mulle-loop", daemon=True)
        self._submitted: set[str] = set()
        self._failing: dict[str, str] = {}
        self._refused, self._tried = "", 0.0
        self._trial: Trial | None = None
        self._tidied = parts.clock.now()
        self._looked_at: datetime | None = None
        self._looked: dict[str, tuple[int, datetime]] = {}
        self._batches = Schedule()
        self._catching = CatchUp()
        self._teller = Teller(parts.metadata.outbox, parts.receivers, parts.clock, parts.settings.alerts_digest)

    def start(self) -> None:
        """Start the inference server and the ticks; with a declaration of before, the first look says why."""
        if self.parts.project.code == hash_code(self.parts.settings.project):
            note_good(self.parts.settings.home)
        snapshot_code(self.parts)
        self._server.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking, let the server finish what it took, and drain the log once more."""
        self._stopping.set()
        self._thread.join(timeout=60)
        if self._trial is not None:
            self._trial.close()
        self._teller.stop()
        self._catching.stop()
        self._server.stop()
        drain(log_folder(self.parts.settings.home), self.parts.lake, now=self.parts.clock.now())

    def once(self) -> None:
        """Look once: project, sources, online store, log, windows, canaries, causes, waiting runs."""
        self._reload()
        running = [r for s in ("queued", "running") for r in self.parts.metadata.runs.list(state=s, limit=100)]
        self._ingest(running)
        # Only now is what was just published available, and it is wanted at once.
        now = self.parts.clock.now()
        before, self._looked_at = self._looked_at, now
        if before is None or now < before:
            take_back(self.parts, now)
        refresh_online(self.parts, now, until=now + self._ahead(now - (before or now)))
        folder = log_folder(self.parts.settings.home)
        label_from_datasets(self.parts, now=now, looked=self._looked)
        seen = tick(
            self.parts,
            drain=lambda: drain(folder, self.parts.lake, now=now),
            busy=frozenset(r.model for r in running),
            failed=_not_looked_at,
        )
        drain(log_folder(self.parts.settings.home / STAGING), self.parts.lake, now=now, environment=STAGING)
        for kind, model, text in seen.happenings:
            log.info("%s %s: %s", kind, model, text, extra={"model": model})
        for model, cause in seen.wanted:
            log.info("run %s: %s", model, cause.why, extra={"model": model})
        for started in start_wanted(self.parts, seen.wanted):
            self._submit(started)
        for run in running:
            self._submit(run)
        self._batches.look(self.parts)
        if not timedelta(0) <= now - self._tidied < _TIDIED:
            self._tidied = now
            self._tidy()

    def _tidy(self) -> None:
        tables = [table_name(dataset.name) for dataset in all_datasets(self.parts.project)]
        clusters = {PREDICTIONS: ("model", "time"), LABELS: ("model", "known_at")}
        for table in (*tables, *clusters):
            try:
                self.parts.lake.compact(table, cluster_by=clusters.get(table, ()))
            except MulleError as error:  # another writer was faster; the next hour comes
                log.warning("%s was not put together: %s", table, error.detail)

    def _ingest(self, running: Sequence[Run]) -> None:
        """Bring in what the sources have; one that fails keeps no other, and nothing else of the look, waiting."""
        taken = {name for run in running for name in self._publishing(run)}
        cause = Cause(type="schedule", id="tick", why="the loop looked at the source")
        for dataset in all_datasets(self.parts.project):
            if dataset.name in taken or self.parts.metadata.datasets.get(dataset.name) is None:
                continue
            try:
                made = ingest(self.parts, dataset, now=self.parts.clock.now(), causes=(cause,))
            except MulleError as error:
                self._ingested(dataset.name, f"{error.detail}; {error.next}", ())
            else:
                self._ingested(dataset.name, "", made)

    def _ahead(self, apart: timedelta) -> timedelta:
        usual = _AHEAD * duration(self.parts.settings.tick)
        return max(usual, _LEAST_AHEAD, min(2 * apart, _MOST_AHEAD))

    def _ingested(self, dataset: str, failure: str, made: Sequence[DatasetVersion | Quarantine]) -> None:
        """Tell what a source brought; of one that fails the same way at each look, that it began and that it is over."""
        before = self._failing.pop(dataset, "")
        if failure:
            self._failing[dataset] = failure
            if failure != before:
                log.error("dataset %s: %s", dataset, failure)
        elif before:
            log.info("dataset %s can be read again", dataset)
        for batch in made:
            if isinstance(batch, Quarantine):
                why = ", ".join(check.name for check in batch.checks if check.verdict == "fail")
                told = (dataset, batch.rows, why, dataset)
                log.error("dataset %s: %d rows were turned away: %s; see `mulle data versions %s`", *told)
            else:
                log.info("dataset %s: version %d brought %d rows", dataset, batch.version, batch.added)

    def _publishing(self, run: Run) -> tuple[str, ...]:
        """Name the datasets that are left to a run: from its start until it has published, not while it trains."""
        model = self.parts.project.models.get(run.model)
        stages = {s.name: s.state for s in run_stages(self.parts.metadata.runs.events(run.id))}
        if model is None or "ingest" not in stages or stages.get("publish") == "done":
            return ()
        return tuple(dataset.name for dataset in needed(model))

    def _run(self) -> None:
        pause = duration(self.parts.settings.tick).total_seconds()
        while not self._stopping.is_set():
            if not self._server.alive():
                log.warning("the inference server died (%s); starting it again", self._server.ended())
                self._server.start()
            try:
                self.once()
            except MulleError as error:
                log.error("tick: %s; %s", error.detail, error.next)
            except Exception:
                # One bad look must not end the loop; the next one may succeed.
                log.exception("tick failed")
            self._teller.look()
            self._catching.look(self.parts)
            self._stopping.wait(pause)

    def _submit(self, run: Run) -> None:
        # Queued when it was recorded; unless its process died between the two.
        if run.id not in self._submitted:
            self._submitted.add(run.id)
            enqueue(self.parts, run)

    def _reload(self) -> None:
        folder, home = self.parts.settings.project, self.parts.settings.home
        code = hash_code(folder)
        if self._trial is not None and self._trial.code != code:
            self._trial.close()
            self._trial = None
        again = code == self._refused
        if again and time.monotonic() < self._tried + _AGAIN:
            return
        if code == self.parts.project.code:
            if self._refused:
                self._refused = ""
                note_good(home)
                log.info("the project's files are again those in force")
            return
        # What never ends, or ends its process, must do so elsewhere.
        self._trial = self._trial or Trial(folder, code)
        if not self._trial.over(0.0 if again else _PATIENCE):
            return
        trial, self._trial = self._trial, None
        try:
            trial.check()
            parts = replace(self.parts, project=load_project(folder))
        except MulleError as error:
            self._refused, self._tried = code, time.monotonic()
            if again:
                return  # said when it was tried first
            note_broken(home, error, self.parts.clock.now(), tried=code, in_force=self.parts.project.code)
            log.error("the project does not load, the last good declaration goes on: %s; %s", error.detail, error.next)
            return
        # A run that begins when the files have changed once more still finds the code that was loaded here.
        snapshot_code(parts)
        # What is logged is said in the project, and told to serving with the routes.
        publish_routes(parts)
        self.parts, self._refused = parts, ""
        note_good(home)
        log.info("the project's files have changed and are in force")


def _not_looked_at(model: str, error: Exception) -> None:
    # A model with a bundle that cannot be read, say, is no reason to leave the others alone.
    if isinstance(error, MulleError):
        log.error("%s was not looked at: %s; %s", model, error.detail, error.next, extra={"model": model})
    else:
        log.error("%s was not looked at", model, exc_info=error, extra={"model": model})
