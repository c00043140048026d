"""Compute on a Dask cluster: the same tasks, run by its workers in children that can be killed."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

from mulle import __version__
from mulle.adapters.compute.replies import open_reply, stopped
from mulle.core.errors import Unavailable, UsageError
from mulle.core.records.base import Json, to_json

try:
    from distributed import Client, Future, LocalCluster
except ImportError as error:
    raise UsageError("compute on Dask needs the extra 'dask'", next="pip install 'mulle[dask]'") from error

from mulle.adapters.compute.worker import SCHEDULER, Children, look, prepare, run_in_child, unseen

__all__ = ["LOCAL", "DaskCompute"]

LOCAL = "dask://local"
"""A cluster of our own on this machine, a worker for each core; it ends with this process."""

_CONNECT_SECONDS = 30.0
_LOOK_SECONDS = 5.0
"""While a task is under way, the cluster is looked at so often."""

_MARK = ".shared-id"


class DaskCompute:
    """Sends tasks to the workers of a Dask cluster.

    A worker cannot end a thread, so it runs each task in a child of `LocalCompute`: limits of time and memory and a crash are
    then what they are on one machine. The child also ends when its caller does, or when its worker does.

    Parameters
    ----------
    url : str
        ``dask://host:port`` of a scheduler, or `LOCAL`. A child of a worker uses the scheduler of its worker.
    processes : int
        Calls at once; more callers than that wait.
    shared : sequence of Path
        Folders that exist here and that every worker must see under the same path.
    warm : sequence of str
        Modules that a child imports before its first task.
    log : Path, optional
        File that what children print is appended to; default: the worker's stderr.
    waits : bool
        Tasks may wait for others on the same cluster: they take no place in a worker, so that the others find one.

    Raises
    ------
    Unavailable
        When no scheduler answers, or it has no worker.
    UsageError
        When the URL is none, or a worker has another version of Mulle or does not see a folder.
    """

    def __init__(
        self,
        url: str,
        processes: int = 1,
        *,
        shared: Sequence[Path] = (),
        warm: Sequence[str] = (),
        log: Path | None = None,
        waits: bool = False,
    ) -> None:
        self._warm, self._log, self._waits = tuple(warm), None if log is None else str(log), waits
        self._marks = dict(map(_marked, shared))
        self._turn = threading.BoundedSemaphore(max(1, processes))
        self._lock = threading.Lock()
        self._running: dict[Future[Json], str] = {}
        self._stopped: set[Future[Json]] = set()
        self._closed = False
        self._ends = contextlib.ExitStack()
        try:
            self._client = self._ends.enter_context(_connected(url))
            self._check(url)
            self._client.register_plugin(Children())
            self._prepare(max(1, processes))
        except BaseException:
            self._ends.close()
            raise

    def call(
        self, task: str, arguments: Json, *, timeout: float | None = None, memory: int | None = None, owner: str = ""
    ) -> Json:
        """Run ``module:function`` with keyword arguments in a child of a worker and return its answer.

        Parameters
        ----------
        task : str
            For example ``mulle.bootstrap.tasks:run_task``; the function takes JSON keyword arguments and returns a dict.
        arguments : dict
        timeout : float, optional
            Seconds from the moment a child takes the task; then the child is killed.
        memory : int, optional
            Bytes, as for `LocalCompute.call`.
        owner : str, optional
            The run that it is for.

        Raises
        ------
        Deadline
            When the time was up and the child was killed.
        Unavailable
            When the child or its worker died, the scheduler is gone, or this is closed. Fact ``killed`` is ``memory`` when the
            child held more than it was given.
        UsageError
            When the worker does not see a shared folder.
        MulleError
            Whatever error of ours the task raised, rebuilt.
        """
        text = json.dumps(to_json(arguments))
        with self._turn:
            future = self._submit(task, text, timeout, memory, owner)
            try:
                reply = self._result(future, task)
            finally:
                with self._lock:
                    self._running.pop(future, None)
                    self._stopped.discard(future)
                # Released also when this thread was interrupted: the worker then kills the child.
                future.release()
        return open_reply(reply)

    def stop(self, owner: str) -> None:
        """Kill what computes for a run; its calls under way end with `Unavailable`."""
        with self._lock:
            running = [future for future, of in self._running.items() if of == owner]
            self._stopped.update(running)
        with contextlib.suppress(Exception):  # a cluster that is gone has nothing left to cancel
            self._client.cancel(running, force=True)

    def close(self) -> None:
        """End the calls under way with `Unavailable`, and a cluster of our own. Closing twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed, running = True, list(self._running)
        with contextlib.suppress(Exception):  # a cluster that is gone has nothing left to cancel
            self._client.cancel(running, force=True)
        with _quiet():
            self._ends.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed: it takes no more calls."""
        return self._closed

    def _submit(self, task: str, text: str, timeout: float | None, memory: int | None, owner: str) -> Future[Json]:
        with self._lock:
            if self._closed:
                raise Unavailable("compute is closed", next="start it again")
            future = self._client.submit(
                run_in_child, task, text, timeout, memory, self._warm, self._log, self._marks, self._waits,
                key=f"{task.replace(':', '.')}-{uuid.uuid4().hex}", pure=False,
            )  # fmt: skip
            self._running[future] = owner
        return future

    def _result(self, future: Future[Json], task: str) -> Json:
        while True:
            try:
                reply: Json = future.result(timeout=_LOOK_SECONDS)
                return reply
            except TimeoutError:
                self._refuse_idle(task)
            except CancelledError as error:
                if self._closed:
                    raise Unavailable(f"{task} was stopped: compute was closed", next="start it again", task=task) from None
                if future in self._stopped:
                    raise stopped(task) from None
                raise Unavailable(f"the Dask scheduler of {task} went away: {error}", next="start it again", task=task) from error
            except Exception as error:  # whatever Dask says of a worker that is gone
                said = f"{type(error).__name__}: {error}"
                raise Unavailable(f"{task} could not be run on Dask: {said}", next="look at the workers", task=task) from error

    def _refuse_idle(self, task: str) -> None:
        with contextlib.suppress(Exception):
            if self._client.nthreads():
                return
        raise Unavailable(f"no Dask worker is left for {task}", next="start workers, then try again", task=task)

    def _check(self, url: str) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except TimeoutError:
            raise Unavailable(f"the Dask scheduler at {url} has no worker", next="start one: dask worker HOST:PORT") from None
        found: dict[str, Json] = self._client.run(look, self._marks)
        for worker, seen in found.items():
            if seen["version"] != __version__:
                raise UsageError(
                    f"the Dask worker {worker} has Mulle {seen['version']}, here is {__version__}",
                    next="install the same version there, and start the worker again", worker=worker,
                )  # fmt: skip
        if hidden := {worker: seen["hidden"] for worker, seen in found.items() if seen["hidden"]}:
            raise unseen(hidden)

    def _prepare(self, processes: int) -> None:
        if not self._warm:
            return
        left = processes
        for worker, places in self._client.nthreads().items():
            if (count := min(left, places)) > 0:
                self._client.run(prepare, self._warm, count, self._log, workers=[worker])
                left -= count


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Client]:
    place = os.environ.get(SCHEDULER) or url.removeprefix("dask://")
    if not url.startswith("dask://") or not place:
        raise UsageError(f"'{url}' is no URL of a Dask cluster", next="write dask://host:port, or dask://local")
    with contextlib.ExitStack() as stack:
        if place == LOCAL.removeprefix("dask://"):
            cluster = LocalCluster(
                n_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0,
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
            place = stack.enter_context(cluster).scheduler_address
        try:
            client = Client(place, timeout=_CONNECT_SECONDS, set_as_default=False, name="mulle")
        except (OSError, ValueError) as error:
            raise Unavailable(f"no Dask scheduler answers at {url}: {error}", next="start one: dask scheduler") from error
        yield stack.enter_context(client)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # What is cancelled at the end is told by our own error, not by warnings of each connection.
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _marked(folder: Path) -> tuple[str, str]:
    """Give a file of the folder, and the text in it that no other folder has."""
    path = folder / _MARK
    if not path.exists():
        fresh = path.with_suffix(f".{uuid.uuid4().hex}")
        fresh.write_text(uuid.uuid4().hex)
        fresh.replace(path)
    return str(path), path.read_text()
