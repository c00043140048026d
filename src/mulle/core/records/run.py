"""Stages 3 to 5's records: a run, what happened in it, its trials and its gates' verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Cause, Json

__all__ = [
    "FINAL",
    "FURTHER",
    "OUTCOMES",
    "STAGES",
    "STATES",
    "GateResult",
    "Member",
    "Run",
    "RunEvent",
    "Stage",
    "Trial",
    "run_stages",
    "run_state",
]

STAGES = ("ingest", "check", "publish", "features", "search", "evaluate", "bundle", "gate", "register", "roll_out", "members")
"""The steps of a run, in order."""

FURTHER = ("members",)
"""Steps that a run has only when the step before asks for them (``then`` in its result): fleets."""

OUTCOMES = ("trained", "kept", "held_back", "failed", "small")
"""What becomes of a fleet's member in a run: a version of its own; its earlier version stays; the shared model stays, because
gates held the new one back, its training failed, or its rows are too few."""

STATES = ("queued", "running", "succeeded", "rejected", "failed", "cancelled")
"""The states of a run; the last four are final."""

FINAL = STATES[2:]
"""States that a run does not leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One attempt to make a better model version, with what caused it.

    Attributes
    ----------
    cutoff : datetime
        Only rows whose outcome was available at this instant are used.
    code : str
        Hash of the executed project source.
    git : str or None
        Commit of the project, ``-dirty`` appended when it had changes.
    seed : int
        Of split and search.
    release : str
        Mulle's version and a hash of the project's lock files; empty in records of earlier releases.
    options : dict
        What deviates from the declaration (for example ``{"sabotage": "shuffled_targets"}`` in the demo).
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    model: str
    cutoff: datetime
    code: str
    git: str | None = None
    seed: int = 0
    options: Json = field(default_factory=dict)
    release: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something that happened in a run: ``state`` events carry a state, ``stage`` events a stage's end, ``data`` what is read.

    Attributes
    ----------
    id : str
        Derived from run, kind and name, so that a step that runs again writes nothing new.
    kind : str
        ``state``, ``stage`` or ``data``.
    name : str
        The new state, or the stage.
    state : str
        For stages ``started``, ``done``, ``skipped`` or ``failed``; empty otherwise.
    seconds : float
        Wall time of the stage; 0 otherwise.
    detail : dict
        A state's ``reason``; of ``data`` each dataset's version as ``data``.
    """

    id: str
    run: str
    at: datetime
    kind: str
    name: str
    state: str = ""
    seconds: float = 0.0
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate with one set of parameters, scored on validation (lower is better).

    Attributes
    ----------
    state : str
        ``done``, ``failed`` or ``pruned`` (stopped early: clearly behind).
    failure : str
        Of a failed one: ``error``, ``timeout``, ``memory`` or ``crash``.
    folds : tuple of float
        The score on each fold; `score` is their mean.
    rungs : tuple of float or None
        With pruning: the score on each share of the rows.
    train_on : str
        ``all``, or the span of the latest rows.
    memory : int or None
        The most bytes that its process held while it ran; None where the process died, or the system does not tell.
    """

    run: str
    number: int
    candidate: str
    params: Json
    score: float | None
    state: str
    seconds: float
    reason: str = ""
    failure: str = ""
    folds: tuple[float, ...] = ()
    rungs: tuple[float | None, ...] = ()
    train_on: str = "all"
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's verdict: ``pass``, ``fail``, ``not_enough_evidence`` or ``recorded`` (measured, does not decide).

    Attributes
    ----------
    rows : int
        What the value was measured on.
    low, high : float or None
        The value's 95% interval, where it has one.
    model : str
        The member of a fleet that it is about; empty for the run's own model.
    """

    gate: str
    metric: str
    value: float | None
    bound: float | None
    verdict: str
    reason: str
    rows: int = 0
    low: float | None = None
    high: float | None = None
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a run did with one member of a fleet.

    Attributes
    ----------
    model : str
        ``FLEET/KEY``.
    outcome : str
        One of `OUTCOMES`.
    reason : str
        Why it has no new version; empty for ``trained``.
    rows : int
        Training rows of its key.
    metric : str
        What `value` and `shared` are: the model's metric on the member's own holdout rows, by its new model and by the shared
        one; None where it was not measured.
    version : int or None
        The version that was registered.
    candidate : str
        The search's winner.
    """

    run: str
    model: str
    outcome: str
    reason: str = ""
    rows: int = 0
    metric: str = ""
    value: float | None = None
    shared: float | None = None
    version: int | None = None
    candidate: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage as derived from a run's events."""

    name: str
    state: str
    seconds: float


def run_state(events: Sequence[RunEvent]) -> str:
    """Derive a run's present state from its events, oldest first.

    Examples
    --------
    >>> run_state([])
    'queued'
    """
    state = "queued"
    for event in events:
        if event.kind == "state":
            state = event.name
    return state


def run_stages(events: Sequence[RunEvent]) -> tuple[Stage, ...]:
    """Derive the stages a run went through, in order; the latest event of a stage wins."""
    latest = {e.name: Stage(name=e.name, state=e.state, seconds=e.seconds) for e in events if e.kind == "stage"}
    return tuple(latest[name] for name in STAGES if name in latest)
