"""Adopting a graph: its inputs are found by name, whatever their form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mulle.core.errors import BundleError
from mulle.kernel.graph import open_graph
from mulle.lifecycle.registry.adopt import adopt

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)


def save(path: Path, inputs: Sequence[tuple[str, int, list[int | None]]], nodes: Sequence[onnx.NodeProto]) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(*told) for told in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(body: bytes) -> list[list[float]]:
    graph = open_graph(body)
    assert [shape for _, _, shape in graph.inputs] == [(None, 3)]
    return graph.run("y", ROWS).tolist()


def test_one_input_of_all_columns_is_fed_in_the_signatures_order(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [("x", TensorProto.FLOAT, [None, 2])], [helper.make_node("Identity", ["x"], ["y"])])
    assert run(adopt(path, ["c", "a"], ["a", "b", "c"])) == [[3, 1], [6, 4]]


def test_an_input_for_each_column_is_fed_by_its_name_and_type(tmp_path: Path) -> None:
    inputs = [("c", TensorProto.INT64, [None, 1]), ("b", TensorProto.FLOAT, [None])]
    nodes = [
        helper.make_node("Cast", ["c"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["whole"], ["flat"], axis=0),
        helper.make_node("Add", ["flat", "b"], ["y"]),
    ]
    assert run(adopt(save(tmp_path / "m.onnx", inputs, nodes), [], ["a", "b", "c"])) == [[5, 11]]


def test_a_column_that_is_no_feature_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [("x", TensorProto.FLOAT, [None, 2])], [helper.make_node("Identity", ["x"], ["y"])])
    with pytest.raises(BundleError, match="takes speed, which"):
        adopt(path, ["a", "speed"], ["a", "b"])


def test_a_graph_that_names_no_columns_or_too_few_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [("x", TensorProto.FLOAT, [None, 2])], [helper.make_node("Identity", ["x"], ["y"])])
    for columns in ([], ["a"]):
        with pytest.raises(BundleError, match="signature"):
            adopt(path, columns, ["a", "b"])


def test_texts_and_files_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [("s", TensorProto.STRING, [None, 1])], [helper.make_node("StringNormalizer", ["s"], ["y"])])
    with pytest.raises(BundleError, match="takes no numbers"):
        adopt(path, [], ["s"])
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match="does not load"):
        adopt(path, [], ["s"])
