"""Mean targets and frequencies of codes compiled by hand: what takes a code's place is looked up in a table.

The general converter knows means of numbers and of two classes alone, and no frequencies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

__all__ = ["register_frequencies", "register_means"]


def register_means() -> None:
    """Teach the converter about scikit-learn's ``TargetEncoder``; doing so again changes nothing."""
    from skl2onnx import update_registered_converter
    from sklearn.preprocessing import TargetEncoder

    update_registered_converter(TargetEncoder, "MulleTargetEncoder", _shape, _convert, overwrite=True)


def register_frequencies(kind: type) -> None:
    """Teach the converter about an encoder with ``codes_`` and ``shares_``, as training makes one."""
    from skl2onnx import update_registered_converter

    update_registered_converter(kind, "MulleFrequencies", _width, _convert_shares, overwrite=True)


def _width(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    operator.outputs[0].type = FloatTensorType([None, operator.raw_operator.n_features_in_])


def _convert_shares(scope: Any, operator: Any, container: Any) -> None:
    encoder, given, parts = operator.raw_operator, operator.inputs[0].full_name, []
    for i, (codes, shares) in enumerate(zip(encoder.codes_, encoder.shares_, strict=True)):
        names = {what: scope.get_unique_variable_name(what) for what in ("place", "column", "share")}
        container.add_initializer(names["place"], TensorProto.INT64, [1], [i])
        container.add_node("Gather", [given, names["place"]], names["column"], axis=1, name=scope.get_unique_operator_name("g"))
        container.add_node(
            "LabelEncoder", names["column"], names["share"], op_domain="ai.onnx.ml", op_version=2,
            name=scope.get_unique_operator_name("l"), keys_floats=[float(c) for c in codes],
            values_floats=[float(s) for s in shares], default_float=0.0,
        )  # fmt: skip
        parts.append(names["share"])
    container.add_node("Concat", parts, operator.outputs[0].full_name, axis=1, name=scope.get_unique_operator_name("c"))


def _shape(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    operator.outputs[0].type = FloatTensorType([None, len(operator.raw_operator.encodings_)])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Look each code up in a table with a row for each category, a last one for all others, and a column for each class."""
    encoder, given = operator.raw_operator, operator.inputs[0].full_name
    classes = len(encoder.encodings_) // len(encoder.categories_)
    parts = []
    for i, codes in enumerate(encoder.categories_):
        means = np.stack([*encoder.encodings_[i * classes : (i + 1) * classes]], axis=1)
        table = np.vstack([means, np.broadcast_to(encoder.target_mean_, (1, classes))]).astype(np.float32)
        names = {what: scope.get_unique_variable_name(what) for what in ("place", "table", "column", "row", "flat", "found")}
        container.add_initializer(names["place"], TensorProto.INT64, [1], [i])
        container.add_initializer(names["flat"] + "_shape", TensorProto.INT64, [1], [-1])
        container.add_initializer(names["table"], TensorProto.FLOAT, list(table.shape), table.ravel().tolist())
        container.add_node("Gather", [given, names["place"]], names["column"], axis=1, name=scope.get_unique_operator_name("g"))
        container.add_node(
            "LabelEncoder", names["column"], names["row"], op_domain="ai.onnx.ml", op_version=2,
            name=scope.get_unique_operator_name("l"), keys_floats=[float(c) for c in codes],
            values_int64s=list(range(len(codes))), default_int64=len(codes),
        )  # fmt: skip
        container.add_node(
            "Reshape", [names["row"], names["flat"] + "_shape"], names["flat"], name=scope.get_unique_operator_name("r")
        )
        container.add_node(
            "Gather", [names["table"], names["flat"]], names["found"], axis=0, name=scope.get_unique_operator_name("t")
        )
        parts.append(names["found"])
    container.add_node("Concat", parts, operator.outputs[0].full_name, axis=1, name=scope.get_unique_operator_name("c"))
