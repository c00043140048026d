"""The routes in force for who asks them between two pieces of work: a stream takes up a new champion without a restart."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mulle.core.clock import EPOCH
from mulle.core.errors import MulleError, NotFound, Unavailable
from mulle.kernel.routes import LogRule, ModelRoutes, Routed, RoutedVersion, in_force, read_routes
from mulle.lifecycle.serving.fleet import members
from mulle.lifecycle.serving.score import Ready
from mulle.lifecycle.serving.shelf import Loaded, Shelf
from mulle.lifecycle.serving.table import AGAIN

__all__ = ["Following"]

_AGAIN = timedelta(seconds=AGAIN)


class Following:
    """One model's routes, read again when their file changes.

    A bundle that is refused changes nothing: what was in force stays, the reason is said, and it is tried again now and then.

    Parameters
    ----------
    path : Path
        The routing table.
    shelf : Shelf
    model : str
    version : int, optional
        Only this version answers, whatever the routes say of it.
    say : callable
    """

    def __init__(self, path: Path, shelf: Shelf, model: str, version: int | None = None, *, say: Callable[[str], None]) -> None:
        self._path, self._shelf, self._model, self._version, self._say = path, shelf, model, version, say
        self._stamp: tuple[int, int] | None = None
        self._table: dict[str, ModelRoutes] = {}
        self._ready: dict[str, Ready] = {}
        self._chosen: dict[str, str] = {}
        self._refused: dict[str, tuple[datetime, str]] = {}

    def spread(self, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[tuple[str, Ready, list[int]]]:
        """Say who answers each row: of a fleet the row's member where it has a version in force, else the model itself.

        Returns
        -------
        list of (str, Ready, list of int)
            Model, what answers, and the positions of its rows.
        """
        shared = self.ready(now)
        routes = self._table[self._model]
        if routes.each is None or self._version is not None:
            return [(self._model, shared, list(range(len(rows))))]
        groups = members(rows, routes.each, self._model, self._table)
        found = []
        own: list[int] = []
        for name, places in groups.items():
            if name == self._model or in_force(self._table[name].deployments, now) is None:
                own += places
            else:
                found.append((name, self._answering(name, now), places))
        return [*found, (self._model, shared, sorted(own))] if own else found

    def ready(self, now: datetime) -> Ready:
        """Return what answers now, its bundles loaded.

        Raises
        ------
        NotFound
            When the model, or the version asked for, was never deployed.
        Unavailable
            When nothing of it can be loaded.
        """
        stamp = self._look()
        if stamp != self._stamp:
            # Taken before it is read: a table that is written meanwhile is looked at again.
            self._stamp, self._table = stamp, read_routes(self._path).models
            self._chosen = {}  # what is logged of the answers may have changed alone
        return self._answering(self._model, now)

    def _answering(self, model: str, now: datetime) -> Ready:
        routes = self._table.get(model)
        if routes is None:
            raise NotFound(f"no model '{model}' is deployed here", next=f"`mulle deploy {model}`", model=model)
        wanted = self._pinned(routes) if self._version is not None else in_force(routes.deployments, now)
        if wanted is None:
            raise Unavailable(f"no version of {model} answers yet", next=f"`mulle deploy {model}`")
        again = model in self._refused and now - self._refused[model][0] >= _AGAIN
        if again or wanted.id != self._chosen.get(model) or model not in self._ready:
            self._take(model, wanted, routes.log, now)
        return self._ready[model]

    def _take(self, model: str, wanted: Routed, log: LogRule, now: datetime) -> None:
        before = self._refused.pop(model, None)
        pairs: list[tuple[RoutedVersion, Loaded]] = []
        for route in sorted(wanted.routes, key=lambda r: r.mode != "champion"):
            try:
                pairs.append((route, self._shelf.get(model, route)))
            except MulleError as error:
                said = f"{model}@{route.version} is not taken up: {error.detail}"
                self._refused[model] = (now, said)
                if before is None or before[1] != said:
                    self._say(said)
                if not pairs and model not in self._ready:
                    raise Unavailable(error.detail, next=error.next, model=model) from error
                if not pairs:
                    self._chosen[model] = wanted.id
                    return
        self._chosen[model] = wanted.id
        versions, loaded = tuple(route for route, _ in pairs), tuple(opened for _, opened in pairs)
        self._ready[model] = Ready(wanted.id, wanted.effective_at, wanted.salt, versions, loaded, log)

    def _pinned(self, routes: ModelRoutes) -> Routed:
        for deployment in reversed(routes.deployments):
            for route in deployment.routes:
                if route.version == self._version:
                    alone = RoutedVersion(
                        version=route.version, share=1.0, mode="pinned", bundle=route.bundle, address=route.address
                    )
                    return Routed(id=f"pinned-{self._version}", effective_at=EPOCH, salt="", routes=(alone,))
        raise NotFound(
            f"version {self._version} of {self._model} was never deployed here", next=f"see `mulle history {self._model}`",
            model=self._model,
        )  # fmt: skip

    def _look(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)
