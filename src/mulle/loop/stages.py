"""A run's way through its stages: in order, tried again where that may help, told to who watches, ended with a reason."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from mulle.core.errors import Deadline, LostFence, MulleError, Refused
from mulle.core.records.base import Json, to_json
from mulle.core.records.run import FURTHER, STAGES
from mulle.kernel.faults import point

__all__ = ["ATTEMPTS", "BACKOFF", "Observer", "Step", "StoppedError", "Told", "Underway", "Way"]

Step = Callable[[str, Json], Json]
"""A stage: run id and earlier results by name, to small JSON; ``{"rejected": why}`` ends the run, ``{"then": name}`` goes on."""

Commit = Callable[[str, Callable[[], Json]], Json]
"""Does a named piece of work once: what was committed under the name before is given back instead."""

ATTEMPTS = 5
BACKOFF = 0.5
"""Seconds before the second attempt of a stage; doubles with each one."""

log = logging.getLogger("mulle.engine")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened in a run.

    Attributes
    ----------
    kind : str
        ``state`` for the run's new state, ``stage`` for one of its stages.
    name : str
        The new state (`mulle.core.records.run.STATES`), or the stage.
    state : str
        Of a stage: ``started``, ``done``, ``skipped`` or ``failed``.
    seconds : float
        Wall time of a stage that is over.
    reason, next : str
        Where a run ended badly: why, and what to do.
    """

    kind: str
    name: str
    state: str = ""
    seconds: float = 0.0
    reason: str = ""
    next: str = ""


class Observer(Protocol):
    """What is told about runs. A stage that runs again after a crash tells again: writing must be idempotent."""

    def tell(self, run: str, *told: Told) -> None:
        """Note what happened in a run, in this order, all of it or nothing."""
        ...


class StoppedError(BaseException):
    """A run stops where it is: nothing may be recorded, so that whoever takes it up next begins the stage again.

    Not an `Exception`: an engine records those as the step's outcome.
    """


@dataclass(slots=True)
class Underway:
    """A run that this process works on.

    Attributes
    ----------
    leaving : Event
        No stage is begun any more, and none is tried again.
    gone : Event
        Nothing is recorded any more: the run was taken over or cancelled, or the engine is closed.
    returned : Event
        Its thread works no more.
    begun : bool
        Whether a stage was begun in this life.
    state : str
        What it ended in.
    broken : str
        What ended its thread otherwise.
    """

    run: str
    token: str
    leaving: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    returned: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    state: str = "failed"
    broken: str = ""

    def lose(self) -> None:
        """Let go of the run: it is another's, or has ended."""
        self.gone.set()
        self.leaving.set()


class Way:
    """Goes through the stages of runs.

    Parameters
    ----------
    steps : mapping of str to callable
        A function per stage, in the order of `STAGES`; stages that are not named are left out.
    observe : Observer
    """

    def __init__(self, steps: Mapping[str, Step], observe: Observer) -> None:
        self.backoff = BACKOFF
        self._steps = {name: steps[name] for name in STAGES if name in steps}
        self._observe = observe

    def go(self, under: Underway, given: Json, commit: Commit) -> Json:
        """Go through the stages that have no result yet.

        Parameters
        ----------
        under : Underway
        given : dict
            Results of stages that are not done again, by name.
        commit : callable

        Returns
        -------
        dict
            ``state`` and ``reason``.
        """
        results: Json = dict(given)
        end: Json = {"state": "succeeded", "reason": ""}
        over: tuple[Told, ...] = ()
        name = self._next("", given, results)
        while not self._left(under, over) and name:
            outcome = commit(name, partial(self._stage, under, name, over, results))
            point(f"committed:{name}")
            # Told with what comes next: a transaction of its own costs a fifth of a stage that does nothing.
            over = (Told("stage", name, **outcome["over"]),) if "over" in outcome else ()
            if "state" in outcome:
                end = outcome
                break
            results[name] = outcome["result"]
            name = self._next(name, given, results)
        # Not committed: to be told an end again changes nothing, and a commit takes as long as a stage.
        self._tell(under, "end", *over, Told("state", end["state"], reason=end["reason"], next=end.get("next", "")))
        point("after:end")
        return end

    def _next(self, name: str, given: Json, results: Json) -> str:
        # What was committed decides, so that a run that goes on, also on a later release, takes the same steps.
        asked = {found.get("then") for found in results.values()}
        names = list(self._steps)
        left = names[names.index(name) + 1 :] if name else names
        return next((n for n in left if n not in given and (n not in FURTHER or n in asked)), "")

    def _left(self, under: Underway, over: Sequence[Told]) -> bool:
        if not under.leaving.is_set():
            return False
        if over and not under.gone.is_set():
            self._tell(under, "end", *over)
        raise StoppedError

    def _stage(self, under: Underway, name: str, before: Sequence[Told], results: Json) -> Json:
        running = () if under.begun else (Told("state", "running"),)
        self._tell(under, name, *running, *before, Told("stage", name, "started"))
        under.begun = True
        start = time.perf_counter()
        point(f"before:{name}")
        try:
            outcome: Json = {"result": _plain(self._retried(under, name, lambda: self._steps[name](under.run, dict(results))))}
        except Exception as error:
            # What fails while the engine closes may fail for that reason: compute is gone.
            _stop_if(under.leaving)
            outcome = _ending(under.run, name, error)
        _stop_if(under.gone)
        result = outcome.get("result", {})
        # A verdict is a result: only a stage that could not do its work has failed.
        state = "failed" if outcome.get("state") == "failed" else "skipped" if result.get("skipped") else "done"
        if rejected := result.get("rejected"):
            outcome = {"state": "rejected", "reason": str(rejected)}
        point(f"after:{name}")
        return outcome | {"over": {"state": state, "seconds": time.perf_counter() - start}}

    def _tell(self, under: Underway, name: str, *told: Told) -> None:
        self._retried(under, name, lambda: self._observe.tell(under.run, *told))

    def _retried(self, under: Underway, name: str, work: Callable[[], T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return work()
            except LostFence as error:
                log.warning("%s", error.detail)
                under.lose()
                raise StoppedError from error
            except MulleError as error:
                _stop_if(under.leaving)
                if not _worth_trying(error) or attempt == ATTEMPTS:
                    raise
                log.warning("%s: %s; attempt %d of %d follows", name, error, attempt + 1, ATTEMPTS)
                under.leaving.wait(self.backoff * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


def _stop_if(event: threading.Event) -> None:
    if event.is_set():
        raise StoppedError


def _worth_trying(error: MulleError) -> bool:
    # What took all of its time would take it again.
    return error.retryable and not isinstance(error, Deadline)


def _plain(result: Json) -> Json:
    # What a stage sees of an earlier one must not differ between the first pass and a resumed one.
    plain: Json = json.loads(json.dumps(to_json(result)))
    return plain


def _ending(run: str, name: str, error: Exception) -> Json:
    if isinstance(error, Refused):
        return {"state": "rejected", "reason": error.detail}
    if isinstance(error, MulleError):
        tried = f" ({ATTEMPTS} attempts)" if _worth_trying(error) else ""
        return {"state": "failed", "reason": f"{name}: {error.detail}{tried}", "next": error.next}
    log.error("run %s, %s", run, name, exc_info=error)
    return {"state": "failed", "reason": f"{name}: {type(error).__name__}: {error}"}
