"""Compiling: a fitted pipeline becomes an ONNX graph with one float32 input and one float32 output."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from mulle.kernel.bundle import INPUT, OUTPUT
from mulle.kernel.fitted import Estimator, answers
from mulle.kernel.graph import open_graph
from mulle.lifecycle.registry.ensemble import compile_blend
from mulle.lifecycle.registry.means import register_frequencies, register_means
from mulle.lifecycle.registry.neighbours import compile_neighbours
from mulle.lifecycle.registry.trees import compile_catboost, compile_hist, compile_lightgbm, compile_xgboost

__all__ = ["compile_foreign", "compile_model"]

_IR = 8
_OPSETS = {"": 17, "ai.onnx.ml": 3}

_TRIED, _CLOSE, _FLOAT = 64, 1e-3, 1e30

_log = logging.getLogger(__name__)


def compile_model(fitted: Estimator, *, width: int, task: str) -> bytes | None:
    """Compile a fitted pipeline.

    Parameters
    ----------
    fitted : Estimator
        A scikit-learn pipeline on an encoded float32 matrix; its last step may be LightGBM's.
    width : int
        Columns of the matrix.
    task : str

    Returns
    -------
    bytes or None
        The graph: input `kernel.bundle.INPUT` float32 (n, width), output `kernel.bundle.OUTPUT` float32 (n, 1), or
        (n, classes) probabilities. None when the pipeline has a part without a compiled form, or what was compiled
        answers otherwise on made-up rows; it is then served natively.
    """
    if hasattr(fitted, "members") and hasattr(fitted, "weights"):
        return compile_blend(fitted, lambda member: compile_model(member, width=width, task=task))
    model = _last(fitted)
    try:
        compiled = _compiled(fitted, model, width, task)
        if compiled is not None and not _alike(fitted, bytes(compiled.SerializeToString()), width, task):
            _log.info("%s is compiled to something that answers otherwise", type(model).__name__)
            return None
    except Exception as error:  # the converters raise whatever they meet; the native path is always there
        _log.info("%s does not compile: %s: %s", type(model).__name__, type(error).__name__, str(error)[:300])
        return None
    return None if compiled is None else bytes(compiled.SerializeToString())


def compile_foreign(model: Any, columns: Sequence[str], *, task: str) -> bytes | None:
    """Compile an estimator that was fitted elsewhere, a booster by itself among them.

    Parameters
    ----------
    model : object
    columns : sequence of str
        Its inputs in their order; one that picks them by name is fed so.
    task : str

    Returns
    -------
    bytes or None
        As `compile_model` gives it; nothing was tried on rows yet.
    """
    width, booster = len(columns), type(model).__name__ == "Booster"
    ways: list[Callable[[], onnx.ModelProto | None]] = [lambda: _compiled(model, _last(model), width, task)]
    if booster:
        ways = [lambda: (compile_xgboost if hasattr(model, "save_raw") else compile_lightgbm)(model, width)]
    elif hasattr(model, "feature_names_in_"):
        ways.append(lambda: _by_name(model, columns, task))
    for way in ways:
        try:
            made = way()
        except Exception as error:  # the converters raise whatever they meet
            _log.info("%s does not compile: %s: %s", type(model).__name__, type(error).__name__, str(error)[:300])
            continue
        if made is not None:
            return bytes(made.SerializeToString())
    return None


def _by_name(model: Any, columns: Sequence[str], task: str) -> onnx.ModelProto:
    """Compile what picks its columns by name, and deal the one matrix out to it."""
    made = _convert(model, len(columns), task, names=columns)
    nodes = []
    for place, name in enumerate(columns):
        made.graph.initializer.append(helper.make_tensor(f"mulle.place.{place}", TensorProto.INT64, [1], [place]))
        nodes.append(helper.make_node("Gather", [INPUT, f"mulle.place.{place}"], [name], axis=1))
    nodes += made.graph.node
    del made.graph.node[:], made.graph.input[:]
    made.graph.node.extend(nodes)
    made.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, len(columns)]))
    return made


def _alike(fitted: Estimator, model: bytes, width: int, task: str) -> bool:
    """Compare on made-up rows of any size, codes and gaps: a converter may say yes and mean something else."""
    dice = np.random.default_rng(0)
    # Whole numbers, for some columns are codes; small ones, for what far outside is 0 / 0 is held elsewhere.
    rows = np.round(dice.normal(size=(_TRIED, width)) * 10.0 ** dice.integers(0, 3, (_TRIED, width)))
    rows[::4] = dice.integers(-1, 50, rows[::4].shape)
    gaps = np.where(dice.random(rows.shape) < 0.2, np.nan, rows)
    graph = open_graph(model)
    for tried in (rows.astype(np.float32), gaps.astype(np.float32)):
        try:
            said = answers(fitted, tried, task)
        except ValueError:  # an estimator that takes no gaps says so itself
            continue
        served = graph.run(OUTPUT, tried).reshape(said.shape)
        scale = np.maximum(np.abs(said), np.nanstd(said)) + 1e-6 if task == "regression" else 1.0
        within = np.abs(said) < _FLOAT  # beyond, float32 has no number to be held against
        if not bool((np.abs(said - served) <= _CLOSE * scale)[within].all()):
            return False
    return True


def _last(fitted: Estimator) -> Any:
    return fitted.steps[-1][1] if isinstance(fitted, Pipeline) else fitted


def _compiled(fitted: Estimator, model: Any, width: int, task: str) -> onnx.ModelProto | None:
    if isinstance(model, (DummyRegressor, DummyClassifier)):
        return _constant(fitted, width, task)
    if isinstance(model, (KNeighborsRegressor, KNeighborsClassifier)):
        # Which of two neighbours equally far away counts, and what is zero away, the general converter says otherwise.
        return None
    if hasattr(model, "told_") and hasattr(model, "n_neighbors"):
        return _after_preparation(fitted, compile_neighbours(model, _OPSETS, _IR), width)
    if isinstance(getattr(model, "onnx_", None), bytes):
        return _adopted(model.onnx_, model.output_, 1 if task == "regression" else len(model.classes_))
    if isinstance(model, TransformedTargetRegressor):
        return _scaled_back(fitted, model, width)
    if hasattr(model, "booster_"):
        return _after_preparation(fitted, compile_lightgbm(model.booster_, model.n_features_in_), width)
    if isinstance(model, (HistGradientBoostingRegressor, HistGradientBoostingClassifier)):
        return _after_preparation(fitted, compile_hist(model, model.n_features_in_), width)
    boosted = getattr(model, "model_", model)
    if hasattr(boosted, "get_booster"):
        return _after_preparation(fitted, compile_xgboost(boosted.get_booster(), boosted.n_features_in_), width)
    if hasattr(boosted, "get_borders"):
        return _after_preparation(fitted, _catboost(boosted, task), width)
    return _convert(fitted, width, task)


def _catboost(model: Any, task: str) -> onnx.ModelProto | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        dumped = json.loads(file.read_text())
    kind = {"regression": "identity", "binary": "sigmoid"}.get(task, "softmax")
    return compile_catboost(dumped, model.n_features_in_, kind)


def _adopted(graph: bytes, output: str, columns: int) -> onnx.ModelProto:
    """Give a graph from elsewhere the names, the type and the shape that a bundle's model has."""
    made = onnx.load_from_string(graph)
    given = made.graph.input[0]
    inner = onnx.compose.add_prefix(made, "own_")
    nodes = [helper.make_node("Identity", [INPUT], [f"own_{given.name}"]), *inner.graph.node]
    nodes.append(helper.make_node("Cast", [f"own_{output}"], ["floats"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Reshape", ["floats", "shape_of_answer"], [OUTPUT]))
    takes = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, given.type.tensor_type.shape.dim[1].dim_value or None])
    gives = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, columns])
    inner.graph.initializer.append(helper.make_tensor("shape_of_answer", TensorProto.INT64, [2], [-1, columns]))
    del inner.graph.node[:], inner.graph.input[:], inner.graph.output[:]
    inner.graph.node.extend(nodes)
    inner.graph.input.append(takes)
    inner.graph.output.append(gives)
    return inner


def _after_preparation(fitted: Any, trees: onnx.ModelProto | None, width: int) -> onnx.ModelProto | None:
    """Put what was fitted before the trees in front of their graph."""
    if trees is None or not isinstance(fitted, Pipeline) or len(fitted.steps) == 1:
        return trees
    first = _convert(Pipeline(fitted.steps[:-1]), width, "regression", output="prepared")
    first.graph.output[0].name = "prepared"
    second = onnx.compose.add_prefix(trees, "trees_")
    made = onnx.compose.merge_models(first, second, io_map=[("prepared", f"trees_{INPUT}")])
    made.graph.node.append(helper.make_node("Identity", [f"trees_{OUTPUT}"], [OUTPUT]))
    made.graph.output[0].name = OUTPUT
    return made


def _scaled_back(fitted: Any, model: TransformedTargetRegressor, width: int) -> onnx.ModelProto | None:
    """Compile what was fitted on a scaled target, and scale its answers back."""
    scaler = model.transformer_
    if not isinstance(scaler, StandardScaler):
        return None
    inner = Pipeline([*fitted.steps[:-1], ("model", model.regressor_)])
    made = _convert(inner, width, "regression", output="scaled")
    made.graph.initializer.extend(
        [
            helper.make_tensor("target_scale", TensorProto.FLOAT, [1], [float(scaler.scale_[0])]),
            helper.make_tensor("target_mean", TensorProto.FLOAT, [1], [float(scaler.mean_[0])]),
        ]
    )
    made.graph.node.append(helper.make_node("Mul", ["scaled", "target_scale"], ["spread"]))
    made.graph.node.append(helper.make_node("Add", ["spread", "target_mean"], [OUTPUT]))
    return made


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
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSETS[""])], ir_version=_IR)


def _frequencies(fitted: Any) -> list[Any]:
    """Find encoders that training made, which the converter has to be told about, in a pipeline's preparation."""
    parts = [part for _, step in getattr(fitted, "steps", ()) for _, part, _ in getattr(step, "transformers_", ())]
    steps = [step for part in parts for _, step in getattr(part, "steps", ())]
    return [step for step in steps if hasattr(step, "shares_")]


def _convert(fitted: Any, width: int, task: str, *, output: str = OUTPUT, names: Sequence[str] = ()) -> onnx.ModelProto:
    # Imported late: the converters take a second that runs of LightGBM need not pay.
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    register_means()
    for encoder in _frequencies(fitted):
        register_frequencies(type(encoder))
    options = None if task == "regression" else {id(fitted): {"zipmap": False}}
    inputs = [(name, FloatTensorType([None, 1])) for name in names] or [(INPUT, FloatTensorType([None, width]))]
    made = convert_sklearn(fitted, initial_types=inputs, options=options, target_opset=_OPSETS)
    last = made.graph.output[-1].name
    made = select_model_inputs_outputs(made, outputs=[last])
    # The converter names the oldest sets that would do; a graph that is put in front of another must name the same.
    made.ir_version = _IR
    del made.opset_import[:]
    made.opset_import.extend(helper.make_opsetid(domain, number) for domain, number in _OPSETS.items())
    made.graph.node.append(helper.make_node("Identity", [last], [output]))
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, None]))
    return made
