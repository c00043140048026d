"""Loaded bundles: opened once in a thread, warmed, shared by every route that names them, the idle ones let go."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.errors import BundleError, MulleError
from mulle.core.records.bundle import Contract, InputField
from mulle.kernel.bundle import Predictor
from mulle.kernel.routes import RoutedVersion
from mulle.kernel.transform import frame_from_rows

__all__ = ["Joiner", "JoinReader", "Loaded", "Shelf"]


class JoinReader(Protocol):
    """Adds the joined columns of a contract to a request's rows, from the online store."""

    def join(self, frame: pl.DataFrame, *, time: str | None, now: datetime) -> tuple[pl.DataFrame, Sequence[Mapping[str, str]]]:
        """Return the frame with ``join.column`` columns, and each row's freshness by join (RFC 3339 text)."""
        ...


Joiner = Callable[[Contract], JoinReader]
"""Makes the reader for a contract; `bootstrap` knows the online store, this room does not."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A bundle ready to answer.

    Attributes
    ----------
    sharing : int
        Two bundles with the same one turn a request into the same features, so that is done once for both.
    """

    model: str
    version: int
    predictor: Predictor
    contract: Contract
    joins: JoinReader | None
    sharing: int


class Shelf:
    """Opens bundles and keeps them by content hash; safe to use from several threads.

    Parameters
    ----------
    joiner : callable
    most : int
        Bundles kept; the least recently used go first. Who still answers with one keeps it alive.
    """

    def __init__(self, joiner: Joiner, *, most: int = 512) -> None:
        self._joiner, self._most = joiner, most
        self._kept: OrderedDict[tuple[str, int, str], Loaded] = OrderedDict()
        self._refused: dict[str, MulleError] = {}
        self._sharing: dict[str, int] = {}
        self._lock = threading.RLock()

    def get(self, model: str, route: RoutedVersion) -> Loaded:
        """Return a loaded bundle, opening it when needed (slow: call it in a thread).

        Raises
        ------
        BundleError
            When the bundle is corrupt, not what was registered or does not load.
        """
        key = (model, route.version, route.bundle)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            try:
                loaded = self._open(model, route)
            except MulleError as error:
                self._refused[route.bundle] = error
                raise
            self._refused.pop(route.bundle, None)
            self._kept[key] = loaded
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return loaded

    def peek(self, model: str, route: RoutedVersion) -> Loaded | None:
        """Return a bundle only if it is loaded already."""
        return self._kept.get((model, route.version, route.bundle))

    def refused(self, bundle: str) -> MulleError | None:
        """Return why a bundle was refused when it was last tried."""
        return self._refused.get(bundle)

    def versions(self, model: str) -> list[int]:
        """List the versions of a model that are loaded, sorted."""
        return sorted({version for name, version, _ in tuple(self._kept) if name == model})

    def _open(self, model: str, route: RoutedVersion) -> Loaded:
        try:
            predictor = Predictor.open(Path(route.address), expected=route.bundle, threads=1)
        except MulleError:
            raise
        except Exception as error:
            raise BundleError(
                f"bundle {route.bundle} of {model}@{route.version} does not load: {type(error).__name__}: {error}",
                next="register the model again",
                bundle=route.bundle,
            ) from error
        contract = predictor.contract
        joins = self._joiner(contract) if contract.joins else None
        same = repr((contract.inputs, contract.joins, contract.time, contract.transform.get("hash")))
        sharing = self._sharing.setdefault(same, len(self._sharing))
        loaded = Loaded(model, route.version, predictor, contract, joins, sharing)
        _warm(loaded)
        return loaded


def _warm(loaded: Loaded) -> None:
    # The first run of a plan and of a session is slow; nobody's request should pay for it.
    contract = loaded.contract
    blank = {f.name: _blank(f) if f.name in contract.key else None for f in contract.inputs}
    with suppress(Exception):
        frame = frame_from_rows([blank], contract.inputs, model=loaded.model, time=contract.time, now=EPOCH)
        if loaded.joins is not None:
            frame, _ = loaded.joins.join(frame, time=contract.time, now=EPOCH)
        loaded.predictor.score(loaded.predictor.transform(frame))


def _blank(field: InputField) -> object:
    return {"BYTES": "", "TIME": "1970-01-01T00:00:00Z", "BOOL": False}.get(field.type, 0)
