"""The routes in force for who asks them between two pieces of work: a stream takes up a new champion without a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from mulle.core.clock import EPOCH
from mulle.core.errors import MulleError, NotFound, Unavailable
from mulle.kernel.routes import LogRule, ModelRoutes, Routed, RoutedVersion, in_force, read_routes
from mulle.lifecycle.serving.score import Ready
from mulle.lifecycle.serving.shelf import Loaded, Shelf

__all__ = ["Following"]


class Following:
    """One model's routes, read again when their file changes.

    A bundle that is refused changes nothing: what was in force stays, and the reason is said.

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
        self._routes: ModelRoutes | None = None
        self._ready: Ready | None = None
        self._chosen = ""

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
            self._stamp, self._routes = stamp, read_routes(self._path).models.get(self._model)
            self._chosen = ""  # what is logged of the answers may have changed alone
        if self._routes is None:
            raise NotFound(f"no model '{self._model}' is deployed here", next=f"`mulle deploy {self._model}`", model=self._model)
        wanted = self._pinned(self._routes) if self._version is not None else in_force(self._routes.deployments, now)
        if wanted is None:
            raise Unavailable(f"no version of {self._model} answers yet", next=f"`mulle deploy {self._model}`")
        if wanted.id != self._chosen or self._ready is None:
            self._take(wanted, self._routes.log)
        assert self._ready is not None
        return self._ready

    def _take(self, wanted: Routed, log: LogRule) -> None:
        pairs: list[tuple[RoutedVersion, Loaded]] = []
        for route in sorted(wanted.routes, key=lambda r: r.mode != "champion"):
            try:
                pairs.append((route, self._shelf.get(self._model, route)))
            except MulleError as error:
                self._say(f"{self._model}@{route.version} is not taken up: {error.detail}")
                if not pairs and self._ready is None:
                    raise Unavailable(error.detail, next=error.next, model=self._model) from error
                if not pairs:
                    self._chosen = wanted.id
                    return
        self._chosen = wanted.id
        versions, loaded = tuple(route for route, _ in pairs), tuple(opened for _, opened in pairs)
        self._ready = Ready(wanted.id, wanted.effective_at, wanted.salt, versions, loaded, log)

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
