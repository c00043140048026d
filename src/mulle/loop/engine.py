"""The durable engine: runs a run's stages as steps that survive ``kill -9``; the only module that knows DBOS.

Who runs what is decided by the queue that all workers of a home share (`mulle.loop.dispatch`). The engine calls the stages of
what it took one by one and commits each result. What was committed is never run again: after a crash the run goes on at the
first stage without a result, here or on another worker, and that stage may run twice, so stages must be idempotent. DBOS keeps
replay state only; everything a user sees is told to the observer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mulle.core.errors import Conflict, Deadline, LostFence, MulleError, NotFound, Unavailable
from mulle.core.records.base import Json
from mulle.loop.dispatch import DEAD, Pulse, Turns
from mulle.loop.lock import Lock
from mulle.loop.place import SCHEMA, hold_place, journal_options, prepared_journal
from mulle.loop.stages import ATTEMPTS, BACKOFF, Observer, Step, StoppedError, Told, Underway, Way

if TYPE_CHECKING:
    from mulle.core.ports.metadata import Claim, Queue

__all__ = ["ATTEMPTS", "Engine", "Observer", "Step", "Turns", "prepare", "sweep_journal"]

PROTOCOL = "1"
"""Version of the workflow's shape; raised when steps are added or moved before ones that a waiting run has finished."""

_NAME, _WORKFLOW = "mulle", "mulle.run"
_POLL = 0.25
"""Seconds between two looks at the queue, which other processes put runs into; what is submitted here starts at once."""
_QUIET = {"log_level": "ERROR", "enable_otlp": False}
_LIVE = ("PENDING", "ENQUEUED", "DELAYED")

_PROCESS = threading.Lock()
"""The vendor keeps one instance per process."""

log = logging.getLogger("mulle.engine")


class Engine:
    """Takes runs from the queue and goes through their stages.

    Parameters
    ----------
    home : Path
        Holds ``engine.db`` (mode 600: DBOS unpickles what it reads, so the journal is trusted like code) and the locks.
    steps : mapping of str to callable
        A function per stage; stages that are not named are left out.
    observe : Observer
        Told of states and stages.
    queue : Queue
        Shared with every worker of the home.
    database : str, optional
        URL of a journal on PostgreSQL, in a schema of its own. Then any number of engines may run on the home, each in a
        place of its own; with ``home/engine.db`` it is one.
    turns : Turns, optional
        How many runs may be under way at once.
    stop : callable, optional
        Ends what computes for a run that was cancelled or taken over.
    dead : float, optional
        Seconds of silence after which another worker is taken for dead.
    """

    def __init__(
        self,
        home: Path,
        steps: Mapping[str, Step],
        observe: Observer,
        queue: Queue,
        *,
        database: str = "",
        turns: Turns | None = None,
        stop: Callable[[str], None] = lambda _: None,
        dead: float = DEAD,
    ) -> None:
        self._backoff = BACKOFF
        self._home, self._observe, self._queue = home, observe, queue
        self._way = Way(steps, observe)
        self._database, self._turns, self._stop, self._dead = database, turns or Turns(), stop, dead
        self._lock: Lock | None = None
        self._closing, self._wake = threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._under: dict[str, Underway] = {}
        self._dbos: Any = None
        self._workflow: Any = None
        self._pulse: Pulse | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take a place, open the journal and go on with the runs that were under way.

        Raises
        ------
        Conflict
            When an engine runs on this home and its journal allows for one only, or another one in this process.
        Unavailable
            When the journal cannot be opened.
        """
        worker, lock = hold_place(self._home, shared=bool(self._database))
        if not _PROCESS.acquire(blocking=False):
            lock.release()
            raise Conflict(f"this process, pid {os.getpid()}, already runs an engine", next="close it first", pid=os.getpid())
        self._lock = lock
        self._way.backoff = self._backoff
        try:
            self._launch(worker)
        except BaseException as error:
            self._destroy()
            self._release()
            if isinstance(error, MulleError) or not isinstance(error, Exception):
                raise
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise Unavailable(
                f"the engine's database cannot be opened: {cause}", next="see that it exists and is whole"
            ) from error
        self._pulse = Pulse(self._queue, worker, dead=self._dead)
        self._thread = threading.Thread(target=self._look_on, name="mulle-engine", daemon=True)
        self._thread.start()

    def submit(self, run: str, *, model: str = "", priority: int = 0) -> None:
        """Queue a run, once; runs of one model go one after another, those of a lower priority first."""
        self._started()
        self._queue.put(run, model=model, priority=priority)
        self._wake.set()

    def wait(self, run: str, timeout: float | None = None) -> str:
        """Wait for a run's end.

        Raises
        ------
        NotFound
            When the run was never submitted.
        Deadline
            When it has not ended in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._started()
            if (state := self._ended(run)) and run not in self._under:
                return state
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise Deadline(f"run {run} has not ended after {timeout:g} s", next="wait longer; the run goes on", run=run)
            with self._changed:
                self._changed.wait(min(left, 0.1 if run in self._under else 0.02))

    def cancel(self, run: str, reason: str = "cancelled") -> None:
        """End a run: what computes for it is killed, and what comes too late is not kept.

        Raises
        ------
        NotFound
            When the run was never submitted.
        Conflict
            When it has already ended.
        """
        self._started()
        if state := self._ended(run):
            raise Conflict(f"run {run} has already ended: {state}", next="nothing is left to cancel", run=run, state=state)
        self._observe.tell(run, Told("state", "cancelled", reason=reason))
        self._queue.end(run, "cancelled")
        if under := self._under.get(run):
            self._lose(under)

    def unfinished(self) -> Sequence[str]:
        """Return the ids of the runs that wait or run, oldest first."""
        self._started()
        return self._queue.unfinished()

    def close(self, grace: float = 5.0) -> None:
        """Stop; a stage that outlasts the grace keeps the lock, and is taken up again at the next start or by another worker.

        Close compute before, so that a stage that waits for it ends at once.
        """
        if self._dbos is None:
            return
        self._closing.set()
        for under in tuple(self._under.values()):
            under.leaving.set()
        self._wake.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._under, grace)
            for under in self._under.values():
                under.gone.set()
        if self._thread is not None:
            self._thread.join()
        self._destroy()
        with self._changed:
            if all(under.returned.is_set() for under in self._under.values()):
                self._leave()

    def _destroy(self) -> None:
        dbos, self._dbos = self._dbos, None
        if dbos is not None:
            # The journal may still be committing the end of a run that was told: it is not missed, and no word is lost on it.
            logging.getLogger("dbos").setLevel(logging.CRITICAL + 1)
            dbos.destroy(destroy_registry=True)

    def _leave(self) -> None:
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            with contextlib.suppress(MulleError):
                pulse.stop()
            self._release()

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
            _PROCESS.release()

    def _started(self) -> Any:
        if self._dbos is None:
            raise Unavailable("the engine is not running", next="start it first")
        return self._dbos

    def _ended(self, run: str) -> str:
        state = self._queue.ended(run)
        if state is None:
            raise NotFound(f"no run '{run}' was submitted", next="see `mulle runs ls`", run=run)
        return state

    def _launch(self, worker: str) -> None:
        import dbos as vendor

        # Quiet before the vendor sets its own level: making its objects already talks.
        logging.getLogger("dbos").setLevel(logging.ERROR)
        url = prepared_journal(self._database or f"sqlite:///{self._home.resolve()}/engine.db")
        serializer = vendor.DBOSPortableJSONSerializer()
        # Before the launch: the vendor looks for new queues once a second only, which a fresh home would wait for.
        vendor.DBOS.migrate(url, schema=SCHEMA)
        client = vendor.DBOSClient(system_database_url=url, serializer=serializer, dbos_system_schema=SCHEMA)
        try:
            client.register_queue(worker, polling_interval_sec=_POLL, application_name=_NAME)
        finally:
            client.destroy()
        vendor.DBOS(
            config={
                "name": _NAME,
                "system_database_url": url,
                "db_engine_kwargs": journal_options(url),
                "dbos_system_schema": SCHEMA,
                "serializer": serializer,
                "application_version": PROTOCOL,
                # Not the worker's: what a former life left is taken up by the queue's rule, not by the vendor's.
                "executor_id": f"{worker}:{uuid.uuid4().hex[:8]}",
                "notification_listener_polling_interval_sec": _POLL,
                **_QUIET,
            }
        )
        vendor.DBOS.listen_queues([worker])

        def workflow(run: str, given: Json | None = None) -> Json:
            return self._run(run, given or {})

        self._workflow = vendor.DBOS.workflow(name=_WORKFLOW)(workflow)
        self._dbos = vendor.DBOS
        self._closing.clear()
        vendor.DBOS.launch()

    def _look_on(self) -> None:
        while True:
            try:
                self._look()
            except MulleError as error:
                log.warning("the engine waits: %s", error.detail)
            except Exception:
                # One bad look must not end the engine; the next one may succeed.
                log.exception("the engine's look failed")
            if self._closing.is_set() and not any(under.returned.is_set() for under in tuple(self._under.values())):
                return
            self._wake.wait(_POLL)
            self._wake.clear()

    def _look(self) -> None:
        for under in tuple(self._under.values()):
            if under.returned.is_set():
                self._finish(under)
        pulse = self._pulse
        if self._closing.is_set() or pulse is None:
            return
        dead = pulse.look(tuple(self._under))
        held = {claim.run: claim for claim in self._queue.held(pulse.worker)}
        for under in tuple(self._under.values()):
            if under.run not in held and not under.returned.is_set():
                self._lose(under)
        for claim in held.values():
            if claim.run not in self._under:
                self._begin(claim)
        while len(self._under) < self._turns.here:
            taken = self._queue.take(pulse.worker, dead=dead, at_most=self._turns.everywhere)
            if taken is None:
                break
            self._begin(taken)

    def _begin(self, claim: Claim) -> None:
        from dbos import SetWorkflowID

        dbos, pulse = self._started(), self._pulse
        status = None if claim.first else dbos.get_workflow_status(claim.run)
        if status is not None and status.status not in _LIVE:
            # It ended, and its process before it could say so.
            if status.status == "SUCCESS":
                self._tell_end(claim.run, claim.token, str(status.output["state"]))
            else:
                self._tell_end(claim.run, claim.token, broken=str(status.error or status.status))
            return
        under = self._under[claim.run] = Underway(claim.run, claim.token)
        try:
            if status is not None:
                dbos.resume_workflow(claim.run, queue_name=pulse.worker if pulse else None)
            else:
                with SetWorkflowID(claim.run):
                    dbos.start_workflow(self._workflow, claim.run, self._given(claim))
        except BaseException:
            self._under.pop(under.run)
            raise

    def _given(self, claim: Claim) -> Json:
        """Look up the results that a run takes over from another instead of making its own."""
        wanted = claim.given.get("stages", ())
        if not wanted:
            return {}
        steps = self._started().list_workflow_steps(claim.given["of"])
        outputs = {step["function_name"]: step["output"] for step in steps if isinstance(step["output"], dict)}
        found = {name: outputs[name]["result"] for name in wanted if "result" in outputs.get(name, {})}
        status = self._started().get_workflow_status(claim.given["of"])
        # What that run itself took over is in what it was given.
        earlier = status.input["args"][1:] if status and status.input else ()
        return {n: part[n] for part in earlier if part for n in wanted if n in part} | found

    def _finish(self, under: Underway) -> None:
        # The journal may commit that end a little later: it is the queue that says whether a run is taken up again.
        if not under.gone.is_set() and not under.leaving.is_set():
            self._tell_end(under.run, under.token, under.state, under.broken)
        with self._changed:
            self._under.pop(under.run, None)
            self._changed.notify_all()

    def _tell_end(self, run: str, token: str, state: str = "failed", broken: str = "") -> None:
        if broken and not self._ended(run):
            with contextlib.suppress(LostFence), self._queue.fence(run, token):
                self._observe.tell(run, Told("state", state, reason=f"the engine could not go on: {broken}"))
        self._queue.end(run, state, token)

    def _lose(self, under: Underway) -> None:
        if not under.gone.is_set():
            under.lose()
            self._stop(under.run)

    def _run(self, run: str, given: Json) -> Json:
        under = self._under.get(run)
        if under is None:
            raise StoppedError
        dbos = self._started()
        try:
            with self._queue.fence(run, under.token):
                end = self._way.go(under, given, lambda name, work: dbos.run_step({"name": name}, work))
            under.state = str(end["state"])
            return end
        except BaseException as error:
            under.broken = f"{type(error).__name__}: {error}"
            raise
        finally:
            under.returned.set()
            self._wake.set()
            with self._changed:
                # A stage that outlasted the close kept the lock until here.
                if self._dbos is None and all(u.returned.is_set() for u in self._under.values()):
                    self._leave()


def sweep_journal(home: Path, database: str, runs: Sequence[str]) -> None:
    """Remove what the journal keeps of runs that have ended; an engine may run meanwhile."""
    import dbos as vendor

    if not database and not (home / "engine.db").exists():
        return
    url = database or f"sqlite:///{home.resolve()}/engine.db"
    client = vendor.DBOSClient(system_database_url=url, dbos_system_schema=SCHEMA, serializer=vendor.DBOSPortableJSONSerializer())
    try:
        client.delete_workflows(list(runs))
    finally:
        client.destroy()


def prepare() -> None:
    """Import what an engine needs, which takes a second; for a thread that has nothing else to do."""
    import dbos  # noqa: F401
