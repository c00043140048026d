"""Boosted trees compiled by hand: they become one ONNX node whose float32 thresholds decide as the originals do.

The general converter rounds thresholds to the nearest float32; a row whose value lies between two neighbours then may
go the other way. Here a threshold is rounded down, so that ``x <= threshold`` is the same for every float32 x.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from mulle.kernel.bundle import INPUT, OUTPUT

__all__ = ["compile_catboost", "compile_hist", "compile_lightgbm", "compile_xgboost"]

_UNCOUNTED = -1.0
"""Written where nobody counted the training rows of a node; `shap` explains trees by them."""

_ZERO, _NAN = 1, 2
"""What LightGBM holds to be missing, in bits 2 and 3 of a split's type; bit 0 is a split by category, bit 1 "gaps go left"."""

_NODE = tuple(
    f"nodes_{name}"
    for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
                 "missing_value_tracks_true", "hitrates")
)  # fmt: skip
_WEIGHT = ("target_treeids", "target_nodeids", "target_ids", "target_weights")
_FLOATS = {"nodes_values", "nodes_hitrates", "target_weights"}

_IDENTITY = {"regression", "regression_l1", "huber", "fair", "quantile", "mape"}
_EXPONENTIAL = {"poisson", "gamma", "tweedie"}
_HIST_LINKS = {
    **dict.fromkeys(("squared_error", "absolute_error", "quantile"), "identity"),
    **dict.fromkeys(("poisson", "gamma"), "exp"),
    "log_loss": "sigmoid",
}
_XGBOOST_LINKS = {
    **dict.fromkeys(("reg:squarederror", "reg:absoluteerror", "reg:quantileerror", "reg:pseudohubererror"), "identity"),
    **dict.fromkeys(("reg:gamma", "reg:tweedie", "count:poisson"), "exp"),
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "sigmoid"),
    "multi:softprob": "softmax",
}


def compile_lightgbm(booster: Any, width: int) -> onnx.ModelProto | None:
    """Compile a fitted booster.

    Parameters
    ----------
    booster : lightgbm.Booster
    width : int
        Columns of the input.

    Returns
    -------
    onnx.ModelProto or None
        None when it holds what the compiled form cannot say (categorical or linear splits, zero as missing, averaged
        trees, another objective).
    """
    # As text each tree is a few lists; as JSON it is nested, and takes ten times as long to read.
    head, *trees = booster.model_to_string().partition("\nend of trees")[0].split("\nTree=")
    told = _fields(head)
    kind = _link(told.get("objective", "").split(" "))
    if kind is None or "average_output" in told or booster.params.get("linear_tree"):
        return None
    per_iteration = int(told["num_tree_per_iteration"])
    nodes = _Nodes()
    for number, tree in enumerate(trees):
        if not nodes.add_text(number, number % per_iteration, _fields(tree)):
            return None
    return _model(nodes, kind, width, per_iteration)


def compile_hist(model: Any, width: int) -> onnx.ModelProto | None:
    """Compile a fitted histogram gradient boosting model of scikit-learn.

    Parameters
    ----------
    model : HistGradientBoostingRegressor or HistGradientBoostingClassifier
    width : int
        Columns of the input.

    Returns
    -------
    onnx.ModelProto or None
        None when it splits on categories of its own, or has another loss.
    """
    kind = _HIST_LINKS.get(model.loss if isinstance(model.loss, str) else "")
    if kind is None or model.is_categorical_ is not None:
        return None
    outputs = int(model.n_trees_per_iteration_)
    nodes = _Nodes()
    for iteration, trees in enumerate(model._predictors):
        for output, tree in enumerate(trees):
            nodes.add_table(iteration * outputs + output, output, tree.nodes)
    base = np.ravel(model._baseline_prediction).astype(np.float64).tolist()
    return _model(nodes, "softmax" if kind == "sigmoid" and outputs > 1 else kind, width, outputs, base)


def compile_xgboost(booster: Any, width: int) -> onnx.ModelProto | None:
    """Compile a fitted XGBoost model, whose splits are ``x < threshold`` with thresholds in float32.

    Parameters
    ----------
    booster : xgboost.Booster
    width : int
        Columns of the input.

    Returns
    -------
    onnx.ModelProto or None
        None for other boosters than trees, categorical splits and other objectives.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    kind, forest = _XGBOOST_LINKS.get(learner["objective"]["name"]), learner["gradient_booster"]
    if kind is None or forest["name"] != "gbtree":
        return None
    told = learner["learner_model_param"]
    outputs = max(1, int(told["num_class"]))
    nodes = _Nodes()
    for number, (tree, output) in enumerate(zip(forest["model"]["trees"], forest["model"]["tree_info"], strict=True)):
        if tree.get("categories"):
            return None
        nodes.add_lists(number, int(output), tree)
    base = np.array([float(v) for v in str(told["base_score"]).strip("[]").split(",")])
    if kind == "sigmoid":
        base = np.log(base / (1 - base))
    elif kind == "exp":
        base = np.log(base)
    return _model(nodes, kind, width, outputs, np.broadcast_to(base, outputs).tolist())


def compile_catboost(dumped: Any, width: int, kind: str) -> onnx.ModelProto | None:
    """Compile a CatBoost model, whose trees ask the same question on each level: is ``x > border``.

    Parameters
    ----------
    dumped : dict
        The model in CatBoost's JSON format.
    width : int
        Columns of the input.
    kind : str
        ``identity``, ``sigmoid`` or ``softmax``.

    Returns
    -------
    onnx.ModelProto or None
        None when it has other splits than of numbers.
    """
    scale, bias = dumped["scale_and_bias"]
    features = dumped["features_info"].get("float_features", [])
    gaps = {f["feature_index"]: f["nan_value_treatment"] == "AsTrue" for f in features}
    columns = {f["feature_index"]: f["flat_feature_index"] for f in features}
    outputs = len(bias)
    nodes = _Nodes()
    for number, tree in enumerate(dumped["oblivious_trees"]):
        splits = tree.get("splits") or []
        if any(s["split_type"] != "FloatFeature" for s in splits):
            return None
        asked = [(columns[s["float_feature_index"]], floor32(s["border"]), int(gaps[s["float_feature_index"]])) for s in splits]
        nodes.add_levels(number, asked, np.reshape(tree["leaf_values"], (-1, outputs)) * scale)
    return _model(nodes, kind, width, outputs, bias)


def _link(objective: list[str]) -> str | None:
    name, options = objective[0], objective[1:]
    if name in _IDENTITY and "sqrt" not in options:
        return "identity"
    if name in _EXPONENTIAL:
        return "exp"
    if name == "binary" and "sigmoid:1" in options:
        return "sigmoid"
    return "softmax" if name == "multiclass" else None


class _Nodes:
    """The parallel lists of a TreeEnsembleRegressor; ``hitrates`` hold how many training rows went through a node."""

    def __init__(self) -> None:
        self._nodes: tuple[list[Any], ...] = tuple([] for _ in _NODE)
        self._weights: tuple[list[Any], ...] = tuple([] for _ in _WEIGHT)

    def add_text(self, tree: int, output: int, told: Mapping[str, str]) -> bool:
        """Add a tree as LightGBM writes it, splits first and then leaves; False when a split cannot be said."""
        asked, threshold = _numbers(told["decision_type"]).astype(np.int64), _numbers(told["threshold"])
        missing, inner = asked >> 2 & 3, len(asked)
        if (asked & 1).any() or (missing == _ZERO).any() or told.get("is_linear") == "1":
            return False
        # Without a gap in training LightGBM reads a later gap as 0.
        left = np.where(missing == _NAN, asked >> 1 & 1, threshold >= 0.0)
        # The leaf i is written as the child -i - 1.
        sides = [_numbers(told[side]).astype(np.int64) for side in ("left_child", "right_child")]
        after = [np.where(side < 0, inner - 1 - side, side).tolist() for side in sides]
        values, counts = _numbers(told["leaf_value"]).tolist(), (_numbers(told[of]) for of in ("internal_count", "leaf_count"))
        leaves, places = len(values), list(range(inner + len(values)))
        none = [0] * leaves
        # Column by column: most of a compilation would go into rows that are taken apart again.
        columns = (
            [tree] * len(places), places, _numbers(told["split_feature"]).astype(np.int64).tolist() + none,
            _floor32(threshold).tolist() + none, ["BRANCH_LEQ"] * inner + ["LEAF"] * leaves, after[0] + none, after[1] + none,
            left.astype(np.int64).tolist() + none, np.concatenate([*counts]).tolist(),
        )  # fmt: skip
        for column, more in zip(self._nodes, columns, strict=True):
            column += more
        for column, more in zip(self._weights, ([tree] * leaves, places[inner:], [output] * leaves, values), strict=True):
            column += more
        return True

    def add_table(self, tree: int, output: int, rows: Any) -> None:
        """Add a tree that is a table of nodes, as scikit-learn keeps it."""
        for number, row in enumerate(rows):
            if row["is_leaf"]:
                self._add_leaf(tree, output, number, float(row["value"]), float(row["count"]))
                continue
            threshold, gap = floor32(float(row["num_threshold"])), int(row["missing_go_to_left"])
            after = int(row["left"]), int(row["right"])
            self._add(tree, number, int(row["feature_idx"]), threshold, "BRANCH_LEQ", *after, gap, float(row["count"]))

    def add_lists(self, tree: int, output: int, lists: Mapping[str, Sequence[Any]]) -> None:
        """Add a tree that is parallel lists of nodes, as XGBoost keeps it."""
        after = zip(lists["left_children"], lists["right_children"], strict=True)
        counts = lists.get("sum_hessian") or [_UNCOUNTED] * len(lists["left_children"])
        for number, (left, right) in enumerate(after):
            value = float(lists["split_conditions"][number])
            if left < 0:
                self._add_leaf(tree, output, number, value, float(counts[number]))
                continue
            feature, gap = int(lists["split_indices"][number]), int(bool(lists["default_left"][number]))
            self._add(tree, number, feature, value, "BRANCH_LT", int(left), int(right), gap, float(counts[number]))

    def add_levels(self, tree: int, asked: Sequence[tuple[int, float, int]], leaves: Any) -> None:
        """Add a tree with one question a level; answer yes on level i sets bit i of the leaf's number."""
        inner = 2 ** len(asked) - 1
        for number in range(inner):
            feature, border, gap = asked[(number + 1).bit_length() - 1]
            self._add(tree, number, feature, border, "BRANCH_GT", 2 * number + 2, 2 * number + 1, gap, _UNCOUNTED)
        for leaf in range(inner + 1):
            # The way to a leaf, read from the root, is its number's bits from the last to the first.
            place = int(format(leaf, f"0{len(asked)}b")[::-1], 2) if asked else 0
            self._add(tree, inner + leaf, 0, 0.0, "LEAF", 0, 0, 0, _UNCOUNTED)
            for output, value in enumerate(leaves[place]):
                self._add_weight(tree, inner + leaf, output, float(value))

    def _add_leaf(self, tree: int, output: int, number: int, value: float, rows: float) -> None:
        self._add(tree, number, 0, 0.0, "LEAF", 0, 0, 0, rows)
        self._add_weight(tree, number, output, value)

    def _add_weight(self, tree: int, number: int, output: int, value: float) -> None:
        for column, one in zip(self._weights, (tree, number, output, value), strict=True):
            column.append(one)

    def _add(self, *row: object) -> None:
        for column, one in zip(self._nodes, row, strict=True):
            column.append(one)

    def attributes(self) -> list[onnx.AttributeProto]:
        """Give the lists by the operator's own names."""
        return [_attribute(*named) for named in zip((*_NODE, *_WEIGHT), (*self._nodes, *self._weights), strict=True)]


def _attribute(name: str, values: Sequence[Any]) -> onnx.AttributeProto:
    # The helper of the library looks at each value several times to find out what they are.
    if name == "nodes_modes":
        return onnx.AttributeProto(name=name, type=onnx.AttributeProto.STRINGS, strings=[mode.encode() for mode in values])
    if name in _FLOATS:
        return onnx.AttributeProto(name=name, type=onnx.AttributeProto.FLOATS, floats=values)
    return onnx.AttributeProto(name=name, type=onnx.AttributeProto.INTS, ints=values)


def floor32(value: float) -> float:
    """Round a threshold to the largest float32 that is not above it."""
    return float(_floor32(np.array([value]))[0])


def _floor32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore"):  # LightGBM writes "everything" as 1e300
        near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def _numbers(text: str) -> npt.NDArray[np.float64]:
    return np.array(text.split(), dtype=np.float64)


def _model(nodes: _Nodes, kind: str, width: int, outputs: int, base: Sequence[float] = ()) -> onnx.ModelProto:
    start = {"base_values": [float(b) for b in base]} if base else {}
    raw = OUTPUT if kind == "identity" else "raw"
    graph = [
        helper.make_node(
            "TreeEnsembleRegressor", [INPUT], [raw], domain="ai.onnx.ml", n_targets=outputs, aggregate_function="SUM",
            post_transform="NONE", **start,
        )
    ]  # fmt: skip
    graph[0].attribute.extend(nodes.attributes())
    initial = []
    if kind == "exp":
        graph.append(helper.make_node("Exp", [raw], [OUTPUT]))
    elif kind == "softmax":
        graph.append(helper.make_node("Softmax", [raw], [OUTPUT], axis=1))
    elif kind == "sigmoid":
        initial.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
        graph.append(helper.make_node("Sigmoid", [raw], ["yes"]))
        graph.append(helper.make_node("Sub", ["one", "yes"], ["no"]))
        graph.append(helper.make_node("Concat", ["no", "yes"], [OUTPUT], axis=1))
    columns = 2 if kind == "sigmoid" else outputs
    given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, width])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, columns])
    made = helper.make_graph(graph, "trees", [given], [answer], initial)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)
