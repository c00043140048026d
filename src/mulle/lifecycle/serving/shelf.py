"""Loaded bundles: opened once in a thread, warmed, shared by every route that names them, the idle ones let go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.errors import BundleError, MulleError
from mulle.core.hashing import hash_bytes
from mulle.core.records.bundle import Contract, InputField
from mulle.kernel.bundle import Predictor
from mulle.kernel.routes import RoutedVersion
from mulle.kernel.transform import frame_from_rows
from mulle.kernel.worker import Worker

__all__ = ["Joiner", "JoinReader", "Loaded", "Shelf"]

_LEAST, _TIMES = 300_000, 6
"""What a bundle takes in memory: measured with gradient-boosted trees, six times its graph's file, and contract and session."""

_Key = tuple[int, str]


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
    size : int
        Bytes of memory that it is counted with.
    """

    model: str
    version: int
    predictor: Predictor
    contract: Contract
    joins: JoinReader | None
    sharing: int
    size: int = 0


class Shelf:
    """Opens bundles and keeps them until they are let go; safe to use from several threads.

    Who still answers with a bundle keeps it alive, whatever the shelf does.

    Parameters
    ----------
    joiner : callable
    worker : Worker, optional
        The child that runs every model which did not compile.

    Attributes
    ----------
    used : int
        Bytes of memory that the kept bundles are counted with.
    """

    def __init__(self, joiner: Joiner, worker: Worker | None = None) -> None:
        self._joiner, self._worker = joiner, worker
        self._kept: dict[str, dict[_Key, Loaded]] = {}
        self._opening: dict[tuple[str, _Key], Future[Loaded]] = {}
        self._sharing: dict[str, int] = {}
        self._lock = threading.Lock()
        self.used = 0

    def get(self, model: str, route: RoutedVersion) -> Loaded:
        """Return a loaded bundle, opening it when needed (slow: call it in a thread); opening one waits for no other.

        Raises
        ------
        BundleError
            When the bundle is corrupt, not what was registered or does not load.
        """
        key = (route.version, route.bundle)
        with self._lock:
            found = self._kept.get(model, {}).get(key)
            if found is not None:
                return found
            other = self._opening.get((model, key))
            if other is None:
                mine = self._opening[(model, key)] = Future()
        if other is not None:
            return other.result()
        try:
            loaded = self._open(model, route)
        except BaseException as error:
            self._opened(model, key, None)
            mine.set_exception(error)
            raise
        self._opened(model, key, loaded)
        mine.set_result(loaded)
        return loaded

    def peek(self, model: str, route: RoutedVersion) -> Loaded | None:
        """Return a bundle only if it is loaded already."""
        return self._kept.get(model, {}).get((route.version, route.bundle))

    def versions(self, model: str) -> list[int]:
        """List the versions of a model that are loaded, sorted."""
        return sorted({version for version, _ in tuple(self._kept.get(model, ()))})

    def let_go(self, model: str, but: Collection[Loaded] = ()) -> list[int]:
        """Let a model's bundles go, but some; returns the versions that went, sorted."""
        with self._lock:
            kept = self._kept.get(model, {})
            gone = [key for key, loaded in kept.items() if loaded not in but]
            self.used -= sum(kept.pop(key).size for key in gone)
            if not kept:
                self._kept.pop(model, None)
        return sorted(version for version, _ in gone)

    def _opened(self, model: str, key: _Key, loaded: Loaded | None) -> None:
        with self._lock:
            del self._opening[(model, key)]
            if loaded is not None:
                self._kept.setdefault(model, {})[key] = loaded
                self.used += loaded.size

    def _open(self, model: str, route: RoutedVersion) -> Loaded:
        try:
            predictor = Predictor.open(Path(route.address), expected=route.bundle, threads=1, worker=self._worker)
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
        with self._lock:
            known = len(self._sharing)
            sharing = self._sharing.setdefault(hash_bytes(same.encode()), len(self._sharing))
        loaded = Loaded(model, route.version, predictor, contract, joins, sharing, _size(Path(route.address)))
        if contract.compiled == "native":
            # Its child takes seconds to import what the model needs; the server is ready before.
            threading.Thread(target=_warm, args=(loaded,), daemon=True, name="mulle-warm").start()
        else:
            _warm(loaded, whole=sharing == known)
        return loaded


def _size(folder: Path) -> int:
    with suppress(OSError):
        return _LEAST + _TIMES * (folder / "model.onnx").stat().st_size
    return _LEAST  # a native model lives in another process


def _warm(loaded: Loaded, *, whole: bool = True) -> None:
    # The first run of a plan and of a session is slow; nobody's request should pay for it. Of bundles that turn requests
    # into the same features only the session is new.
    contract = loaded.contract
    if not whole:
        with suppress(Exception):
            loaded.predictor.run(np.zeros((1, len(contract.features)), np.float32))
        return
    blank = {f.name: _blank(f) if f.name in contract.key else None for f in contract.inputs}
    with suppress(Exception):
        frame = frame_from_rows([blank], contract.inputs, model=loaded.model, time=contract.time, now=EPOCH)
        if loaded.joins is not None:
            frame, _ = loaded.joins.join(frame, time=contract.time, now=EPOCH)
        loaded.predictor.score(loaded.predictor.transform(frame))


def _blank(field: InputField) -> object:
    return {"BYTES": "", "TIME": "1970-01-01T00:00:00Z", "BOOL": False}.get(field.type, 0)
