"""Compiling ensembles: the members' graphs become one with one input, and a calibration its last nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, compose, helper, version_converter

from mulle.kernel.bundle import INPUT, OUTPUT

__all__ = ["compile_blend", "merge_graphs"]

_LEAST_CHANCE = 1e-6


def compile_blend(fitted: Any, compile_member: Callable[[Any], bytes | None]) -> bytes | None:
    """Compile a weighted mean of fitted members.

    Parameters
    ----------
    fitted : object
        With ``members``, ``weights``, ``scale`` and ``shift``, as training makes it.
    compile_member : callable

    Returns
    -------
    bytes or None
        None when a member has no compiled form.
    """
    compiled = [compile_member(member) for member in fitted.members]
    graphs = [graph for graph in compiled if graph is not None]
    if len(graphs) < len(compiled):
        return None
    return merge_graphs(graphs, fitted.weights, scale=fitted.scale, shift=fitted.shift)


def merge_graphs(graphs: Sequence[bytes], weights: Sequence[float], *, scale: float = 1.0, shift: Sequence[float] = ()) -> bytes:
    """Merge compiled models into one that answers their weighted mean.

    Parameters
    ----------
    graphs : sequence of bytes
        Each with input `kernel.bundle.INPUT` float32 (n, k) and output `kernel.bundle.OUTPUT` float32 (n, outputs), the
        same k and outputs in all.
    weights : sequence of float
        One a graph.
    scale : float
    shift : sequence of float
        One an output: probabilities p become ``softmax(scale * log p + shift)``. Without it they stay as they are.

    Returns
    -------
    bytes
        A graph of the same input and output.
    """
    models = _of_one_opset([onnx.load_from_string(graph) for graph in graphs])
    parts = [compose.add_prefix(model, f"m{i}_") for i, model in enumerate(models)]
    nodes, initial = [], []
    for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        nodes += [helper.make_node("Identity", [INPUT], [f"m{i}_{INPUT}"]), *part.graph.node]
        nodes += [helper.make_node("Mul", [f"m{i}_{OUTPUT}", f"weight{i}"], [f"part{i}"])]
        initial += [*part.graph.initializer, helper.make_tensor(f"weight{i}", TensorProto.FLOAT, [1], [weight])]
    last = "mean" if shift else OUTPUT
    nodes.append(helper.make_node("Sum", [f"part{i}" for i in range(len(parts))], [last]))
    if shift:
        nodes += _corrected(last)
        initial += [
            helper.make_tensor("least", TensorProto.FLOAT, [1], [_LEAST_CHANCE]),
            helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale]),
            helper.make_tensor("shift", TensorProto.FLOAT, [1, len(shift)], list(shift)),
        ]
    given, answer = models[0].graph.input[0], models[0].graph.output[0]
    graph = helper.make_graph(nodes, "blend", [given], [answer], initial)
    opsets = {o.domain: o.version for model in models for o in model.opset_import}
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())],
        ir_version=max(model.ir_version for model in models),
    )
    return bytes(made.SerializeToString())


def _corrected(mean: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Max", [mean, "least"], ["held"]),
        helper.make_node("Log", ["held"], ["logs"]),
        helper.make_node("Mul", ["logs", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["raw"]),
        helper.make_node("Softmax", ["raw"], [OUTPUT], axis=1),
    ]


def _of_one_opset(models: Sequence[onnx.ModelProto]) -> list[onnx.ModelProto]:
    """Raise models to the latest version of ONNX among them: a graph has one."""
    versions = [next(o.version for o in model.opset_import if o.domain == "") for model in models]
    latest = max(versions)
    return [
        model if version == latest else version_converter.convert_version(model, latest)
        for model, version in zip(models, versions, strict=True)
    ]
