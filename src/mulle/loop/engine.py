"""The durable engine: runs a run's stages as steps that survive ``kill -9``; the only module that knows DBOS.

The loop submits a run, the engine calls its stages one by one and commits each result. What was committed is never
run again: after a crash the run goes on at the first stage without a result, and that stage may run twice, so stages
must be idempotent. DBOS keeps replay state only; everything a user sees is told to the observer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mulle.core.errors import Conflict, Deadline, MulleError, NotFound, Refused, Unavailable
from mulle.core.records.base import Json, to_json
from mulle.core.records.run import FURTHER, STAGES
from mulle.kernel.faults import point
from mulle.loop.lock import Lock, hold

__all__ = ["Engine", "Observer", "Step", "prepare"]

Step = Callable[[str, Json], Json]
"""A stage: run id and earlier results by name, to small JSON; ``{"rejected": why}`` ends the run, ``{"then": name}`` goes on."""

PROTOCOL = "1"
"""Version of the workflow's shape; raised when steps are added or moved before ones that a waiting run has finished."""

ATTEMPTS = 5
BACKOFF = 0.5
"""Seconds before the second attempt of a stage; doubles with each one."""

_NAME, _QUEUE, _WORKFLOW = "mulle", "runs", "mulle.run"
_POLL = 0.25
"""Seconds between two looks at the queue: an eighth of a second of delay on average, for 2% of a core."""
_LIVE = ["PENDING", "ENQUEUED", "DELAYED"]

_PROCESS = threading.Lock()
"""The vendor keeps one instance per process."""

log = logging.getLogger("mulle.engine")

T = TypeVar("T")


class Observer(Protocol):
    """What is told about runs. A stage that runs again after a crash tells again: writing must be idempotent."""

    def state(self, run: str, state: str, reason: str) -> None:
        """Note a run's new state (`mulle.core.records.run.STATES`) and, where it ended badly, why."""
        ...

    def stage(self, run: str, name: str, state: str, seconds: float) -> None:
        """Note that a stage is ``started``, ``done``, ``skipped`` or ``failed``, and its wall time in seconds, 0 at first."""
        ...


class _Stopped(BaseException):
    """The engine closes: nothing may be recorded, so that the next start takes the step up again.

    Not an `Exception`: DBOS records those as the step's outcome.
    """


class Engine:
    """Runs are taken one after another, their stages in the order of `STAGES`; one engine per home and process.

    Parameters
    ----------
    home : Path
        Holds ``engine.db`` (mode 600: DBOS unpickles what it reads, so the file is trusted like code) and the lock.
    steps : mapping of str to callable
        A function per stage; stages that are not named are left out.
    observe : Observer
        Told of states and stages.
    database : str, optional
        URL of another database than ``home/engine.db``.
    """

    def __init__(self, home: Path, steps: Mapping[str, Step], observe: Observer, *, database: str | None = None) -> None:
        self._backoff = BACKOFF
        self._home, self._observe = home, observe
        self._steps = {name: steps[name] for name in STAGES if name in steps}
        self._database = database or ""
        self._lock: Lock | None = None
        self._closing = threading.Event()
        self._ended = threading.Condition()
        self._active = 0
        self._outlasted = False
        self._dbos: Any = None
        self._workflow: Any = None

    def start(self) -> None:
        """Take the lock, open the journal and go on with the runs that were under way.

        Raises
        ------
        Conflict
            When an engine runs on this home, or another one in this process.
        Unavailable
            When the journal cannot be opened.
        """
        lock = hold(self._home / "engine.lock")
        if not _PROCESS.acquire(blocking=False):
            lock.release()
            raise Conflict(f"this process, pid {os.getpid()}, already runs an engine", next="close it first", pid=os.getpid())
        self._lock = lock
        try:
            self._launch()
        except BaseException as error:
            self._destroy()
            self._release()
            if isinstance(error, MulleError) or not isinstance(error, Exception):
                raise
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise Unavailable(
                f"the engine's database cannot be opened: {cause}", next="see that it exists and is whole"
            ) from error

    def submit(self, run: str) -> None:
        """Queue a run; one that was submitted before, finished or not, is left as it is.

        Parameters
        ----------
        run : str
            The run's id.
        """
        from dbos import SetWorkflowID

        dbos = self._started()
        with SetWorkflowID(run):
            dbos.enqueue_workflow(_QUEUE, self._workflow, run)

    def wait(self, run: str, timeout: float | None = None) -> str:
        """Wait for a run's end.

        Parameters
        ----------
        run : str
        timeout : float, optional
            Seconds.

        Returns
        -------
        str
            ``succeeded``, ``rejected``, ``failed`` or ``cancelled``.

        Raises
        ------
        NotFound
            When the run was never submitted.
        Deadline
            When it has not ended in time; it goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            state = self._final(run)
            if state:
                return state
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise Deadline(f"run {run} has not ended after {timeout:g} s", next="wait longer; the run goes on", run=run)
            with self._ended:
                # The run tells its end a moment before the journal commits it, hence the short wait after the word.
                self._ended.wait(min(left, 0.005 if self._active == 0 else 0.1))

    def cancel(self, run: str, reason: str = "cancelled") -> None:
        """End a run: a stage under way is not interrupted, and none follows it.

        Raises
        ------
        NotFound
            When the run was never submitted.
        Conflict
            When it has already ended.
        """
        dbos = self._started()
        state = self._final(run)
        if state is None:
            dbos.cancel_workflow(run)
            state = self._final(run)
        if state != "cancelled":
            raise Conflict(f"run {run} has already ended: {state}", next="nothing is left to cancel", run=run, state=state)
        self._observe.state(run, "cancelled", reason)

    def unfinished(self) -> list[str]:
        """Return the ids of the runs that wait or run, oldest first."""
        found = self._started().list_workflows(status=_LIVE, name=_WORKFLOW, load_input=False, load_output=False)
        return [status.workflow_id for status in found]

    def close(self, grace: float = 5.0) -> None:
        """Stop; a stage that does not finish within the grace is taken up again at the next start.

        Close compute before, so that a stage that waits for it ends at once. The lock is given back when no stage
        runs any more: a stage that outlasts the grace keeps it until it ends.

        Parameters
        ----------
        grace : float
            Seconds to wait for the stage under way.
        """
        if self._dbos is None:
            return
        self._closing.set()
        with self._ended:
            self._outlasted = not self._ended.wait_for(lambda: self._active == 0, grace)
        self._destroy()
        with self._ended:
            if not self._active:
                self._release()

    def _destroy(self) -> None:
        dbos, self._dbos = self._dbos, None
        if dbos is not None:
            dbos.destroy(destroy_registry=True)

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
            _PROCESS.release()

    def _started(self) -> Any:
        if self._dbos is None:
            raise Unavailable("the engine is not running", next="start it first")
        return self._dbos

    def _final(self, run: str) -> str | None:
        status = self._started().get_workflow_status(run)
        if status is None:
            raise NotFound(f"no run '{run}' was submitted", next="see `mulle runs ls`", run=run)
        if status.status in _LIVE:
            return None
        if status.status == "SUCCESS":
            return str(status.output["state"])
        return "cancelled" if status.status == "CANCELLED" else "failed"

    def _launch(self) -> None:
        import dbos as vendor

        # Quiet before the vendor sets its own level: making its objects already talks.
        logging.getLogger("dbos").setLevel(logging.ERROR)
        url = _journal(self._database or f"sqlite:///{self._home.resolve()}/engine.db")
        serializer = vendor.DBOSPortableJSONSerializer()
        _register_queue(vendor, url, serializer)
        vendor.DBOS(
            config={
                "name": _NAME,
                "system_database_url": url,
                "serializer": serializer,
                "application_version": PROTOCOL,
                "executor_id": _executor(self._home),
                "log_level": "ERROR",
                "enable_otlp": False,
                "notification_listener_polling_interval_sec": _POLL,
            }
        )

        def workflow(run: str) -> Json:
            return self._run(run)

        self._workflow = vendor.DBOS.workflow(name=_WORKFLOW)(workflow)
        self._dbos = vendor.DBOS
        self._closing.clear()
        vendor.DBOS.launch()

    def _run(self, run: str) -> Json:
        with self._ended:
            self._active += 1
        try:
            return self._stages(run, self._started())
        finally:
            with self._ended:
                self._active -= 1
                if self._outlasted and not self._active:
                    self._release()
                self._ended.notify_all()

    def _stages(self, run: str, dbos: Any) -> Json:
        results: Json = {}
        end: Json = {"state": "succeeded", "reason": ""}
        for name, step in self._steps.items():
            _stop_if(self._closing.is_set())
            # What was committed decides, so that a run that goes on, also on a later release, takes the same steps.
            if name in FURTHER and all(found.get("then") != name for found in results.values()):
                continue
            outcome = dbos.run_step({"name": name}, self._stage, run, name, step, results)
            point(f"committed:{name}")
            if "state" in outcome:
                end = outcome
                break
            results[name] = outcome["result"]
        closing: Json = dbos.run_step({"name": "end"}, self._end, run, end)
        return closing

    def _stage(self, run: str, name: str, step: Step, results: Json) -> Json:
        if not results:
            self._retried(name, lambda: self._observe.state(run, "running", ""))
        self._retried(name, lambda: self._observe.stage(run, name, "started", 0.0))
        start = time.perf_counter()
        point(f"before:{name}")
        try:
            outcome: Json = {"result": _plain(self._retried(name, lambda: step(run, dict(results))))}
        except Exception as error:
            # What fails while the engine closes may fail for that reason: compute is gone.
            _stop_if(self._closing.is_set())
            outcome = _ending(run, name, error)
        _stop_if(self._outlasted)
        rejected = outcome.get("result", {}).get("rejected")
        if rejected:
            outcome = {"state": "rejected", "reason": str(rejected)}
        # A verdict is a result: only a stage that could not do its work has failed.
        state, seconds = "skipped" if outcome.get("result", {}).get("skipped") else "done", time.perf_counter() - start
        state = "failed" if outcome.get("state") == "failed" else state
        self._retried(name, lambda: self._observe.stage(run, name, state, seconds))
        point(f"after:{name}")
        return outcome

    def _end(self, run: str, end: Json) -> Json:
        self._retried("end", lambda: self._observe.state(run, end["state"], end["reason"]))
        point("after:end")
        return end

    def _retried(self, name: str, work: Callable[[], T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return work()
            except MulleError as error:
                _stop_if(self._closing.is_set())
                if not error.retryable or attempt == ATTEMPTS:
                    raise
                log.warning("%s: %s; attempt %d of %d follows", name, error, attempt + 1, ATTEMPTS)
                self._closing.wait(self._backoff * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


def _stop_if(closing: bool) -> None:
    if closing:
        raise _Stopped


def _plain(result: Json) -> Json:
    # What a stage sees of an earlier one must not differ between the first pass and a resumed one.
    plain: Json = json.loads(json.dumps(to_json(result)))
    return plain


def _ending(run: str, name: str, error: Exception) -> Json:
    if isinstance(error, Refused):
        return {"state": "rejected", "reason": error.detail}
    if isinstance(error, MulleError):
        tried = f" ({ATTEMPTS} attempts)" if error.retryable else ""
        return {"state": "failed", "reason": f"{name}: {error.detail}{tried}", "next": error.next}
    log.error("run %s, %s", run, name, exc_info=error)
    return {"state": "failed", "reason": f"{name}: {type(error).__name__}: {error}"}


def _journal(url: str) -> str:
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        # Made here and not by the vendor, so that it never exists with a wider mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            # A quarter less a step than with the rollback journal.
            connection.execute("pragma journal_mode=wal")
    return url


def _executor(home: Path) -> str:
    """Give the id that recovery goes by: unique among the living, the same at each start, moving with the home."""
    path = home / "engine.id"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    fresh = path.with_suffix(".new")
    fresh.write_text(uuid.uuid4().hex)
    fresh.replace(path)
    return path.read_text()


def _register_queue(vendor: Any, url: str, serializer: Any) -> None:
    # Before the launch: the vendor looks for new queues once a second only, which a fresh home would wait for.
    vendor.DBOS.migrate(url)
    client = vendor.DBOSClient(system_database_url=url, serializer=serializer)
    try:
        client.register_queue(_QUEUE, worker_concurrency=1, polling_interval_sec=_POLL, application_name=_NAME)
    finally:
        client.destroy()


def prepare() -> None:
    """Import what an engine needs, which takes a second; for a thread that has nothing else to do."""
    import dbos  # noqa: F401
