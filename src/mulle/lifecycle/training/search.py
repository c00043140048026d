"""The search: candidates and their parameters together, by TPE, scored on the latest rows of the training set."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from mulle.core.declare.candidates import Candidate
from mulle.core.declare.model import METRIC
from mulle.core.errors import TrialError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.fitted import answers, classes_of
from mulle.kernel.metrics import measure
from mulle.lifecycle.training.candidates import defaults, space
from mulle.lifecycle.training.fit import fit, refuse_untrainable
from mulle.lifecycle.training.split import split_validation

__all__ = ["SEARCH_ROWS", "SearchResult", "search"]

SEARCH_ROWS = 60_000
"""Rows that trials are fitted and scored on, at most; a seeded sample of more. The winner is fitted on all."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    trials : list of dict
        ``number candidate params score state reason seconds``; score is the task's metric on validation, lower is
        better, None when the trial failed; state is ``done`` or ``failed``. Trial 0 is the dummy baseline.
    settings : dict
        The winner's ``candidate`` and ``params``.
    """

    trials: list[Json]
    settings: Json


@dataclass(frozen=True, slots=True)
class _Rows:
    """Encoded rows, already split."""

    train: Matrix
    train_target: npt.NDArray[np.generic]
    valid: Matrix
    valid_target: npt.NDArray[np.generic]
    task: str
    specs: Sequence[FeatureSpec]
    seed: int


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
) -> SearchResult:
    """Search candidates and their parameters.

    The order is: the dummy baseline, earlier winners (`warm`), each candidate as it comes, then what TPE suggests
    (Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization). The same rows, seed and trials give the same
    result when `timeout` does not end the search.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, k)
    target : numpy.ndarray, shape (n,)
    order : numpy.ndarray, shape (n,), or None
        Times; the latest fifth is the validation set. Without, a random fifth.
    task : str
    candidates : sequence of Candidate
        The baseline wins only when ``dummy`` is among them.
    specs : sequence of FeatureSpec, length k
    trials : int
        At most so many, the baseline counted; at least one candidate is tried all the same.
    timeout : float or None
        Seconds; no new trial starts after them, but at least one candidate is tried.
    seed : int
    warm : sequence of mapping
        Settings of earlier winners.

    Returns
    -------
    SearchResult

    Raises
    ------
    DataError
        When the rows cannot be trained on.
    TrialError
        When no candidate could be fitted; facts hold the first reasons.
    """
    refuse_untrainable(matrix, target, task=task, specs=specs)
    rows = _split(matrix, target, order, task, specs, seed)
    declared = {c.kind: c for c in candidates} or {"dummy": Candidate(kind="dummy")}
    done = [_try(0, {"candidate": "dummy", "params": dict(_of(declared, "dummy").params)}, rows)]
    real = [c for c in declared.values() if c.kind != "dummy"]
    if real:
        _explore(done, real, rows, trials=max(trials, 2), timeout=timeout, warm=warm)
    return SearchResult(trials=done, settings=_winner(done, set(declared)))


def _split(
    matrix: Matrix, target: npt.NDArray[np.generic], order: npt.NDArray[np.generic] | None, task: str,
    specs: Sequence[FeatureSpec], seed: int,
) -> _Rows:  # fmt: skip
    if len(matrix) > SEARCH_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(len(matrix), SEARCH_ROWS, replace=False))
        matrix, target, order = matrix[kept], target[kept], None if order is None else order[kept]
    train, valid = split_validation(len(matrix), order, seed=seed)
    return _Rows(matrix[train], target[train], matrix[valid], target[valid], task, specs, seed)


def _explore(
    done: list[Json], candidates: Sequence[Candidate], rows: _Rows, *, trials: int, timeout: float | None,
    warm: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.monotonic()
    by_kind = {c.kind: c for c in candidates}
    study = optuna.create_study(sampler=_sampler(rows.seed, trials))
    for settings in _first(candidates, warm, rows):
        study.enqueue_trial(settings, skip_if_exists=True)
    while len(done) < trials:
        if timeout is not None and len(done) > 1 and time.monotonic() - began > timeout:
            break
        asked = study.ask()
        kind = asked.suggest_categorical("candidate", sorted(by_kind))
        params = space(by_kind[kind], asked, rows.task, len(rows.train))
        tried = _try(len(done), {"candidate": kind, "params": params}, rows)
        done.append(tried)
        failed = tried["score"] is None
        study.tell(asked, None if failed else tried["score"], state=_FAILED if failed else _COMPLETE)


_FAILED, _COMPLETE = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE


def _sampler(seed: int, trials: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # Grouped sampling is what makes TPE learn each candidate's parameters apart; Optuna still calls it experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, trials // 4), multivariate=True, group=True)


def _first(candidates: Sequence[Candidate], warm: Sequence[Mapping[str, Any]], rows: _Rows) -> list[Json]:
    by_kind = {c.kind: c for c in candidates}
    known = [(by_kind[s["candidate"]], s.get("params", {})) for s in warm if s.get("candidate") in by_kind]
    starts = [(c, params) for c, params in [*known, *((c, {}) for c in candidates)]]
    queue: list[Json] = []
    for candidate, params in starts:
        start = {**defaults(candidate, rows.task, len(rows.train)), **params}
        first = {"candidate": candidate.kind}
        first |= {f"{candidate.kind}.{name}": value for name, value in start.items() if name not in candidate.params}
        if first not in queue:  # an earlier winner is often a candidate as it comes
            queue.append(first)
    return queue


def _try(number: int, settings: Json, rows: _Rows) -> Json:
    began = time.perf_counter()
    score, reason = None, ""
    try:
        score = _score(settings, rows)
    except Exception as error:  # the search goes on whatever an estimator raises
        reason = f"{type(error).__name__}: {error}"[:500]
    return {
        "number": number,
        "candidate": settings["candidate"],
        "params": settings["params"],
        "score": score,
        "state": "failed" if score is None else "done",
        "seconds": round(time.perf_counter() - began, 4),
        "reason": reason,
    }


def _score(settings: Json, rows: _Rows) -> float:
    fitted = fit(settings, rows.train, rows.train_target, task=rows.task, specs=rows.specs, seed=rows.seed)
    given = answers(fitted, rows.valid, rows.task)
    metric, classes = METRIC[rows.task], classes_of(fitted, rows.task)
    if rows.task == "regression":
        score = measure([metric], rows.task, rows.valid_target, given[:, 0])[metric]
    else:
        values = np.array(classes, dtype=object)[given.argmax(axis=1)]
        score = measure([metric], rows.task, rows.valid_target, values, given, classes)[metric]
    if not np.isfinite(score):
        raise TrialError(f"the {metric} on validation is {score}")
    return score


def _winner(trials: Sequence[Json], declared: set[str]) -> Json:
    scored = [t for t in trials if t["score"] is not None and t["candidate"] in declared]
    if not scored:
        reasons = [f"{t['candidate']}: {t['reason']}" for t in trials if t["reason"]]
        raise TrialError(
            f"none of {len(trials)} trials could be fitted; the first reason: {reasons[0] if reasons else 'unknown'}",
            next="look at the reasons of the trials, and at the parameters that the candidates fix",
            reasons=reasons[:20],
        )
    best = min(scored, key=lambda t: (t["score"], t["number"]))
    return {"candidate": best["candidate"], "params": best["params"]}


def _of(declared: Mapping[str, Candidate], kind: str) -> Candidate:
    return declared.get(kind, Candidate(kind=kind))
