"""Nearest neighbours compiled by hand: each row is held against all that were fitted on, one row at a time.

In float64 and by the same steps as the estimator takes, so that ties are ties in both. A loop over rows (ONNX's Scan) keeps
the memory at one row's distances, however many rows a batch has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mulle.kernel.bundle import INPUT, OUTPUT

__all__ = ["compile_neighbours"]

_SAME, _TIED = 1e-10, 1e-9


def compile_neighbours(model: Any, opsets: dict[str, int], ir: int) -> onnx.ModelProto:
    """Compile fitted `Neighbours`.

    Parameters
    ----------
    model : object
        With ``rows_``, ``told_``, ``n_neighbors`` and ``weights``.
    opsets : dict
        Domain to version.
    ir : int

    Returns
    -------
    ModelProto
        From the matrix that the estimator takes to its answers.
    """
    rows, count = model.rows_.astype(np.float64), min(model.n_neighbors, len(model.rows_))
    constants = {
        "rows_t": np.ascontiguousarray(rows.T), "squared": (rows * rows).sum(axis=1), "told": model.told_,
        "count": np.array([count], dtype=np.int64), "wanted": np.array(float(count)),
        "last_at": np.array([count - 1], dtype=np.int64), "zero": np.array(0.0), "two": np.array(2.0), "same": np.array(_SAME),
        "tied_by": np.array(_TIED), "one_row": np.array([1, -1], dtype=np.int64), "flat": np.array([-1], dtype=np.int64),
    }  # fmt: skip
    body = helper.make_graph(
        [*_distances(), *_weights(model.weights == "distance"), *_answer()],
        "row",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [rows.shape[1]])],
        [helper.make_tensor_value_info("answered", TensorProto.FLOAT, [model.told_.shape[1]])],
        # Inside the loop's own graph: whoever puts a prefix to the outer names does not look for their uses in here.
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    scan = helper.make_node("Scan", [INPUT], [OUTPUT], num_scan_inputs=1, body=body)
    graph = helper.make_graph(
        [scan],
        "neighbours",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, rows.shape[1]])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, model.told_.shape[1]])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, n) for d, n in opsets.items()], ir_version=ir)


def _node(kind: str, given: str, made: str, **told: Any) -> onnx.NodeProto:
    return helper.make_node(kind, given.split(), made.split(), **told)


def _distances() -> list[onnx.NodeProto]:
    return [
        _node("Cast", "row", "asked_flat", to=TensorProto.DOUBLE),
        _node("Reshape", "asked_flat one_row", "asked"),
        _node("ReduceSumSquare", "asked", "own", keepdims=0),
        _node("MatMul", "asked rows_t", "met"),
        _node("Mul", "met two", "met_twice"),
        _node("Add", "squared own", "sums"),
        _node("Sub", "sums met_twice", "signed"),
        _node("Max", "signed zero", "far"),
    ]


def _weights(by_distance: bool) -> list[onnx.NodeProto]:
    nodes = [
        _node("TopK", "far count", "nearest places", axis=-1, largest=0, sorted=1),
        _node("Gather", "nearest last_at", "last", axis=1),
        _node("Sub", "last tied_by", "before_last"),
        _node("Less", "far before_last", "is_nearer"),
        _node("Cast", "is_nearer", "nearer", to=TensorProto.DOUBLE),
        _node("Sub", "far last", "apart"),
        _node("Abs", "apart", "apart_by"),
        _node("LessOrEqual", "apart_by tied_by", "is_tied"),
        _node("Cast", "is_tied", "tied", to=TensorProto.DOUBLE),
        _node("ReduceSum", "nearer", "nearer_count", keepdims=0),
        _node("ReduceSum", "tied", "tied_count", keepdims=0),
        _node("Sub", "wanted nearer_count", "left"),
        _node("Div", "left tied_count", "share"),
        _node("Mul", "tied share", "shared"),
        _node("Add", "nearer shared", "counted"),
    ]
    if not by_distance:
        return [*nodes, _node("Identity", "counted", "weight")]
    return [
        *nodes,
        _node("LessOrEqual", "far same", "is_here"),
        _node("Cast", "is_here", "here_mask", to=TensorProto.DOUBLE),
        _node("Mul", "here_mask counted", "here"),
        _node("Max", "far same", "bounded"),
        _node("Sqrt", "bounded", "distance"),
        _node("Div", "counted distance", "away"),
        _node("ReduceSum", "here", "here_sum", keepdims=0),
        _node("Greater", "here_sum zero", "any_here"),
        _node("Where", "any_here here away", "weight"),
    ]


def _answer() -> list[onnx.NodeProto]:
    return [
        _node("MatMul", "weight told", "summed"),
        _node("ReduceSum", "weight", "weights", keepdims=0),
        _node("Div", "summed weights", "mean"),
        _node("Reshape", "mean flat", "mean_flat"),
        _node("Cast", "mean_flat", "answered", to=TensorProto.FLOAT),
    ]
