"""MLflow's scoring protocol: every shape of its request becomes rows.

Shapes: https://mlflow.org/docs/latest/deployment/deploy-model-locally (dataframe_split, dataframe_records,
instances, inputs, CSV).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import orjson

from mulle.core.errors import ContractError, Malformed
from mulle.core.records.bundle import InputField
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.asgi import Reply, parse_json
from mulle.surfaces.inference.call import Call

__all__ = ["invoke"]

_SHAPES = "dataframe_records, dataframe_split, instances or inputs"
_FALSE_TRUE = {"false": False, "true": True, "0": False, "1": True}


async def invoke(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v1/models/{name}[/versions/{v}]/invocations``."""
    _, contract = await runtime.contract(call.model, call.version)
    if call.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() == b"text/csv":
        rows = _csv(call.body, contract.inputs, call.model)
    else:
        rows = _rows(parse_json(call.headers, call.body), [f.name for f in contract.inputs])
    answers = await call.predict(runtime, rows)
    return Reply(orjson.dumps({"predictions": [answer["value"] for answer in answers]}))


def _rows(body: object, names: Sequence[str]) -> list[Any]:
    if not isinstance(body, dict):
        raise Malformed("the body is not an object", next=f"send one with {_SHAPES}")
    if "dataframe_records" in body:
        return _listed(body["dataframe_records"], "dataframe_records")
    if "dataframe_split" in body:
        split = body["dataframe_split"]
        if not isinstance(split, dict):
            raise Malformed("dataframe_split is not an object", next="send columns and data")
        columns = _listed(split.get("columns", list(names)), "columns")
        return [_zipped(columns, values, index) for index, values in enumerate(_listed(split.get("data"), "data"))]
    if "instances" in body:
        given = _listed(body["instances"], "instances")
        return [item if isinstance(item, dict) else _zipped(names, item, index) for index, item in enumerate(given)]
    if "inputs" in body:
        return _inputs(body["inputs"], names)
    raise Malformed("the body has none of MLflow's shapes", next=f"send {_SHAPES}")


def _inputs(given: object, names: Sequence[str]) -> list[Any]:
    if not isinstance(given, dict):
        items = _listed(given, "inputs")
        return [item if isinstance(item, dict) else _zipped(names, item, index) for index, item in enumerate(items)]
    if not any(isinstance(values, list) for values in given.values()):
        return [given]
    columns = {name: [_scalar(v) for v in _listed(values, name)] for name, values in given.items()}
    if len({len(values) for values in columns.values()}) != 1:
        raise Malformed("the columns of inputs differ in length", next="send one value per row in each")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _scalar(value: object) -> object:
    # A column of shape [n, 1] is one of n.
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _csv(body: bytes, inputs: Sequence[InputField], model: str) -> list[dict[str, object]]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Malformed(f"the body is not CSV: {error}", next="send UTF-8 with a header line") from error
    if not lines:
        return []
    kinds = {f.name: f.type for f in inputs}
    header = lines[0]
    rows = []
    for index, values in enumerate(line for line in lines[1:] if line):
        row = _zipped(header, values, index)
        rows.append({name: _typed(text, kinds.get(name, "BYTES"), name, index, model) for name, text in row.items()})
    return rows


def _typed(text: str, kind: str, name: str, index: int, model: str) -> object:
    if text == "" or (kind != "BYTES" and text in {"NA", "NaN", "nan", "null"}):
        return None
    try:
        if kind == "INT64":
            return int(text) if text.lstrip("+-").isdigit() else float(text)
        if kind == "FP64":
            return float(text)
        if kind == "BOOL":
            return _FALSE_TRUE[text.lower()]
    except (ValueError, KeyError):
        raise ContractError(
            f"{model} row {index}: {name} is {text[:80]!r}, expected {kind}",
            next="send the types that the model's contract lists", model=model, row=index, field=name,
        ) from None  # fmt: skip
    return text


def _zipped(names: Sequence[str], values: object, index: int) -> dict[str, Any]:
    if not isinstance(values, list) or len(values) != len(names):
        found = f"{len(values)} values" if isinstance(values, list) else type(values).__name__
        raise Malformed(f"row {index} has {found}, expected {len(names)} values", next="send one value per column")
    return dict(zip(names, values, strict=True))


def _listed(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(f"{name} is not a list", next=f"send {_SHAPES}")
    return value
