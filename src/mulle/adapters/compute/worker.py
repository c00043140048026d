"""What runs on a Dask worker: tasks in children of our own that can be killed, and a look at what the worker can see."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from distributed import Worker, WorkerPlugin, get_worker, secede

from mulle import __version__
from mulle.adapters.compute.local import LocalCompute
from mulle.adapters.compute.replies import refusal
from mulle.core.errors import MulleError, Unavailable, UsageError
from mulle.core.records.base import Json

__all__ = ["SCHEDULER", "Children", "look", "prepare", "run_in_child", "unseen"]

SCHEDULER = "MULLE_DASK_SCHEDULER"
"""In the environment of a worker's children: where the scheduler is that the worker belongs to."""

_IDLE_SECONDS = 300.0
"""A child that had no task for so long is let go; the next task then starts one."""

Warm = tuple[str, ...]


class Children(WorkerPlugin):
    """Keeps a worker's children: idle ones by what they have imported, busy ones by the task they run."""

    name = "mulle"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Begin with none."""
        os.environ[SCHEDULER] = worker.scheduler.address
        self._lock = threading.Lock()
        self._idle: dict[Warm, list[tuple[float, LocalCompute]]] = {}
        self._busy: dict[str, LocalCompute] = {}
        self._over = threading.Event()
        threading.Thread(target=self._sweep, daemon=True, name="mulle-sweeper").start()

    def teardown(self, worker: Worker) -> None:
        """Kill them all."""
        del worker
        self._over.set()
        with self._lock:
            left = [*self._busy.values(), *(pool for kept in self._idle.values() for _, pool in kept)]
            self._idle.clear()
        for pool in left:
            pool.close()

    def transition(self, key: object, start: str, finish: str, **_: object) -> None:
        """Kill the child of a task that nobody waits for any more: it was cancelled, or its caller is gone."""
        if start in ("executing", "long-running") and finish in ("released", "cancelled", "forgotten"):
            with self._lock:
                pool = self._busy.get(str(key))
            if pool is not None:
                pool.close()

    def prepare(self, warm: Warm, count: int, log: Path | None) -> None:
        """Start children before they are needed, so that there are at least so many idle ones."""
        with self._lock:
            kept = self._idle.setdefault(warm, [])
            kept.extend((time.monotonic(), LocalCompute(warm=warm, log=log)) for _ in range(count - len(kept)))

    def call(
        self, key: str, task: str, arguments: Json, *, timeout: float | None, memory: int | None, warm: Warm, log: Path | None
    ) -> Json:
        """Run a task in an idle child, or in a new one."""
        with self._lock:
            if self._over.is_set():
                raise Unavailable("the worker is closing", next="try again")
            kept = self._idle.get(warm)
            pool = kept.pop()[1] if kept else LocalCompute(warm=warm, log=log)
            self._busy[key] = pool
        try:
            return pool.call(task, arguments, timeout=timeout, memory=memory)
        finally:
            with self._lock:
                del self._busy[key]
                if not pool.closed and not self._over.is_set():
                    self._idle.setdefault(warm, []).append((time.monotonic(), pool))

    def _sweep(self) -> None:
        while not self._over.wait(_IDLE_SECONDS / 10):
            since = time.monotonic() - _IDLE_SECONDS
            with self._lock:
                old = [pool for kept in self._idle.values() for at, pool in kept if at < since]
                self._idle = {warm: [k for k in kept if k[0] >= since] for warm, kept in self._idle.items()}
            for pool in old:
                pool.close()


def run_in_child(
    task: str, arguments: str, timeout: float | None, memory: int | None, warm: Warm, log: str | None,
    marks: Mapping[str, str], waits: bool,
) -> Json:  # fmt: skip
    """Run a task in a child of this worker; the function that is sent to the cluster.

    Parameters
    ----------
    task : str
        ``module:function``.
    arguments : str
        Keyword arguments as JSON.
    timeout, memory
        As for `Compute.call`.
    warm : tuple of str
    log : str or None
    marks : mapping
        As for `look`.
    waits : bool
        The task may wait for others on the same cluster, so it leaves its place in the worker to them.

    Returns
    -------
    dict
        ``answer`` or ``error``, as `replies.open_reply` reads it.
    """
    worker = get_worker()
    if hidden := look(marks)["hidden"]:
        return refusal(unseen({worker.address: hidden}))
    key = str(worker.get_current_task())
    if waits:
        secede()
    try:
        found = _children(worker).call(
            key, task, json.loads(arguments), timeout=timeout, memory=memory, warm=warm, log=None if log is None else Path(log)
        )
    except MulleError as error:
        return refusal(error)
    return {"answer": found}


def prepare(warm: Warm, count: int, log: str | None, dask_worker: Worker | None = None) -> None:
    """Start children on a worker; Dask gives the worker."""
    assert dask_worker is not None
    _children(dask_worker).prepare(warm, count, None if log is None else Path(log))


def _children(worker: Worker) -> Children:
    found = worker.plugins[Children.name]
    assert isinstance(found, Children)
    return found


def look(marks: Mapping[str, str]) -> Json:
    """Tell what this process is and which of the caller's folders it does not see.

    Parameters
    ----------
    marks : mapping
        File to the text that the caller wrote into it.

    Returns
    -------
    dict
        ``version`` of Mulle, and the ``hidden`` folders.
    """
    hidden = []
    for path, text in marks.items():
        found = ""
        with contextlib.suppress(OSError):
            found = Path(path).read_text()
        if found != text:
            hidden.append(str(Path(path).parent))
    return {"version": __version__, "hidden": hidden}


def unseen(hidden: Mapping[str, Sequence[str]]) -> UsageError:
    """Make the error that names workers and the folders that they do not see."""
    worker, folders = next(iter(hidden.items()))
    others = f", and {len(hidden) - 1} more" if len(hidden) > 1 else ""
    return UsageError(
        f"the Dask worker {worker}{others} does not see {', '.join(folders)}, where a run's files are",
        next="set MULLE_HOME to a folder that every worker mounts at the same path, or start the workers on this machine",
        hidden={name: list(several) for name, several in list(hidden.items())[:20]},
    )
