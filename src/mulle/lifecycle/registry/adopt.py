"""Adopting a graph that was trained elsewhere: its inputs, found by name, are fed from the matrix of a model's features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from mulle.core.errors import BundleError

__all__ = ["adopt", "in_order"]

_MATRIX = "mulle.matrix"

_NUMBERS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def adopt(path: Path, columns: Sequence[str], features: Sequence[str]) -> bytes:
    """Give a graph one input, the float32 matrix (n, k) of a model's features.

    Parameters
    ----------
    path : Path
        The graph, with one input of all columns or one input for each column.
    columns : sequence of str
        Names of the one input's columns, in their order; looked at only when there is one input of several columns.
    features : sequence of str, length k
        Names of the matrix's columns.

    Returns
    -------
    bytes

    Raises
    ------
    BundleError
        When the graph does not load, takes something other than numbers, names no columns, or names one that is no feature.
    """
    try:
        made = onnx.load(str(path))
    except Exception as error:
        raise BundleError(f"the graph does not load: {error}", next="check it with onnx.checker") from error
    constants = {tensor.name for tensor in made.graph.initializer}
    given = [i for i in made.graph.input if i.name not in constants]
    strange = [i.name for i in given if i.type.tensor_type.elem_type not in _NUMBERS]
    if strange:
        raise BundleError(f"the graph's input {strange[0]} takes no numbers", next="only models of numbers can be imported")
    width = given[0].type.tensor_type.shape.dim[1].dim_value if _is_one(given) else 0
    if _is_one(given) and (not columns or width not in (0, len(columns))):
        raise BundleError(
            f"the graph takes {width or 'any number of'} columns, its signature names {len(columns)}",
            next="log it again with signature=infer_signature(frame), so that its columns have names",
        )
    wanted = [tuple(columns)] if _is_one(given) else [(i.name,) for i in given]
    missing = sorted({name for names in wanted for name in names} - set(features))
    if missing:
        raise BundleError(
            f"the graph takes {', '.join(missing)}, which the feature function does not give",
            next=f"return it from the feature function; its features: {', '.join(features)}",
        )
    nodes = [
        node for i, names in zip(given, wanted, strict=True) for node in _feed(i, [features.index(name) for name in names], made)
    ]
    nodes += _without_maps(made)
    del made.graph.node[:], made.graph.input[:]
    made.graph.node.extend(nodes)
    made.graph.input.append(helper.make_tensor_value_info(_MATRIX, TensorProto.FLOAT, [None, len(features)]))
    return bytes(made.SerializeToString())


def in_order(graph: bytes, places: Sequence[int]) -> bytes:
    """Put the columns of a graph's one output into another order: classes as the target's text is sorted."""
    made = onnx.load_from_string(graph)
    last = made.graph.output[0].name
    made.graph.initializer.append(helper.make_tensor("mulle.order", TensorProto.INT64, [len(places)], list(places)))
    made.graph.node.append(helper.make_node("Gather", [last, "mulle.order"], ["mulle.ordered"], axis=1))
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info("mulle.ordered", TensorProto.FLOAT, [None, len(places)]))
    return bytes(made.SerializeToString())


def _is_one(given: Sequence[onnx.ValueInfoProto]) -> bool:
    if len(given) != 1:
        return False
    shape = given[0].type.tensor_type.shape.dim
    return len(shape) == 2 and shape[1].dim_value != 1


def _feed(given: onnx.ValueInfoProto, places: Sequence[int], made: onnx.ModelProto) -> list[onnx.NodeProto]:
    kind, shape = given.type.tensor_type.elem_type, given.type.tensor_type.shape.dim
    chosen, told = f"mulle.chosen.{given.name}", f"mulle.places.{given.name}"
    made.graph.initializer.append(helper.make_tensor(told, TensorProto.INT64, [len(places)], places))
    nodes = [helper.make_node("Gather", [_MATRIX, told], [chosen], axis=1)]
    if len(shape) == 1:
        made.graph.initializer.append(helper.make_tensor(f"{told}.flat", TensorProto.INT64, [1], [-1]))
        nodes.append(helper.make_node("Reshape", [chosen, f"{told}.flat"], [f"{chosen}.flat"]))
        chosen = f"{chosen}.flat"
    return [*nodes, helper.make_node("Cast", [chosen], [given.name], to=kind)]


def _without_maps(made: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Let probabilities end as numbers: a map from class to share for each row is nothing that can be scored at once."""
    maps = {node.output[0]: node.input[0] for node in made.graph.node if node.op_type == "ZipMap"}
    kept = [o for o in made.graph.output if o.name not in maps]
    kept += [helper.make_tensor_value_info(inner, TensorProto.FLOAT, [None, None]) for inner in maps.values()]
    del made.graph.output[:]
    made.graph.output.extend(kept)
    return [node for node in made.graph.node if node.op_type != "ZipMap"]
