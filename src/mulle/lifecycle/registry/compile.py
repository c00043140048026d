"""Compiling: a fitted pipeline becomes an ONNX graph with one float32 input and one float32 output."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import Pipeline

from mulle.kernel.bundle import INPUT, OUTPUT
from mulle.kernel.fitted import Estimator, answers
from mulle.lifecycle.registry.trees import compile_lightgbm

__all__ = ["compile_model"]

_log = logging.getLogger(__name__)


def compile_model(fitted: Estimator, *, width: int, task: str) -> bytes | None:
    """Compile a fitted pipeline.

    Parameters
    ----------
    fitted : Estimator
        A scikit-learn pipeline on an encoded float32 matrix; its last step may be LightGBM.
    width : int
        Columns of the matrix.
    task : str

    Returns
    -------
    bytes or None
        The graph: input `kernel.bundle.INPUT` float32 (n, width), output `kernel.bundle.OUTPUT` float32 (n, 1), or
        (n, classes) probabilities. None when the pipeline has a part without a compiled form; it is then served
        natively.
    """
    steps = list(fitted.steps) if isinstance(fitted, Pipeline) else [("model", fitted)]
    model = steps[-1][1]
    try:
        if isinstance(model, (DummyRegressor, DummyClassifier)):
            compiled: onnx.ModelProto | None = _constant(fitted, width, task)
        elif hasattr(model, "booster_"):
            compiled = compile_lightgbm(model.booster_, width) if len(steps) == 1 else None
        else:
            compiled = _convert(fitted, width, task)
    except Exception as error:  # the converters raise whatever they meet; the native path is always there
        _log.info("%s does not compile: %s: %s", type(model).__name__, type(error).__name__, error)
        return None
    return None if compiled is None else bytes(compiled.SerializeToString())


def _constant(fitted: Estimator, width: int, task: str) -> onnx.ModelProto:
    said = answers(fitted, np.zeros((1, width), dtype=np.float32), task).astype(np.float32)
    columns = said.shape[1]
    nodes = [
        helper.make_node("Shape", [INPUT], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "columns"], ["shape"], axis=0),
        helper.make_node("Expand", ["said", "shape"], [OUTPUT]),
    ]
    initial = [
        helper.make_tensor("said", TensorProto.FLOAT, [1, columns], said.ravel().tolist()),
        helper.make_tensor("columns", TensorProto.INT64, [1], [columns]),
    ]
    given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, width])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, columns])
    graph = helper.make_graph(nodes, "constant", [given], [answer], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _convert(fitted: Any, width: int, task: str) -> onnx.ModelProto:
    # Imported late: the converters take a second that runs of LightGBM need not pay.
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    options = None if task == "regression" else {id(fitted): {"zipmap": False}}
    made = convert_sklearn(
        fitted, initial_types=[(INPUT, FloatTensorType([None, width]))], options=options, target_opset={"": 17, "ai.onnx.ml": 3}
    )
    last = made.graph.output[-1].name
    made = select_model_inputs_outputs(made, outputs=[last])
    made.graph.node.append(helper.make_node("Identity", [last], [OUTPUT]))
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, None]))
    return made
