"""The search: candidates, their parameters and the past to train on together, by TPE, within a budget."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from mulle.core.declare.candidates import Candidate
from mulle.core.declare.training import Validation
from mulle.core.errors import TrialError
from mulle.core.hashing import hash_json
from mulle.core.ports.compute import Compute
from mulle.core.records.base import Json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.training.choose import choose
from mulle.lifecycle.training.fit import refuse_untrainable
from mulle.lifecycle.training.folds import Narrow, Rows, prepare_rows
from mulle.lifecycle.training.journal import Journal
from mulle.lifecycle.training.runners import Bounds, Here, Left, Runner, Workers
from mulle.lifecycle.training.split import split_folds
from mulle.lifecycle.training.suggest import labelled, study, suggested
from mulle.lifecycle.training.trial import BUDGETS

__all__ = ["SEARCH_ROWS", "Plan", "SearchResult", "search"]

SEARCH_ROWS = 60_000
"""Rows that trials are fitted and scored on, at most; a seeded sample of more. The winner is fitted on all."""

_LEAST_SECONDS = 10.0
"""Until a candidate was tried, a trial has at least so long: a search must find something."""

_LEAST_RIVALS = 4
"""Nothing is pruned before so many others were seen on as few rows."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a search goes about it, beyond candidates, trials and time; the default is one cheap fold, one trial at a time.

    Attributes
    ----------
    validation : Validation or None
    groups : numpy.ndarray of int, shape (n,), or None
        A code for each row's group, for folds by group.
    windows : tuple of str
        ``all`` or durations; of several the search chooses.
    narrow : callable or None
        Chooses the features of each fold from its training rows.
    parallel : int
        Trials at once, in workers.
    trial_timeout : float or None
        Seconds.
    memory : int or None
        Bytes that a trial's process may hold.
    prune : bool
    ensemble : int
        At most so many members.
    calibrate : bool
    workers : callable or None
        Makes a compute of so many processes; without it trials run in this process, and only time is limited.
    folder : Path or None
        Where workers' files go, and what trials found: a search that was killed goes on with it.
    project : Path or None
        The code snapshot, for candidates that are the project's own.
    """

    validation: Validation | None = None
    groups: npt.NDArray[np.int64] | None = None
    windows: tuple[str, ...] = ("all",)
    parallel: int = 1
    narrow: Narrow | None = None
    trial_timeout: float | None = None
    memory: int | None = None
    prune: bool = False
    ensemble: int = 1
    calibrate: bool = False
    workers: Callable[[int], Compute] | None = None
    folder: Path | None = None
    project: Path | None = None

    @property
    def apart(self) -> bool:
        """Whether trials run in processes of their own."""
        return self.workers is not None and (self.parallel > 1 or self.trial_timeout is not None or self.memory is not None)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    trials : list of dict
        ``number candidate params score state reason seconds``; score is the task's metric on validation, lower is
        better, None when the trial failed or was stopped; state is ``done``, ``failed`` or ``pruned``. Also ``failure``
        (empty, ``pruned``, ``timeout``, ``memory``, ``crash`` or ``error``), ``folds`` (each fold's score), ``rungs``
        (scores on fewer rows), ``train_on`` and ``memory`` (the most bytes that its process held). Trial 0 is the dummy
        baseline.
    settings : dict
        The winner's ``candidate`` and ``params``; ``train_on`` where it is not all, ``members`` (settings with a
        ``weight``) of an ensemble, and the ``calibration``.
    notes : tuple of str
        What was decided on the way, a sentence each.
    """

    trials: list[Json]
    settings: Json
    notes: tuple[str, ...] = ()


def search(
    matrix: Matrix,
    target: npt.NDArray[np.generic],
    order: npt.NDArray[np.generic] | None,
    *,
    task: str,
    candidates: Sequence[Candidate],
    specs: Sequence[FeatureSpec],
    trials: int,
    timeout: float | None,
    seed: int,
    warm: Sequence[Mapping[str, Any]] = (),
    plan: Plan | None = None,
) -> SearchResult:
    """Search candidates and their parameters.

    The order is: the dummy baseline, earlier winners (`warm`), each candidate as it comes, each further window, then what
    TPE suggests (Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization). The same rows, seed, trials and plan
    give the same result when time does not end a trial or the search: workers' answers are told in the order in which
    their trials were asked for, a fixed number of trials later. With a folder that also holds for a search whose process
    died and that is made again; a trial that was under way then, and all that follow, run in a process of their own, so
    that the one which kills its process is recorded.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, k)
    target : numpy.ndarray, shape (n,)
    order : numpy.ndarray of int64, shape (n,), or None
        Times in microseconds; the latest fifth is the validation set. Without, a random fifth. A plan may say otherwise.
    task : str
    candidates : sequence of Candidate
        The baseline wins only when ``dummy`` is among them.
    specs : sequence of FeatureSpec, length k
    trials : int
        At most so many, the baseline counted; at least one candidate is tried all the same.
    timeout : float or None
        Seconds; a trial under way is stopped then, and no new one starts, but at least one candidate is tried.
    seed : int
    warm : sequence of mapping
        Settings of earlier winners.
    plan : Plan, optional

    Returns
    -------
    SearchResult

    Raises
    ------
    DataError
        When the rows cannot be trained on, or not be split as planned.
    TrialError
        When no candidate could be fitted; facts hold the first reasons.
    """
    plan = plan or Plan()
    refuse_untrainable(matrix, target, task=task, specs=specs)
    rows = _prepared(matrix, target, order, task, specs, seed, plan)
    declared = labelled(candidates)
    dummy = next((c for c in candidates if c.kind == "dummy"), Candidate(kind="dummy"))
    baseline = {"candidate": "dummy", "params": dict(dummy.params)}
    keep, finished = plan.ensemble > 1 or plan.calibrate, False
    journal = Journal(plan.folder and plan.folder / "search", _about(rows, candidates, trials, warm, plan))
    runner = _runner(rows, journal, plan, candidates, keep)
    try:
        done = [_recorded(0, baseline, Here(rows, journal, keep=keep).start(0, baseline, None, lambda: None)() or {})]
        real = {label: c for label, c in declared.items() if c.kind != "dummy"}
        if real:
            clock = _Clock(timeout, plan.trial_timeout, journal)
            _explore(done, real, rows, runner, clock, trials=max(trials, 2), warm=warm, plan=plan)
        finished = True
        kinds = {c.kind for c in declared.values()} or {"dummy"}
        usable = [t for t in done if t["score"] is not None and t["candidate"] in kinds]
        if not usable:
            raise _nothing(done)
        settings, notes = choose(usable, rows, journal.said, most=plan.ensemble, calibrated=plan.calibrate)
    finally:
        runner.close()
        journal.close(done=finished)
    return SearchResult(trials=done, settings=settings, notes=notes)


def _about(rows: Rows, candidates: Sequence[Candidate], trials: int, warm: Sequence[Mapping[str, Any]], plan: Plan) -> str:
    """Hash what a search is, so that only its own trials are taken up again."""
    parts = [a for folds in rows.folds.values() for f in folds for a in (f.train, f.train_target, f.valid, f.valid_target)]
    sums = [zlib.crc32(part.tobytes()) for part in parts]
    limits = [trials, plan.parallel, plan.prune, plan.ensemble, plan.calibrate, rows.task, rows.seed, list(rows.folds)]
    return hash_json([sums, limits, repr(candidates), to_json(list(warm))])


def _prepared(
    matrix: Matrix, target: npt.NDArray[np.generic], order: npt.NDArray[np.generic] | None, task: str,
    specs: Sequence[FeatureSpec], seed: int, plan: Plan,
) -> Rows:  # fmt: skip
    span = None
    if plan.validation is not None and plan.validation.span is not None:
        span = plan.validation.span.total_seconds() * 1e6
    splits = split_folds(len(matrix), order, plan.validation, strata=target, groups=plan.groups, span=span, seed=seed)
    return prepare_rows(
        matrix, target, order, splits, task=task, specs=specs, windows=plan.windows, seed=seed, most=SEARCH_ROWS,
        narrow=plan.narrow,
    )  # fmt: skip


def _runner(rows: Rows, journal: Journal, plan: Plan, candidates: Sequence[Candidate], keep: bool) -> Runner:
    if plan.workers is None or not (plan.apart or journal.interrupted):
        return Here(rows, journal, keep=keep)
    own = any(":" in c.kind for c in candidates)
    compute = plan.workers(plan.parallel)
    return Workers(
        rows,
        journal,
        compute,
        parallel=plan.parallel,
        memory=plan.memory,
        keep=keep,
        folder=plan.folder,
        project=plan.project if own else None,
    )


class _Clock:
    """The time of a search: how long a trial may take, and when no other starts."""

    def __init__(self, timeout: float | None, trial_timeout: float | None, journal: Journal) -> None:
        self._timeout, self._trial, self._journal = timeout, trial_timeout, journal

    def over(self, number: int) -> bool:
        """Tell whether there is no time for a trial: one that is known from before takes none."""
        return self._timeout is not None and self._journal.spent > self._timeout and not self._journal.holds(number)

    def left(self, *, first: bool) -> float | None:
        """Give the seconds that a trial may take which starts now; the first one always has some."""
        if self._timeout is None:
            return self._trial
        left = self._timeout - self._journal.spent
        left = max(left, self._timeout, _LEAST_SECONDS) if first else left
        return left if self._trial is None else min(left, self._trial)


def _explore(
    done: list[Json], candidates: Mapping[str, Candidate], rows: Rows, runner: Runner, clock: _Clock, *, trials: int,
    warm: Sequence[Mapping[str, Any]], plan: Plan,
) -> None:  # fmt: skip
    among: dict[str, Any] = {"task": rows.task, "rows": rows.size}
    asking = study(candidates, warm, plan.windows, trials=trials, seed=rows.seed, **among)
    waiting: deque[tuple[int, optuna.Trial, Json, Callable[[], Json | None]]] = deque()
    asked = len(done)
    while True:
        while asked < trials and len(waiting) < runner.ahead and not (asked > 1 and clock.over(asked)):
            trial = asking.ask()
            settings = suggested(trial, candidates, plan.windows, **among)
            answer = runner.start(asked, settings, _bounds(done, plan.prune), _left(clock, asked))
            waiting.append((asked, trial, settings, answer))
            asked += 1
        if not waiting:
            return
        number, trial, settings, answer = waiting.popleft()
        told = answer()
        if told is not None:
            done.append(_recorded(number, settings, told))
            _tell(asking, trial, done[-1])


def _left(clock: _Clock, number: int) -> Left:
    return lambda: clock.left(first=number == 1)


def _bounds(done: Sequence[Json], prune: bool) -> Bounds:
    """Give, for each small budget, what the best third seen there reaches (Li et al. 2020, asynchronous halving, eta = 3)."""
    if not prune:
        return None
    seen = [sorted(t["rungs"][i] for t in done if len(t["rungs"]) > i and t["rungs"][i] is not None) for i in range(len(BUDGETS))]
    return [scores[len(scores) // 3] if len(scores) >= _LEAST_RIVALS else None for scores in seen]


def _tell(study: optuna.Study, trial: optuna.Trial, told: Json) -> None:
    state = optuna.trial.TrialState
    if told["state"] == "done":
        study.tell(trial, told["score"], state=state.COMPLETE)
        return
    for step, score in enumerate(told["rungs"] if told["state"] == "pruned" else ()):
        if score is not None:
            trial.report(score, step)
    # TPE forgets what failed, but counts what was pruned without a score among the worst: it shall not try that again.
    study.tell(trial, state=state.PRUNED)


def _recorded(number: int, settings: Json, told: Json) -> Json:
    state = "done" if told["score"] is not None else "pruned" if told["failure"] == "pruned" else "failed"
    return {
        "number": number,
        "candidate": settings["candidate"],
        "params": settings["params"],
        "train_on": settings.get("train_on", "all"),
        "score": told["score"],
        "state": state,
        "failure": told["failure"],
        "reason": told["reason"],
        "seconds": told["seconds"],
        "folds": told["folds"],
        "rungs": told["rungs"],
        "memory": told["memory"],
    }


def _nothing(trials: Sequence[Json]) -> TrialError:
    reasons = [f"{t['candidate']}: {t['reason']}" for t in trials if t["reason"]]
    return TrialError(
        f"none of {len(trials)} trials could be fitted; the first reason: {reasons[0] if reasons else 'unknown'}",
        next="look at the reasons of the trials, and at the parameters that the candidates fix",
        reasons=reasons[:20],
    )
