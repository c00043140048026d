"""What each feature did to an answer: contributions that, with a base, add up to what the model said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from mulle.core.records.bundle import Contract
from mulle.kernel.sample import read_sample
from mulle.lifecycle.registry.shap import Forest, read_forest

__all__ = ["Explained", "Explainer", "open_explainer"]

_ORDERS, _EVALUATIONS = 64, 4096
"""Orders in which features are put in, and rows evaluated for one explanation, at most."""

_CELLS = 1 << 21
_TRIED, _ADDITIVE = 8, 1e-3
_LEAST = 1e-12

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Run = Callable[[Matrix], Floats]


@dataclass(frozen=True, slots=True)
class Explained:
    """Contributions of n rows.

    Attributes
    ----------
    cells : numpy.ndarray of float64, shape (n, columns + 1)
        A contribution for each column of the transform, then the base; a row adds up to what is explained.
    what : str
        ``value`` of a regression; of classes the answered one's ``margin`` or ``probability``.
    by : str
        ``trees`` (exact) or ``permutation`` (against the bundle's sample).
    """

    cells: Floats
    what: str
    by: str


class Explainer:
    """Explains one bundle's model.

    Boosted trees are explained by their own structure. Anything else is explained by sampling: features of the row are put
    one by one, in many orders, into rows of a background, and each gets the mean change that it made (Strumbelj and
    Kononenko, An efficient explanation of individual classifications, JMLR 2010). Each order adds up exactly, and so does
    their mean. Of a model that adds features up the order does not matter: a linear one gives coefficient times (value -
    mean).

    The margin of a class is its log-odds where there are two, else its log-probability above the mean of all classes'. It
    is explained where it is a sum (trees, linear models); elsewhere the probability is.

    Parameters
    ----------
    contract : Contract
    run : callable
        Answers an encoded matrix, float32 (n, k), with float64 (n, outputs).
    background : numpy.ndarray of float32, shape (b, k)
    forest : Forest, optional

    Attributes
    ----------
    columns : list of str
        The transform's columns; what became several features is told by their sum.
    """

    def __init__(self, contract: Contract, run: Run, background: Matrix, forest: Forest | None = None) -> None:
        self._run, self._background, self._forest = run, background, forest
        self._classes = 0 if contract.task == "regression" else len(contract.classes)
        self.columns = list(dict.fromkeys(spec.column for spec in contract.features))
        self._group = np.array([self.columns.index(spec.column) for spec in contract.features], dtype=np.int64)
        self._what = "value" if not self._classes else "margin" if forest or self._adds_up() else "probability"

    def explain(self, matrix: Matrix) -> Explained:
        """Explain the answers to encoded rows, float32 (n, k)."""
        chosen = self._run(matrix).argmax(axis=1) if self._classes else np.zeros(len(matrix), dtype=np.int64)
        one = self._by_trees if self._forest else self._by_permutation
        cells = np.array([one(row, int(output)) for row, output in zip(matrix, chosen, strict=True)], dtype=np.float64)
        return Explained(
            cells.reshape(len(matrix), len(self.columns) + 1), self._what, "trees" if self._forest else "permutation"
        )

    def _by_trees(self, row: Matrix, output: int) -> Floats:
        forest = self._forest
        assert forest is not None
        found = np.column_stack([forest.contributions(row), forest.base])
        if forest.link == "sigmoid":
            mine = found[0] if output else -found[0]
        else:
            mine = found[output] - (found.mean(axis=0) if forest.link == "softmax" else 0.0)
        return np.append(np.bincount(self._group, mine[:-1], minlength=len(self.columns)), mine[-1])

    def _by_permutation(self, row: Matrix, output: int) -> Floats:
        columns = len(self.columns)
        orders = min(_ORDERS, max(4, _EVALUATIONS // (columns + 1)))
        background = self._background[np.arange(orders) % len(self._background)]
        dice = np.random.default_rng(0)
        rank = np.array([dice.permutation(columns) for _ in range(-(-orders // 2))])
        # Each order is also gone backwards: what a feature does first and last is then weighed the same.
        rank = np.concatenate([rank, columns - 1 - rank])[:orders]
        portion = max(1, _CELLS // ((columns + 1) * len(row)))
        said = np.concatenate(
            [self._filled_in(row, background[i : i + portion], rank[i : i + portion], output) for i in range(0, orders, portion)]
        )
        moved = np.take_along_axis(np.diff(said, axis=1), rank, axis=1).mean(axis=0)
        return np.append(moved, said[:, 0].mean())

    def _filled_in(self, row: Matrix, background: Matrix, rank: npt.NDArray[np.int64], output: int) -> Floats:
        """Give what is said as the row's columns come in by rank, float64 (orders, columns + 1)."""
        steps = len(self.columns) + 1
        known = rank[:, self._group][:, None, :] < np.arange(steps)[None, :, None]
        mixed = np.where(known, row, background[:, None, :]).astype(np.float32)
        return self._said(mixed.reshape(-1, len(row)))[:, output].reshape(len(rank), steps)

    def _said(self, matrix: Matrix) -> Floats:
        answers = self._run(matrix)
        return _margins(answers) if self._what == "margin" else answers

    def _adds_up(self) -> bool:
        """Try whether the margin is a sum over features: exchanging any of them between two rows then changes no total."""
        rows = np.resize(self._background, (2 * _TRIED, self._background.shape[1]))
        first, second = rows[:_TRIED], rows[_TRIED:]
        swapped = (np.random.default_rng(0).random((_TRIED, len(self.columns))) < 0.5)[:, self._group]
        parts = [first, second, np.where(swapped, second, first), np.where(swapped, first, second)]
        answers = self._run(np.concatenate(parts).astype(np.float32))
        a, b, c, d = np.split(_margins(answers), 4)
        apart = np.abs(a + b - c - d).max(axis=1) <= _ADDITIVE * (1 + np.abs(a).max(axis=1) + np.abs(b).max(axis=1))
        clear = (answers.reshape(4, _TRIED, -1) > 1e-4).all(axis=(0, 2))  # near 0 float32 has no margin left to compare
        return bool(clear.any() and apart[clear].all())


def open_explainer(folder: Path, contract: Contract, run: Run) -> Explainer:
    """Make what explains a bundle: its trees where their rows were counted, else its sample as the background."""
    forest = read_forest((folder / "model.onnx").read_bytes()) if contract.compiled == "onnx" else None
    return Explainer(contract, run, _background(folder, contract, run), forest)


def _background(folder: Path, contract: Contract, run: Run) -> Matrix:
    file = folder / "sample.json"
    if file.is_file():
        rows = read_sample(orjson.loads(file.read_bytes())).encoded
        if len(rows):
            return rows
    # Bundles of before carry no sample: a row of which nothing is known stands in, or one of zeros where that says nothing.
    blank = np.full((1, len(contract.features)), np.nan, dtype=np.float32)
    try:
        return blank if np.isfinite(run(blank)).all() else np.zeros_like(blank)
    except Exception:
        return np.zeros_like(blank)


def _margins(probabilities: Floats) -> Floats:
    logs = np.log(np.clip(probabilities, _LEAST, 1.0))
    return logs - logs[:, ::-1] if logs.shape[1] == 2 else logs - logs.mean(axis=1, keepdims=True)
