"""Ensembles: which models together beat the best one, their weighted mean, and probabilities put right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from mulle.core.records.base import Json
from mulle.kernel.fitted import Estimator, answers, classes_of

__all__ = ["Blend", "Calibration", "Score", "calibrate", "choose_members", "settings_of"]

_ROUNDS = 30
_BAGS = 20
_BAG_ROWS = 2_000
"""Rows that a bag draws, at most: more rows would cost time and hardly change what is chosen."""

_LEAST_WEIGHT = 0.03
"""What fewer votes than this would add to the answer does not pay for its fit and its answering time."""

_LEAST_CHANCE = 1e-6

_LEAST_GAIN = 0.001
"""Of the best model's score: an ensemble that gains less is not worth several models to keep and to ask."""

Floats = npt.NDArray[np.float64]
Score = Callable[[npt.NDArray[np.int64], Floats], float]
"""Scores answers, shape (m, outputs), to the rows at the given positions; lower is better."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities p become ``softmax(scale * log p + shift)``."""

    scale: float
    shift: tuple[float, ...]

    def __call__(self, probabilities: Floats) -> Floats:
        """Correct probabilities, shape (n, classes)."""
        raw = self.scale * np.log(np.maximum(probabilities, _LEAST_CHANCE)) + np.asarray(self.shift)
        raised = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))


class Blend:
    """The weighted mean of fitted members' answers, corrected by a calibration when there is one.

    Parameters
    ----------
    members : sequence of Estimator
        Fitted on the same task; classifiers on the same classes.
    weights : sequence of float
        One a member; they add up to 1.
    task : str
    scale, shift
        Of a `Calibration`; without a shift probabilities stay as they are.
    """

    def __init__(
        self, members: Sequence[Estimator], weights: Sequence[float], task: str, scale: float = 1.0, shift: Sequence[float] = ()
    ) -> None:
        # Plain values under plain names: this is what a native bundle writes and builds again.
        self.members, self.weights, self.task = list(members), list(weights), task
        self.scale, self.shift = scale, list(shift)
        if task != "regression":
            self.classes_ = np.array(classes_of(self.members[0], task), dtype=object)

    def predict(self, X: npt.NDArray[np.float32], /) -> npt.NDArray[np.generic]:
        """Answer an encoded matrix, shape (n, k), with numbers or classes."""
        mean = self._mean(X)
        return mean[:, 0] if self.task == "regression" else self.classes_[mean.argmax(axis=1)]

    def predict_proba(self, X: npt.NDArray[np.float32], /) -> Floats:
        """Give the probability of each class, shape (n, classes)."""
        return self._mean(X)

    def _mean(self, matrix: npt.NDArray[np.float32]) -> Floats:
        mean = sum(w * answers(m, matrix, self.task) for m, w in zip(self.members, self.weights, strict=True))
        return Calibration(self.scale, tuple(self.shift))(np.asarray(mean)) if self.shift else np.asarray(mean)


def choose_members(said: Sequence[Floats], score: Score, *, most: int, seed: int) -> dict[int, float]:
    """Choose models by bagged greedy selection (Caruana et al. 2004, Ensemble Selection from Libraries of Models).

    Each bag chooses from a random half of the models on rows drawn with replacement, and the bags' choices are added up:
    what looks good on a few rows by chance is chosen by few bags.

    Parameters
    ----------
    said : sequence of numpy.ndarray, each of shape (n, outputs)
        Each model's answers to the validation rows, the best model first.
    score : callable
    most : int
        At most so many different models.
    seed : int

    Returns
    -------
    dict
        Weight by position in `said`, adding up to 1; only position 0 when the ensemble does not clearly beat the best model.
        That model is at its best on these rows, for it was chosen on them, so the comparison favours it.

    Examples
    --------
    >>> truth = np.arange(100.0)
    >>> high, low = (truth + 1)[:, None], (truth - 1)[:, None]
    >>> choose_members([high, low], lambda rows, a: float(np.abs(truth[rows] - a[:, 0]).mean()), most=2, seed=0)
    {0: 0.5, 1: 0.5}
    """
    rows = np.arange(len(said[0]))
    if most < 2 or len(said) < 2 or len(rows) < 20:
        return {0: 1.0}
    chosen = _bagged(said, score, most, np.random.default_rng(seed))
    mean = np.asarray(sum(w * said[i] for i, w in chosen.items()))
    return chosen if score(rows, mean) < (1 - _LEAST_GAIN) * score(rows, said[0]) else {0: 1.0}


def _bagged(said: Sequence[Floats], score: Score, most: int, random: np.random.Generator) -> dict[int, float]:
    votes, rows = np.zeros(len(said)), len(said[0])
    for _ in range(_BAGS):
        library = np.sort(random.permutation(len(said))[: max(2, len(said) // 2)])
        drawn = np.sort(random.integers(rows, size=min(rows, _BAG_ROWS)))
        for i, weight in _greedy([said[j][drawn] for j in library], partial(score, drawn), most).items():
            votes[library[i]] += weight / _BAGS
    kept = np.argsort(-votes, kind="stable")[:most]
    kept = np.sort(kept[votes[kept] >= min(_LEAST_WEIGHT, votes.max())])
    return {int(i): float(votes[i] / votes[kept].sum()) for i in kept}


def _greedy(said: Sequence[Floats], score: Callable[[Floats], float], most: int) -> dict[int, float]:
    alone = [score(answers) for answers in said]
    first = int(np.argmin(alone))
    counts, total, best = {first: 1}, said[first].astype(np.float64), alone[first]
    for size in range(1, _ROUNDS):
        open_to = range(len(said)) if len(counts) < most else sorted(counts)
        tried = [(score((total + said[i]) / (size + 1)), i) for i in open_to]
        found, winner = min(tried)
        if found >= best:
            break
        best, total = found, total + said[winner]
        counts[winner] = counts.get(winner, 0) + 1
    whole = sum(counts.values())
    return {i: counts[i] / whole for i in sorted(counts)}


def calibrate(probabilities: Floats, truth: npt.NDArray[np.int64], *, seed: int) -> Calibration | None:
    """Fit one scale and a shift for each class on rows that the model was not fitted on, by log loss.

    With two classes this is Platt scaling of log odds; with more, bias-corrected temperature scaling (Alexandari, Kundaje
    and Shrikumar 2020).

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, classes)
    truth : numpy.ndarray of int, shape (n,)
        Position of the true class.
    seed : int

    Returns
    -------
    Calibration or None
        None when a correction fitted on one half of the rows does not lower the log loss on the other, both ways together.

    Examples
    --------
    >>> sure = np.tile([[0.99, 0.01], [0.01, 0.99]], (50, 1))
    >>> truth = (np.arange(100) % 2) ^ (np.arange(100) % 10 < 2)
    >>> found = calibrate(sure, truth, seed=0)
    >>> bool(found.scale < 0.5)
    True
    """
    rows = np.arange(len(truth))
    halves = np.array_split(np.random.default_rng(seed).permutation(rows), 2)
    if len(rows) < 40:
        return None
    gained = 0.0
    for fitting, judging in (halves, halves[::-1]):
        found = _fitted(probabilities[fitting], truth[fitting])
        gained += _loss(probabilities[judging], truth[judging])
        gained -= _loss(found(probabilities[judging]), truth[judging])
    return _fitted(probabilities, truth) if gained > 0 else None


def _fitted(probabilities: Floats, truth: npt.NDArray[np.int64]) -> Calibration:
    classes = probabilities.shape[1]
    logs = np.log(np.maximum(probabilities, _LEAST_CHANCE))
    hot = np.eye(classes)[truth]

    def loss(values: Floats) -> tuple[float, Floats]:
        raw = values[0] * logs + np.append(0.0, values[1:])
        raw -= raw.max(axis=1, keepdims=True)
        shares = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
        error = (shares - hot) / len(truth)
        value = -float(np.mean(np.log(np.maximum((shares * hot).sum(axis=1), 1e-300))))
        # A little pull towards no change keeps separable rows from infinite scales.
        pull = values - np.append(1.0, np.zeros(classes - 1))
        gradient = np.append((error * logs).sum(), error.sum(axis=0)[1:])
        return value + 1e-4 * float(pull @ pull), gradient + 2e-4 * pull

    found = minimize(loss, np.append(1.0, np.zeros(classes - 1)), jac=True, method="BFGS").x
    return Calibration(round(float(found[0]), 6), (0.0, *(round(float(v), 6) for v in found[1:])))


def _loss(probabilities: Floats, truth: npt.NDArray[np.int64]) -> float:
    return -float(np.mean(np.log(np.maximum(probabilities[np.arange(len(truth)), truth], _LEAST_CHANCE))))


def settings_of(members: Sequence[Json], calibration: Calibration | None) -> Json:
    """Describe a chosen model as settings; one member without calibration is described by itself."""
    if len(members) == 1:
        found = {k: v for k, v in members[0].items() if k != "weight"}
    else:
        found = {"candidate": "ensemble", "params": {}, "members": list(members)}
    if calibration is not None:
        found["calibration"] = {"scale": calibration.scale, "shift": list(calibration.shift)}
    return found
