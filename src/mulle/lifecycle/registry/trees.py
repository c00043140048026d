"""Boosted trees compiled by hand: they become one ONNX node whose float32 thresholds decide as the originals do.

The general converter rounds thresholds to the nearest float32; a row whose value lies between two neighbours then may
go the other way. Here a threshold is rounded down, so that ``x <= threshold`` is the same for every float32 x.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mulle.kernel.bundle import INPUT, OUTPUT

__all__ = ["compile_catboost", "compile_hist", "compile_lightgbm", "compile_xgboost"]

_UNCOUNTED = -1.0
"""Written where nobody counted the training rows of a node; `shap` explains trees by them."""

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
    dumped = booster.dump_model()
    objective = str(dumped.get("objective", "")).split(" ")
    kind = _link(objective)
    if kind is None or dumped.get("average_output") or booster.params.get("linear_tree"):
        return None
    per_iteration = int(dumped["num_tree_per_iteration"])
    nodes = _Nodes()
    for number, tree in enumerate(dumped["tree_info"]):
        if not nodes.add_tree(number, number % per_iteration, tree["tree_structure"]):
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
        self.node: dict[str, list[Any]] = {
            name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
                                  "missing_value_tracks_true", "hitrates")
        }  # fmt: skip
        self.leaf: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def add_tree(self, tree: int, output: int, root: dict[str, Any]) -> bool:
        """Add a tree, nodes numbered in the order they are met; False when a split cannot be said."""
        stack, used = [(root, 0)], 1
        while stack:
            part, number = stack.pop()
            if "split_feature" not in part:
                self._add_leaf(tree, output, number, float(part["leaf_value"]), float(part.get("leaf_count", 1)))
                continue
            if part["decision_type"] != "<=" or part["missing_type"] not in ("None", "NaN"):
                return False
            threshold = float(part["threshold"])
            # Without a gap in training LightGBM reads a later gap as 0.
            left = bool(part["default_left"]) if part["missing_type"] == "NaN" else threshold >= 0.0
            rows = float(part["internal_count"])
            self._add(tree, number, int(part["split_feature"]), floor32(threshold), "BRANCH_LEQ", used, used + 1, int(left), rows)
            stack += [(part["left_child"], used), (part["right_child"], used + 1)]
            used += 2
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
        for name, item in zip(self.leaf, (tree, number, output, value), strict=True):
            self.leaf[name].append(item)

    def _add(self, *row: object) -> None:
        for name, item in zip(self.node, row, strict=True):
            self.node[name].append(item)

    def attributes(self) -> dict[str, list[Any]]:
        """Give the lists by the operator's own names."""
        return {f"nodes_{k}": v for k, v in self.node.items()} | {f"target_{k}": v for k, v in self.leaf.items()}


def floor32(value: float) -> float:
    """Round a threshold to the largest float32 that is not above it."""
    with np.errstate(over="ignore"):  # LightGBM writes "everything" as 1e300
        near = np.float32(value)
    return float(np.nextafter(near, np.float32(-np.inf)) if float(near) > value else near)


def _model(nodes: _Nodes, kind: str, width: int, outputs: int, base: Sequence[float] = ()) -> onnx.ModelProto:
    start = {"base_values": [float(b) for b in base]} if base else {}
    raw = OUTPUT if kind == "identity" else "raw"
    graph = [
        helper.make_node(
            "TreeEnsembleRegressor", [INPUT], [raw], domain="ai.onnx.ml", n_targets=outputs, aggregate_function="SUM",
            post_transform="NONE", **start, **nodes.attributes(),
        )
    ]  # fmt: skip
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
