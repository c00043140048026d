"""What the winner's answers rest on, measured beside its metrics: importance, partial dependence, learning curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.evaluation import CurvePoint, Dependence, Importance, Inspection
from mulle.kernel.encode import encode
from mulle.kernel.fitted import Estimator, answers, classes_of
from mulle.kernel.metrics import losses
from mulle.lifecycle.evaluation.dependence import partial_dependence
from mulle.lifecycle.evaluation.importance import MOST_FEATURES, REPEATS, Loss, permutation_importance, worth_a_look
from mulle.loop.compute.fitting import Index, fit_on, said
from mulle.loop.compute.work import Work

__all__ = ["OPTION", "SECONDS", "Winner", "inspect_winner"]

OPTION = "inspect"
"""The run's option that leaves this out when it is false, as fleets of many small models do."""

SECONDS = 10.0
"""What all of it may take. Counts bound it long before on most tables, so that two runs tell the same."""

_ROWS, _SCREENED_ROWS = 1_000, 300
_DEPENDENT, _CLASSES = 6, 6
_SHARES = (0.125, 0.25, 0.5)
_LEAST_ROWS = 40
_SURE = 1.96


@dataclass(frozen=True, slots=True)
class Winner:
    """What was fitted on the training rows, and what it was fitted on.

    Attributes
    ----------
    features, truth, time
        Of all the run's rows; `train` (what was fitted on) and `last` (the holdout) are positions among them.
    seconds : float
        That the fit took.
    """

    fitted: Estimator
    specs: tuple[FeatureSpec, ...]
    settings: Json
    features: pl.DataFrame
    truth: npt.NDArray[np.generic]
    time: pl.Series
    train: Index
    last: Index
    seconds: float


def inspect_winner(work: Work, winner: Winner, *, seconds: float = SECONDS) -> Inspection | None:
    """Measure what the answers rest on, on evenly spaced rows of the holdout; None when the run's options leave it out."""
    if not work.options.get(OPTION, True):
        return None
    end = time.monotonic() + seconds
    notes: list[str] = []
    rows = winner.last[_spaced(len(winner.last), _ROWS)]
    importance = _importance(work, winner, rows, notes, lambda: time.monotonic() > end - seconds / 2)
    dependence = _dependence(work, winner, importance, notes, lambda: time.monotonic() > end - seconds / 3)
    return Inspection(
        metric=work.model.metric,
        rows=len(rows),
        repeats=REPEATS,
        importance=importance,
        dependence=dependence,
        curve=_curve(work, winner, notes, lambda: end - time.monotonic()),
        notes=tuple(notes),
    )


def _importance(work: Work, winner: Winner, rows: Index, notes: list[str], enough: Callable[[], bool]) -> tuple[Importance, ...]:
    groups: dict[str, list[int]] = {}
    for place, spec in enumerate(winner.specs):
        groups.setdefault(spec.column, []).append(place)
    names = list(groups)
    if len(groups) > MOST_FEATURES:
        few = rows[_spaced(len(rows), _SCREENED_ROWS)]
        matrix = encode(winner.features[few], winner.specs)
        names = worth_a_look(matrix, groups, _loss(work, winner, few), seed=work.seed, enough=enough)
        notes.append(f"of {len(groups)} features those {len(names)} are shown whose shuffling was found to cost something")
    matrix = encode(winner.features[rows], winner.specs)
    chosen = {name: groups[name] for name in names}
    found = permutation_importance(matrix, chosen, _loss(work, winner, rows), seed=work.seed, enough=enough)
    if len(found) < len(names):
        notes.append(f"importance of {len(names) - len(found)} more features: the time for it was up")
    return found


def _loss(work: Work, winner: Winner, rows: Index) -> Loss:
    task, classes = work.model.task, classes_of(winner.fitted, work.model.task)
    truth = winner.truth[rows]

    def loss(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        values, shares = said(winner.fitted, matrix, task, classes)
        return losses(task, np.tile(truth, len(matrix) // len(truth)), values, shares, classes)

    return loss


def _dependence(
    work: Work, winner: Winner, importance: Sequence[Importance], notes: list[str], enough: Callable[[], bool]
) -> tuple[Dependence, ...]:
    task, classes = work.model.task, classes_of(winner.fitted, work.model.task)
    # Of two classes one tells the other's share too; of many the most frequent are shown.
    places = [1] if len(classes) == 2 else _frequent(winner, classes)
    names = [work.model.target] if task == "regression" else [classes[i] for i in places]
    rows = winner.features[winner.train]

    def answer(made: pl.DataFrame) -> npt.NDArray[np.float64]:
        found = answers(winner.fitted, encode(made, winner.specs), task)
        return found if task == "regression" else found[:, places]

    shown: list[Dependence] = []
    for column in [i.column for i in importance]:
        if len(shown) == _DEPENDENT:
            break
        if enough():
            notes.append("partial dependence of more features: the time for it was up")
            break
        if (found := partial_dependence(rows, column, answer, names)) is not None:
            shown.append(found)
    return tuple(shown)


def _frequent(winner: Winner, classes: Sequence[str]) -> list[int]:
    told, counts = np.unique(winner.truth[winner.train].astype(str), return_counts=True)
    known = dict(zip(told.tolist(), counts.tolist(), strict=True))
    ordered = sorted(range(len(classes)), key=lambda i: (-known.get(classes[i], 0), i))
    return sorted(ordered[:_CLASSES])


def _curve(work: Work, winner: Winner, notes: list[str], left: Callable[[], float]) -> tuple[CurvePoint, ...]:
    points = []
    whole = classes_of(winner.fitted, work.model.task)
    for share in _SHARES:
        some = winner.train[_spaced(len(winner.train), int(share * len(winner.train)))]
        if len(some) < _LEAST_ROWS:
            continue
        if winner.seconds * share > left():
            notes.append(f"learning curve from {len(some)} rows on: fits take too long")
            break
        try:
            fitted, specs = fit_on(work, winner.settings, winner.features, winner.truth, winner.time, some)
            if classes_of(fitted, work.model.task) == whole:
                points.append(_point(work, winner, fitted, specs, some))
        except Exception as error:  # a look at the winner must not end its run, whatever an estimator raises
            notes.append(f"learning curve at {len(some)} rows: {error}")
    return (*points, _point(work, winner, winner.fitted, winner.specs, winner.train))


def _point(work: Work, winner: Winner, fitted: Estimator, specs: tuple[FeatureSpec, ...], train: Index) -> CurvePoint:
    lost = []
    for rows in (train[_spaced(len(train), _ROWS)], winner.last[_spaced(len(winner.last), 4 * _ROWS)]):
        values, shares = said(fitted, encode(winner.features[rows], specs), work.model.task, classes_of(fitted, work.model.task))
        found = losses(work.model.task, winner.truth[rows], values, shares, classes_of(fitted, work.model.task))
        lost.append(found)
    mean, spread = float(lost[1].mean()), _SURE * float(lost[1].std()) / len(lost[1]) ** 0.5
    return CurvePoint(rows=len(train), train=float(lost[0].mean()), holdout=mean, low=mean - spread, high=mean + spread)


def _spaced(n: int, most: int) -> Index:
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
