"""The routes in force: the loop's file is watched, its bundles loaded aside, and only then the pointer moves.

A bundle that is refused changes nothing: what was in service stays in service, the reason is told, and it is tried again now
and then, for its files may have been put right.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from mulle.core.clock import EPOCH, Clock
from mulle.core.declare.fleet import fleet_of
from mulle.core.errors import MulleError, NotFound, Unavailable
from mulle.kernel.routes import LogRule, ModelRoutes, Routed, RoutedVersion, RoutesBook, in_force, open_book
from mulle.lifecycle.serving.route import Forced
from mulle.lifecycle.serving.score import Ready
from mulle.lifecycle.serving.shelf import Loaded, Shelf

__all__ = ["AGAIN", "EAGER", "Table"]

_log = logging.getLogger("mulle.inference")

AGAIN = 10.0
"""Seconds until a bundle that was refused is tried again."""

EAGER = 64
"""With at most this many models all are loaded as soon as they are routed, and stay; more are loaded as they are asked for.

The members of fleets are not counted, and always loaded as they are asked for.
"""


class Table:
    """Which loaded versions answer for each model.

    Parameters
    ----------
    path : Path
        The routing table file.
    shelf : Shelf
    executor : Executor
        Where bundles are opened, so that no answer waits for it.
    clock : Clock
    by_row : bool
        Rows choose by their own time, so every kept deployment must be ready; else those from now on.
    most : int
        Bytes that loaded bundles may take; beyond, the models go that were not asked for the longest.

    Attributes
    ----------
    generation : int
        The table whose routes are in force.
    problems : dict
        Model to why its newest routes are not in force.
    """

    def __init__(self, path: Path, shelf: Shelf, executor: Executor, clock: Clock, *, by_row: bool, most: int = 2**30) -> None:
        self._path, self._shelf, self._executor, self._clock, self._by_row = path, shelf, executor, clock, by_row
        self._most = most
        self._stamp: tuple[int, int, int] | None = None
        self._tried = 0.0
        self._routed = RoutesBook(0, {})
        self._stay: frozenset[str] = frozenset()
        self._ready: dict[str, tuple[Ready, ...]] = {}
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._opening: dict[str, asyncio.Future[tuple[Ready, ...]]] = {}
        self.generation = -1
        self.problems: dict[str, MulleError] = {}

    def __contains__(self, model: object) -> bool:
        return model in self._routed

    def models(self) -> list[str]:
        """List the routed models, sorted."""
        return sorted(self._routed)

    def loaded(self) -> list[str]:
        """List the models that answer without being loaded first, sorted."""
        return sorted(self._ready)

    def each(self, model: str) -> str | None:
        """Return the column that names a fleet's members; None for a model of its own."""
        return self._routed[model].each

    def ready(self, model: str) -> tuple[Ready, ...]:
        """Return a model's loaded deployments, oldest first; empty when none is loaded."""
        return self._ready.get(model, ())

    def versions(self, model: str) -> list[int]:
        """List the versions of a model that are loaded."""
        return self._shelf.versions(model)

    async def refresh(self) -> bool:
        """Take up a changed file, or what was refused and is whole again; returns whether there was one."""
        stamp = self._look()
        if stamp == self._stamp:
            return await self._again()
        loop = asyncio.get_running_loop()
        try:
            book = await loop.run_in_executor(self._executor, open_book, self._path)
        except Unavailable as error:
            self.problems[""], self._stamp = error, stamp
            return False
        self.problems.pop("", None)
        await self._adopt(book)
        self._tried = time.monotonic()
        self._stamp, self.generation = stamp, book.generation
        return True

    async def deployments(self, model: str, version: int | None = None) -> tuple[Ready, ...]:
        """Return what answers for a model, loading it when it was not asked for before.

        Parameters
        ----------
        version : int, optional
            One version, whether or not it is in force.

        Raises
        ------
        NotFound
            When the model or the version is not routed.
        Unavailable
            When nothing of it can be loaded; names the bundle.
        """
        if version is not None:
            return await self._pinned(model, version)
        ready = self._ready.get(model)
        if ready is None:
            return await self._open(model)
        if model not in self._stay:
            self._asked.move_to_end(model)
        return ready

    def route_of(self, model: str, version: int) -> RoutedVersion:
        """Return a version's route in the newest kept deployment that has it.

        Raises
        ------
        NotFound
        """
        routes = self._routed.get(model)
        for deployment in reversed(routes.deployments if routes else ()):
            for route in deployment.routes:
                if route.version == version:
                    return route
        what = f"version {version} of {model}" if routes else f"model '{model}'"
        raise NotFound(f"no {what} is deployed here", next="GET /v1/models lists what is", model=model)

    def log(self, model: str) -> LogRule:
        """Return what of a model's answers is logged."""
        routes = self._routed.get(model) or self._routed.get(fleet_of(model))
        return routes.log if routes else LogRule()

    async def let_go(self, model: str) -> list[int]:
        """Let a model's versions go from memory, but those in force or in force soon; returns which went."""
        return self._forgotten(model)

    def _forgotten(self, model: str) -> list[int]:
        return self._shelf.let_go(model, {loaded for ready in self.ready(model) for loaded in ready.loaded})

    async def _pinned(self, model: str, version: int) -> tuple[Ready, ...]:
        route = self.route_of(model, version)
        loaded = self._shelf.peek(model, route)
        if loaded is None:
            loop = asyncio.get_running_loop()
            try:
                loaded = await loop.run_in_executor(self._executor, self._shelf.get, model, route)
            except MulleError as error:
                raise _not_loaded(model, error) from error
        self._touch(model)
        current = in_force(self._routed[model].deployments, self._clock.now())
        modes = {r.version: r.mode for r in current.routes} if current else {}
        mode = "forced" if isinstance(version, Forced) else modes.get(version, "pinned")
        alone = RoutedVersion(
            version=route.version, share=1.0, mode="pinned" if mode == "shadow" else mode, bundle=route.bundle,
            address=route.address,
        )  # fmt: skip
        ready = Ready(f"pinned-{version}", EPOCH, "", routes=(alone,), loaded=(loaded,), log=self.log(model))
        return (ready,)

    async def _open(self, model: str) -> tuple[Ready, ...]:
        routes = self._routed.get(model)
        if routes is None:
            raise NotFound(f"no model '{model}' is deployed here", next="GET /v1/models lists what is", model=model)
        opening = self._opening.get(model)
        if opening is None:
            loop = asyncio.get_running_loop()
            opening = self._opening[model] = loop.run_in_executor(self._executor, self._load, model, routes)
        try:
            ready = await opening
        finally:
            self._opening.pop(model, None)
        if not ready:
            problem = self.problems.get(model) or Unavailable(f"no version of {model} answers yet", model=model)
            raise _not_loaded(model, problem)
        # The routes may have moved on while this was loading.
        if self._routed.get(model) == routes:
            self._put(model, ready)
        return ready

    def _put(self, model: str, ready: tuple[Ready, ...]) -> None:
        before = self._ready.get(model, ())
        self._ready[model] = ready
        if before:
            self._forgotten(model)
        self._touch(model)

    def _touch(self, model: str) -> None:
        # The one asked for stays, whatever it takes: an answer is due.
        self._asked[model] = None
        self._asked.move_to_end(model)
        while self._shelf.used > self._most and (oldest := next((m for m in self._asked if m not in self._stay), model)) != model:
            self._drop(oldest)

    def _drop(self, model: str) -> None:
        self._asked.pop(model, None)
        self._ready.pop(model, None)
        self._shelf.let_go(model)

    async def _adopt(self, book: RoutesBook) -> None:
        before, loop = self._routed, asyncio.get_running_loop()
        changed, self._stay = await loop.run_in_executor(self._executor, _compared, book, before)
        # New names must answer at once, be it by loading on demand; changed ones keep their loaded routes until then.
        self._routed = book
        for model in [model for model in self._asked if model not in book]:
            self._drop(model)
        # Those asked for last are waited for the most.
        order = {model: place for place, model in enumerate(self._asked)}
        await self._take(sorted((*changed, *tuple(self.problems)), key=lambda m: (m not in self._stay, -order.get(m, 0))))

    async def _again(self) -> bool:
        if not self.problems or time.monotonic() - self._tried < AGAIN:
            return False
        # A copy: threads that load a model write there.
        refused = [model for model in tuple(self.problems) if model in self._routed]
        await self._take(refused)
        self._tried = time.monotonic()
        return any(model not in self.problems for model in refused)

    async def _take(self, models: Sequence[str]) -> None:
        book, loop = self._routed, asyncio.get_running_loop()
        for model in dict.fromkeys(models):
            if model not in book or not (model in self._ready or model in self._stay):
                continue  # it is loaded when it is asked for
            try:
                routes = book[model]
            except Unavailable as error:
                self.problems[model] = error
                continue
            ready = await loop.run_in_executor(self._executor, self._load, model, routes)
            if ready:
                self._put(model, ready)

    def _load(self, model: str, routes: ModelRoutes) -> tuple[Ready, ...]:
        problems: list[MulleError] = []
        made = [self._make(model, d, problems) for d in self._needed(routes)]
        ready = [r for r in made if r is not None]
        if made and made[0] is None:
            # Refused: what was in service stays in service, below whatever comes later.
            later = {r.id for r in ready}
            ready = [*(r for r in self._ready.get(model, ()) if r.id not in later), *ready]
        if problems:
            if str(self.problems.get(model)) != str(problems[-1]):
                _log.error("%s; what answered before goes on", problems[-1].detail, extra={"model": model})
            self.problems[model] = problems[-1]
        elif self.problems.pop(model, None) is not None:
            _log.info("what was refused is whole and in service", extra={"model": model})
        if not ready:
            # Nothing was in service: an older deployment is better than no answer.
            older = [r for r in (self._make(model, d, []) for d in reversed(routes.deployments)) if r is not None]
            ready = older[:1]
        return tuple(ready)

    def _needed(self, routes: ModelRoutes) -> Sequence[Routed]:
        if self._by_row:
            return routes.deployments
        current = in_force(routes.deployments, self._clock.now())
        return [d for d in routes.deployments if d is current or current is None or d.effective_at > current.effective_at]

    def _make(self, model: str, deployment: Routed, problems: list[MulleError]) -> Ready | None:
        pairs: list[tuple[RoutedVersion, Loaded]] = []
        for route in sorted(deployment.routes, key=lambda r: r.mode != "champion"):
            try:
                pairs.append((route, self._shelf.get(model, route)))
            except MulleError as error:
                problems.append(error)
                if not pairs:
                    return None
        if not pairs:
            return None
        routes, loaded = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        return Ready(deployment.id, deployment.effective_at, deployment.salt, routes, loaded, self.log(model))

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_ino, found.st_size)


def _compared(book: RoutesBook, before: RoutesBook) -> tuple[list[str], frozenset[str]]:
    own = [model for model in book if fleet_of(model) == model]
    return book.changed(before), frozenset(own if len(own) <= EAGER else ())


def _not_loaded(model: str, error: MulleError) -> Unavailable:
    facts = {k: v for k, v in error.facts.items() if k != "model"}
    return Unavailable(error.detail, next=error.next or "deploy one: `mulle deploy`", model=model, **facts)
