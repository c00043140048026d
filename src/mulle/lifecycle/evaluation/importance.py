"""Which features a model's answers rest on: shuffle one among the holdout's rows and see what that costs."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mulle.core.records.evaluation import Importance

__all__ = ["LEAST_FEATURES", "MOST_FEATURES", "REPEATS", "Loss", "permutation_importance", "worth_a_look"]

REPEATS = 3
"""Times that a feature is shuffled."""

MOST_FEATURES = 40
"""Features that are measured one by one; of more, these are found by shuffling many at once."""

LEAST_FEATURES = 5
"""Of more, so many are found whatever time there is: a look at a model that tells nothing is none."""

_SCREENS = 400
"""Sets that are shuffled, at most, to find them."""

_SURE = 1.96

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Loss = Callable[[Matrix], Floats]
"""From an encoded matrix, the rows once or several times over, to the loss of each row."""


def permutation_importance(
    matrix: Matrix,
    features: Mapping[str, Sequence[int]],
    loss: Loss,
    *,
    seed: int,
    repeats: int = REPEATS,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[Importance, ...]:
    """Measure how much worse the mean loss becomes when a feature's values are dealt out anew among the rows.

    Breiman (2001), Random Forests, section 10; as a property of a fitted model on new rows: Fisher, Rudin and Dominici (2019),
    All Models are Wrong, but Many are Useful. A row has a part in the mean twice, by its own loss with another's value and by the
    losses of others with its value; the interval is the normal one of the sums of both (Hoeffding's projection). Of two features
    that tell the same, each looks less important than the two are together.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, k)
    features : mapping
        Feature to its columns of the matrix, which are shuffled as one.
    loss : callable
    seed : int
        A feature's shuffling depends on it and on the feature's name alone.
    repeats : int
    enough : callable
        Asked before each feature; true ends it there.

    Returns
    -------
    tuple of Importance
        The largest first.

    Examples
    --------
    >>> rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    >>> of_first = lambda given: np.abs(given[:, 0] - np.tile([0, 2, 4, 6], len(given) // 4)).astype(float)
    >>> [i.column for i in permutation_importance(rows, {"b": [1], "a": [0]}, of_first, seed=0)]
    ['a', 'b']
    """
    before = loss(matrix)
    found = []
    for name, places in features.items():
        if enough():
            break
        taken, given = _shuffled(matrix, places, loss, before, _dice(name, seed), repeats)
        mean, spread = float(taken.mean()), _SURE * _error(taken + given)
        found.append(Importance(column=name, worse=mean, low=mean - spread, high=mean + spread))
    return tuple(sorted(found, key=lambda i: (-i.worse, i.column)))


def worth_a_look(
    matrix: Matrix,
    features: Mapping[str, Sequence[int]],
    loss: Loss,
    *,
    seed: int,
    least: int = 0,
    most: int = MOST_FEATURES,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[list[str], int]:
    """Find the features of a wide table that matter, without measuring each: many are shuffled as one, and halved.

    A set whose shuffling costs nothing beyond noise is left; of the others the costliest is halved first, until single features
    are left. So k that matter among n are found in about 2 k log2(n) trials.

    Parameters
    ----------
    matrix, features, loss, seed
        As for `permutation_importance`; few rows will do.
    least, most : int
        Features that are wanted, whatever time there is and at most.
    enough : callable
        Asked before a set is halved; true ends it there, when as many as `least` were found.

    Returns
    -------
    list of str
        At most `most`, in the order in which they were found.
    int
        Features that are not told apart: they stand in sets whose shuffling costs something, and were not looked through.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(99, 64)).astype(np.float32)
    >>> of_one = lambda given: np.abs(given[:, 40] - np.tile(rows[:, 40], len(given) // 99)).astype(float)
    >>> worth_a_look(rows, {str(i): [i] for i in range(64)}, of_one, seed=0)
    (['40'], 0)
    """
    before = loss(matrix)
    queue: list[tuple[float, int, list[str]]] = [(-np.inf, 0, list(features))]
    chosen: list[str] = []
    tried = 0
    while queue and len(chosen) < most and tried < _SCREENS and not (len(chosen) >= least and enough()):
        _, _, names = heapq.heappop(queue)
        if len(names) == 1:
            chosen += names
            continue
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            tried += 1
            places = [place for name in half for place in features[name]]
            worse, _ = _shuffled(matrix, places, loss, before, _dice(half[0], seed + len(half)), 1)
            if worse.mean() > _error(worse):
                heapq.heappush(queue, (-float(worse.mean()), tried, half))
    return chosen, sum(len(names) for _, _, names in queue)


def _shuffled(
    matrix: Matrix, places: Sequence[int], loss: Loss, before: Floats, dice: np.random.Generator, repeats: int
) -> tuple[Floats, Floats]:
    """Give the mean growth of each row's own loss with another's value, and of others' losses with its value."""
    n, dealt = len(matrix), np.asarray(places, dtype=np.int64)
    givers = np.stack([dice.permutation(n) for _ in range(repeats)])
    made = np.tile(matrix, (repeats, 1))
    made[:, dealt] = matrix[np.ix_(givers.ravel(), dealt)]
    worse = loss(made).reshape(repeats, n) - before
    given = np.zeros(n)
    np.add.at(given, givers.ravel(), worse.ravel() / repeats)
    return np.asarray(worse.mean(axis=0), dtype=np.float64), given


def _error(worse: Floats) -> float:
    return float(worse.std(ddof=1) / np.sqrt(len(worse))) if len(worse) > 1 else 0.0


def _dice(name: str, seed: int) -> np.random.Generator:
    # Not Python's own hash: that differs from process to process.
    return np.random.default_rng([zlib.crc32(name.encode()), seed])
