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
from mulle.lifecycle.evaluation.importance import (
    LEAST_FEATURES,
    MOST_FEATURES,
    REPEATS,
    Loss,
    permutation_importance,
    worth_a_look,
)
from mulle.loop.compute.fitting import Index, fit_on, said
from mulle.loop.compute.work import Work

__all__ = ["OPTION", "LEAST", "SECONDS", "SHARE", "Winner", "inspect_winner"]

OPTION = "inspect"
"""The run's option that leaves this out when it is false, as fleets of many small models do."""

SECONDS, LEAST, SHARE = 10.0, 1.0, 0.15
"""What all of it may take: a share of what the run computed so far, but a second at least and ten at most.

By the processor's time of this thread, so that a busy machine shows the same as an idle one; counts bound it before on most
tables, so that two runs tell the same.
"""

_UP = "the time for it was up"
_ROWS, _FEW = 1_000, 200
_NAMED = 12
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


class _Budget:
    """How much of its time is left; the hard bound of the clock on the wall holds beside it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began, self._end = time.thread_time(), time.monotonic() + SECONDS

    def left(self) -> float:
        """Give the seconds that are left."""
        return min(self.seconds - (time.thread_time() - self._began), self._end - time.monotonic())

    def used(self, share: float) -> Callable[[], bool]:
        """Give what tells, before each piece of work, whether one more like the last would go beyond that share of it."""
        before = self.left()

        def enough() -> bool:
            nonlocal before
            left = self.left()
            before, last = left, before - left
            return left - last < (1 - share) * self.seconds

        return enough


def inspect_winner(work: Work, winner: Winner, *, spent: float = 0.0) -> Inspection | None:
    """Measure what the answers rest on, on evenly spaced rows of the holdout; None when the run's options leave it out.

    Parameters
    ----------
    work : Work
    winner : Winner
    spent : float
        Seconds that the run computed before.
    """
    if not work.options.get(OPTION, True):
        return None
    budget = _Budget(min(SECONDS, max(LEAST, SHARE * spent)))
    notes: list[str] = []
    rows = winner.last[_spaced(len(winner.last), _ROWS)]
    importance = _importance(work, winner, rows, notes, budget.used(0.4))
    dependence = _dependence(work, winner, importance, notes, budget.used(0.6))
    return Inspection(
        metric=work.model.metric,
        rows=len(rows),
        repeats=REPEATS,
        importance=importance,
        dependence=dependence,
        curve=_curve(work, winner, notes, budget.left),
        notes=tuple(notes),
    )


def _importance(work: Work, winner: Winner, rows: Index, notes: list[str], enough: Callable[[], bool]) -> tuple[Importance, ...]:
    groups: dict[str, list[int]] = {}
    for place, spec in enumerate(winner.specs):
        groups.setdefault(spec.column, []).append(place)
    few = rows[_spaced(len(rows), _FEW)]
    matrix, loss, chosen = encode(winner.features[few], winner.specs), _loss(work, winner, few), groups
    if len(groups) > MOST_FEATURES:
        names, more = worth_a_look(matrix, groups, loss, seed=work.seed, least=LEAST_FEATURES, enough=enough)
        chosen = {name: groups[name] for name in names}
        notes.append(f"of {len(groups)} features those {len(names)} are shown whose shuffling was found to cost something")
        if more and len(names) < MOST_FEATURES:
            notes.append(f"{more} further features were not told apart: {_UP}")
    # Few rows and one shuffle are a bounded number of answers, so that a machine too slow for more shows that at least.
    rough = permutation_importance(matrix, chosen, loss, seed=work.seed, repeats=1)
    matrix, chosen = encode(winner.features[rows], winner.specs), {i.column: groups[i.column] for i in rough}
    found = permutation_importance(matrix, chosen, _loss(work, winner, rows), seed=work.seed, enough=enough)
    left = rough[len(found) :]
    if left:
        others = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        named = ", ".join(i.column for i in left[:_NAMED])
        notes.append(f"importance of {named}{others} was measured on {len(few)} rows, shuffled once: {_UP}")
    return tuple(sorted((*found, *left), key=lambda i: (-i.worse, i.column)))


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
            notes.append(f"partial dependence of more features: {_UP}")
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
    if any(_UP in note for note in notes):
        # Answering costs more than there is, and a point is as many answers as the importance of a feature.
        notes.append(f"learning curve: {_UP}")
        return ()
    points = []
    whole, last = classes_of(winner.fitted, work.model.task), 0.0
    for share in _SHARES:
        some = winner.train[_spaced(len(winner.train), int(share * len(winner.train)))]
        if len(some) < _LEAST_ROWS:
            continue
        before = left()
        if max(winner.seconds * share, last) > before:
            notes.append(f"learning curve from {len(some)} rows on: {_UP}")
            break
        try:
            fitted, specs = fit_on(work, winner.settings, winner.features, winner.truth, winner.time, some)
            if classes_of(fitted, work.model.task) == whole:
                points.append(_point(work, winner, fitted, specs, some))
        except Exception as error:  # a look at the winner must not end its run, whatever an estimator raises
            notes.append(f"learning curve at {len(some)} rows: {error}")
        last = before - left()
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
