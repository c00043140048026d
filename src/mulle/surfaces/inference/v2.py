"""The Open Inference Protocol V2 (KServe, Triton, MLServer) over JSON: tensors in, tensors out.

Protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Any

import orjson

import mulle
from mulle.core.errors import Malformed, Unavailable
from mulle.core.records.bundle import Contract
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.asgi import Reply, parse_json
from mulle.surfaces.inference.call import Call

__all__ = ["infer", "live", "model", "model_ready", "ready", "server"]


async def server(_runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v2``."""
    return Reply(orjson.dumps({"name": "mulle", "version": mulle.__version__, "extensions": []}))


async def live(_runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v2/health/live``: the process runs."""
    return Reply(b'{"live":true}')


async def ready(runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v2/health/ready`` and ``/ping``: requests may come."""
    if not runtime.ready():
        raise Unavailable("the server is not ready", next="wait; it is starting or ending")
    return Reply(b'{"ready":true}')


async def model(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v2/models/{name}[/versions/{v}]``."""
    version, contract = await runtime.contract(call.model, call.version)
    outputs = [{"name": "value", "datatype": _answer_type(contract), "shape": [-1, 1]}]
    if contract.classes:
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(contract.classes)]})
    inputs = [{"name": f.name, "datatype": "BYTES" if f.type == "TIME" else f.type, "shape": [-1, 1]} for f in contract.inputs]
    versions = [str(v) for v in runtime.table.versions(call.model)]
    document = {
        "name": call.model, "version": str(version), "versions": versions, "platform": f"mulle_{contract.compiled}",
        "inputs": inputs, "outputs": outputs, "parameters": {"classes": list(contract.classes)},
    }  # fmt: skip
    return Reply(orjson.dumps(document))


async def model_ready(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v2/models/{name}[/versions/{v}]/ready``."""
    version, _ = await runtime.contract(call.model, call.version)
    return Reply(orjson.dumps({"name": call.model, "version": str(version), "ready": True}))


async def infer(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v2/models/{name}[/versions/{v}]/infer``."""
    if b"inference-header-content-length" in call.headers:
        raise Malformed("binary tensors are not spoken here", next="send the data as JSON")
    body = parse_json(call.headers, call.body)
    answers = await call.predict(runtime, _rows(body))
    values = [answer["value"] for answer in answers]
    outputs: list[dict[str, Any]] = [
        {
            "name": "value",
            "datatype": "BYTES" if isinstance(values[0], str) else "FP64",
            "shape": [len(values), 1],
            "data": values,
        }
    ]
    first = answers[0].get("probabilities")
    if first is not None:
        chances = [p for answer in answers for p in answer["probabilities"].values()]
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [len(values), len(first)], "data": chances})
    asked = body.get("id") if isinstance(body, dict) else None
    document = {
        "model_name": call.model, "model_version": str(call.answered), "id": asked or call.request, "outputs": outputs,
        "parameters": {"prediction_ids": [answer["id"] for answer in answers]},
    }  # fmt: skip
    return Reply(orjson.dumps(document))


def _rows(body: object) -> list[dict[str, Any]]:
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise Malformed("the body has no list 'inputs' of tensors", next="send one tensor per raw column")
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise Malformed("a tensor is an object with name, shape, datatype and data")
        columns[tensor["name"]] = _column(tensor)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise Malformed(f"the tensors have different numbers of rows: {sorted(lengths)}", next="send one value per row in each")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _column(tensor: dict[str, Any]) -> list[Any]:
    name, shape, data = tensor["name"], tensor.get("shape"), tensor.get("data")
    if not isinstance(data, list):
        raise Malformed(f"tensor {name} has no list 'data'", next="send the data as JSON", field=name)
    flat = [v for item in data for v in (item if isinstance(item, list) else [item])]
    whole = isinstance(shape, list) and all(type(n) is int for n in shape)
    if not whole or shape not in ([len(flat)], [len(flat), 1]):
        raise Malformed(f"tensor {name} has shape {shape} and {len(flat)} values", next="use [n] or [n, 1]", field=name)
    if tensor.get("datatype") in {"FP16", "FP32", "FP64"}:
        # Clients write whole numbers of a float tensor without a point.
        return [float(v) if type(v) is int and abs(v) < 2**1000 else v for v in flat]
    return flat


def _answer_type(contract: Contract) -> str:
    return "FP64" if contract.task == "regression" else "BYTES"
