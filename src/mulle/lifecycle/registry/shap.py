"""Exact contributions of boosted trees, read from the graph that is served: what LightGBM calls ``pred_contrib``.

A graph's trees carry how many training rows went through each node (``nodes_hitrates``). With them a feature's
contribution is its Shapley value in the game "what does the tree say when only these features are known" of Lundberg et
al., From local explanations to global understanding with explainable AI for trees (Nature Machine Intelligence 2020).
A leaf's share in it is an integral over a product (one factor a feature on its path), which Gauss-Legendre quadrature
gives exactly; so all leaves are done at once, without walking the trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mulle.kernel.bundle import INPUT

__all__ = ["Forest", "read_forest"]

_LEAST = 1e-9
_LINKS = {(): "value", ("Softmax",): "softmax", ("Sigmoid", "Sub", "Concat"): "sigmoid"}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forest:
    """The leaves of boosted trees, each with what its path asks of the features.

    Attributes
    ----------
    feature : numpy.ndarray of int64, shape (leaves, longest)
    low, high : numpy.ndarray of float32, shape (leaves, longest)
        A value stays on the path when ``low < value <= high``.
    gap : numpy.ndarray of bool, shape (leaves, longest)
        Whether a missing value stays on it.
    share : numpy.ndarray of float64, shape (leaves, longest)
        Of the training rows, how many stayed on the path at this feature's splits.
    value : numpy.ndarray of float64, shape (leaves,)
    output : numpy.ndarray of int64, shape (leaves,)
    base : numpy.ndarray of float64, shape (outputs,)
        What the trees say on average over the training rows.
    link : str
        ``value``, ``sigmoid`` or ``softmax``: what turns scores into the answer.
    """

    feature: npt.NDArray[np.int64]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    gap: npt.NDArray[np.bool_]
    share: Floats
    value: Floats
    output: npt.NDArray[np.int64]
    base: Floats
    link: str

    def contributions(self, row: npt.NDArray[np.float32]) -> Floats:
        """Give each feature's contribution to each output, shape (outputs, k), for one row, shape (k,)."""
        given = row[self.feature]
        stays = np.where(np.isnan(given), self.gap, (given > self.low) & (given <= self.high)).astype(np.float64)
        moved = np.zeros_like(self.share)
        points, weights = np.polynomial.legendre.leggauss((self.feature.shape[1] + 1) // 2)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            factor = (1 - point) * self.share + point * stays
            moved += weight * factor.prod(axis=1)[:, None] / factor
        moved *= (stays - self.share) * self.value[:, None]
        width, outputs = len(row), len(self.base)
        place = self.output[:, None] * width + self.feature
        summed = np.bincount(place.ravel(), moved.ravel(), minlength=outputs * width).astype(np.float64)
        return summed.reshape(outputs, width)


def read_forest(graph: bytes) -> Forest | None:
    """Read the trees of a compiled model.

    Returns
    -------
    Forest or None
        None when the graph is something else, its trees do not take the matrix as it is, the answer is no sum, a margin or
        shares of it, or nobody counted the rows (bundles of before, forests).
    """
    made = onnx.load_from_string(graph).graph
    node = next((n for n in made.node if n.op_type == "TreeEnsembleRegressor"), None)
    rest = tuple(n.op_type for n in made.node if n is not node)
    if node is None or node.input[0] != INPUT or made.node[0] is not node or rest not in _LINKS:
        return None
    told = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if not told.get("nodes_hitrates") or min(told["nodes_hitrates"]) < 0 or len(set(told["nodes_hitrates"])) == 1:
        return None
    return _forest(told, _LINKS[rest])


Asked = dict[int, tuple[float, float, bool, float]]
"""What the way to a node asks, by feature: low, high, gap, share."""


def _forest(told: Mapping[str, Any], link: str) -> Forest:
    outputs = int(told["n_targets"])
    base = np.array(told.get("base_values") or [0.0] * outputs, dtype=np.float64)
    leaves: list[tuple[Asked, float, int]] = []
    weights: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for tree, number, output, value in zip(*(told[f"target_{n}"] for n in ("treeids", "nodeids", "ids", "weights")), strict=True):
        weights.setdefault((tree, number), []).append((output, value))
    nodes = _Nodes(told)
    for tree in dict.fromkeys(told["nodes_treeids"]):
        for number, asked in nodes.paths(tree):
            for output, value in weights.get((tree, number), ()):
                leaves.append((asked, value, output))
                base[output] += value * float(np.prod([part[3] for part in asked.values()]))
    longest = max(1, *(len(asked) for asked, _, _ in leaves))
    parts = np.array(
        [
            [(f, *p) for f, p in asked.items()] + [(0, -np.inf, np.inf, True, 1.0)] * (longest - len(asked))
            for asked, _, _ in leaves
        ]
    )
    return Forest(
        feature=parts[:, :, 0].astype(np.int64),
        low=parts[:, :, 1].astype(np.float32),
        high=parts[:, :, 2].astype(np.float32),
        gap=parts[:, :, 3].astype(bool),
        share=np.maximum(parts[:, :, 4], _LEAST),
        value=np.array([value for _, value, _ in leaves]),
        output=np.array([output for _, _, output in leaves], dtype=np.int64),
        base=base,
        link=link,
    )


class _Nodes:
    """A graph's parallel lists of nodes, by tree and number."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        numbers = zip(told["nodes_treeids"], told["nodes_nodeids"], strict=True)
        self._place = {pair: place for place, pair in enumerate(numbers)}

    def paths(self, tree: int) -> list[tuple[int, Asked]]:
        """Give each leaf's number with what its path asks."""
        found: list[tuple[int, Asked]] = []
        stack = [(0, Asked())]
        while stack:
            number, asked = stack.pop()
            place = self._place[tree, number]
            if self._told["nodes_modes"][place] == b"LEAF":
                found.append((number, asked))
                continue
            for side in (True, False):
                child = self._told["nodes_truenodeids" if side else "nodes_falsenodeids"][place]
                stack.append((child, self._step(asked, place, side, self._place[tree, child])))
        return found

    def _step(self, asked: Asked, place: int, side: bool, child: int) -> Asked:
        told = self._told
        feature, bound, mode = (
            told["nodes_featureids"][place],
            np.float32(told["nodes_values"][place]),
            told["nodes_modes"][place],
        )
        low, high, gap, share = asked.get(feature, (-np.inf, np.inf, True, 1.0))
        if mode == b"BRANCH_LT":  # x < bound is x <= the float32 before it
            bound = np.nextafter(bound, np.float32(-np.inf))
        if side == (mode == b"BRANCH_GT"):
            low = max(low, float(bound))
        else:
            high = min(high, float(bound))
        gap = gap and bool(told["nodes_missing_value_tracks_true"][place]) == side
        rows = told["nodes_hitrates"]
        share *= rows[child] / max(rows[place], _LEAST)
        return {**asked, feature: (low, high, gap, share)}
