"""One trial: fit settings on each fold, score them, and say what went wrong when something did."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt

from mulle.core.declare.model import METRIC
from mulle.core.errors import MulleError, TrialError
from mulle.core.records.base import Json
from mulle.kernel.fitted import answers, classes_of
from mulle.kernel.metrics import measure
from mulle.kernel.project import load_project
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.folds import Fold, Rows, open_rows
from mulle.lifecycle.training.journal import said_file

__all__ = ["BUDGETS", "answer_trial", "failed", "leave_answers", "run_trial", "within"]

BUDGETS = (1 / 9, 1 / 3)
"""Shares of the rows that a pruned search tries settings on before it tries them on all."""

_LEAST_BUDGET = 500
"""A share of fewer rows than this says too little to prune by."""

Floats = npt.NDArray[np.float64]


class _TimeUpError(BaseException):
    """Raised by the alarm; no ``except Exception`` of an estimator may swallow it."""


def run_trial(
    rows: Rows, settings: Json, *, bounds: Sequence[float | None] | None = None, limit: float | None = None
) -> tuple[Json, Floats | None]:
    """Run a trial in this process.

    Parameters
    ----------
    rows : Rows
    settings : dict
        ``candidate``, ``params`` and, where windows are searched, ``train_on``.
    bounds : sequence, one for each of `BUDGETS`, optional
        The trial is stopped when its score there is above the bound; a bound of None stops nothing. Without the sequence
        nothing is tried on fewer rows.
    limit : float, optional
        Seconds. It holds for whatever returns to Python now and then; what never does, only a worker's end can stop.

    Returns
    -------
    told : dict
        ``score`` (mean over folds, or None), ``folds`` (each fold's score), ``rungs`` (scores on `BUDGETS`, None where
        that is too few rows), ``failure``
        (empty, ``pruned``, ``timeout``, ``memory`` or ``error``), ``reason``, ``seconds`` and ``memory`` (the most bytes that
        this process held while the trial ran; None where the system does not tell).
    said : numpy.ndarray, shape (m, outputs), or None
        The answers to all validation rows, fold after fold; for classes a column for each of ``rows.classes``.
    """
    began = time.perf_counter()
    _forget_peak()
    told: Json = {"score": None, "folds": [], "rungs": [], "failure": "", "reason": ""}
    said = None
    try:
        with within(limit):
            folds = rows.folds[settings.get("train_on", "all")]
            told["rungs"], told["reason"] = _climb(folds[-1], settings, rows, bounds)
            if told["reason"]:
                told["failure"] = "pruned"
            else:
                found = [_scored(fold, settings, rows) for fold in folds]
                told["folds"], said = [score for score, _ in found], np.concatenate([answer for _, answer in found])
                told["score"] = float(np.mean(told["folds"]))
    except _TimeUpError:
        told |= failed("timeout", f"not done after {limit:g} s")
    except MemoryError as error:
        told |= failed("memory", f"not enough memory: {error}")
    except MulleError as error:
        told |= failed("memory" if "bad_alloc" in error.detail else "error", error.detail)
    except Exception as error:  # the search goes on whatever an estimator raises
        told |= failed("error", f"{type(error).__name__}: {error}")
    return {**told, "seconds": round(time.perf_counter() - began, 4), "memory": _peak()}, said


def failed(kind: str, reason: str) -> Json:
    """Give the members of a trial that failed."""
    return {"score": None, "folds": [], "failure": kind, "reason": reason[:500]}


def answer_trial(
    folder: str, number: int, settings: Json, bounds: list[float | None] | None, keep: str | None, project: str | None
) -> Json:
    """Run a trial in a worker; the task that a search sends to its compute.

    Parameters
    ----------
    folder : str
        Where `folds.save_rows` wrote.
    number : int
    settings, bounds
        As for `run_trial`.
    keep : str or None
        The folder that its answers to the validation rows are left in.
    project : str or None
        Folder of the code snapshot, where candidates are the project's own.

    Returns
    -------
    dict
        As the first part of `run_trial`.
    """
    if project is not None:
        _loaded(Path(project))
    told, said = run_trial(open_rows(Path(folder)), settings, bounds=bounds)
    if keep is not None and said is not None:
        leave_answers(Path(keep), number, said)
    return told


def leave_answers(folder: Path, number: int, said: Floats) -> None:
    """Write a trial's answers to the validation rows, for an ensemble or a calibration."""
    path = folder / said_file(number)
    np.save(path.with_suffix(".new.npy"), said.astype(np.float32))
    path.with_suffix(".new.npy").replace(path)


_loaded = lru_cache(maxsize=1)(load_project)


def _forget_peak() -> None:
    # Linux alone; elsewhere there is no figure for one trial, since a process's peak never falls.
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _peak() -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return None


@contextlib.contextmanager
def within(limit: float | None) -> Iterator[None]:
    """Interrupt the block after so many seconds; only the main thread can be interrupted."""
    if limit is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, ring)
    # It rings again each second: the first may come where nothing can be raised, as in a callback from C.
    signal.setitimer(signal.ITIMER_REAL, max(limit, 1e-3), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _climb(fold: Fold, settings: Json, rows: Rows, bounds: Sequence[float | None] | None) -> tuple[list[float | None], str]:
    found: list[float | None] = []
    for share, bound in zip(BUDGETS, bounds or (), strict=False):
        many = int(len(fold.train) * share)
        if many < _LEAST_BUDGET:
            found.append(None)
            continue
        part = np.sort(np.random.default_rng(rows.seed).permutation(len(fold.train))[:many])
        small = Fold(fold.train[part], fold.train_target[part], fold.valid, fold.valid_target, fold.specs)
        score, _ = _scored(small, settings, rows)
        found.append(score)
        if bound is not None and score > bound:
            return found, f"{score:.6g} on {many} rows, where a third of the others have {bound:.6g} or less"
    return found, ""


def _scored(fold: Fold, settings: Json, rows: Rows) -> tuple[float, Floats]:
    # The window was cut when the folds were made.
    plain = {k: v for k, v in settings.items() if k != "train_on"}
    fitted = fit(plain, fold.train, fold.train_target, task=rows.task, specs=fold.specs, seed=rows.seed)
    given = answers(fitted, fold.valid, rows.task)
    metric, classes = METRIC[rows.task], classes_of(fitted, rows.task)
    if rows.task == "regression":
        score = measure([metric], rows.task, fold.valid_target, given[:, 0])[metric]
    else:
        values = np.array(classes, dtype=object)[given.argmax(axis=1)]
        score = measure([metric], rows.task, fold.valid_target, values, given, classes)[metric]
        spread = np.zeros((len(given), len(rows.classes)))
        spread[:, [rows.classes.index(c) for c in classes]] = given
        given = spread
    if not np.isfinite(score):
        raise TrialError(f"the {metric} on validation is {score}")
    return score, given
