"""The loop on the wall clock: ``mulle up``. Engine, inference server and ticks, until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from mulle.core.clock import duration
from mulle.core.errors import MulleError
from mulle.core.records.base import Cause
from mulle.kernel.project import hash_code, load_project
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.engine import Engine
from mulle.loop.ingest import all_datasets, ingest, needed
from mulle.loop.online import refresh_online
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts
from mulle.loop.runner import open_engine
from mulle.loop.server import InferenceServer
from mulle.loop.tick import tick

__all__ = ["Live", "up"]

log = logging.getLogger("mulle.loop")

Control = Callable[[Callable[[], Parts]], None]
"""Serves the control plane until the process is told to stop; takes what gives the parts in force."""


def up(parts: Parts, control: Control) -> None:
    """Run everything; returns when the control plane stops.

    Raises
    ------
    Conflict
        When an engine runs on this home; names its pid.
    """
    with open_engine(parts) as engine:
        live = Live(parts, engine)
        live.start()
        try:
            control(lambda: live.parts)
        finally:
            live.stop()


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
        self._refused = ""

    def start(self) -> None:
        """Start the inference server and the ticks."""
        self._server.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking, let the server finish what it took, and drain the log once more."""
        self._stopping.set()
        self._thread.join(timeout=60)
        self._server.stop()
        drain(log_folder(self.parts.settings.home), self.parts.lake, now=self.parts.clock.now())

    def once(self) -> None:
        """Look once: project, sources, online store, log, windows, canaries, causes, waiting runs."""
        self._reload()
        now = self.parts.clock.now()
        running = [r for s in ("queued", "running") for r in self.parts.metadata.runs.list(state=s, limit=100)]
        # What a run under way may be publishing is left to it.
        models = [self.parts.project.models[r.model] for r in running if r.model in self.parts.project.models]
        taken = {dataset.name for model in models for dataset in needed(model)}
        for dataset in all_datasets(self.parts.project):
            if dataset.name not in taken and self.parts.metadata.datasets.get(dataset.name) is not None:
                cause = Cause(type="schedule", id="tick", why="the loop looked at the source")
                ingest(self.parts, dataset, now=now, causes=(cause,))
        refresh_online(self.parts, now)
        folder = log_folder(self.parts.settings.home)
        seen = tick(
            self.parts,
            drain=lambda: drain(folder, self.parts.lake, now=now),
            busy=frozenset(r.model for r in running),
        )
        for kind, model, text in seen.happenings:
            log.info("%s %s: %s", kind, model, text)
        for model, cause in seen.wanted:
            log.info("run %s: %s", model, cause.why)
            self._submit(start_run(self.parts, model, causes=(cause,)).id)
        for run in running:
            self._submit(run.id)

    def _run(self) -> None:
        pause = duration(self.parts.settings.tick).total_seconds()
        while not self._stopping.is_set():
            if not self._server.alive():
                log.warning("the inference server died; starting it again")
                self._server.start()
            try:
                self.once()
            except MulleError as error:
                log.error("tick: %s; %s", error.detail, error.next)
            except Exception:
                # One bad look must not end the loop; the next one may succeed.
                log.exception("tick failed")
            self._stopping.wait(pause)

    def _submit(self, run: str) -> None:
        if run not in self._submitted:
            self._submitted.add(run)
            self._engine.submit(run)

    def _reload(self) -> None:
        folder = self.parts.settings.project
        code = hash_code(folder)
        if code in (self.parts.project.code, self._refused):
            return
        try:
            self.parts = replace(self.parts, project=load_project(folder))
        except MulleError as error:
            self._refused = code
            log.error("project.py is broken, the last good declaration goes on: %s", error.detail)
