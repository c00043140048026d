"""The Open Inference Protocol V2 (KServe, Triton, MLServer) over HTTP: tensors in, tensors out, as JSON or binary.

Protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

import mulle
from mulle.core.errors import Malformed, Unavailable
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference import repository
from mulle.surfaces.inference.asgi import Reply, parse_json
from mulle.surfaces.inference.call import Call
from mulle.surfaces.inference.tensors import (
    DATATYPES,
    Tensor,
    check_shape,
    inputs_of,
    outputs_of,
    pack,
    pick,
    rows_of,
    tensors_of,
    unpack,
)

__all__ = ["EXTENSIONS", "index", "infer", "live", "load", "model", "model_ready", "ready", "server", "unload"]

EXTENSIONS = ("binary_tensor_data", "model_repository")

_SPLIT = b"inference-header-content-length"
_NOT_SPOKEN = ("classification", "shared_memory_region")


async def server(_runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v2``."""
    return Reply(orjson.dumps({"name": "mulle", "version": mulle.__version__, "extensions": EXTENSIONS}))


async def live(_runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v2/health/live``: the process runs."""
    return Reply(b'{"live":true}')


async def ready(runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v2/health/ready``, ``/ping`` and ``/health``: requests may come."""
    if not runtime.ready():
        raise Unavailable("the server is not ready", next="wait; it is starting or ending")
    return Reply(b'{"ready":true}')


async def model(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v2/models/{name}[/versions/{v}]``."""
    version, contract = await runtime.contract(call.model, call.version)
    document = {
        "name": call.model, "version": str(version), "versions": [str(v) for v in runtime.table.versions(call.model)],
        "platform": f"mulle_{contract.compiled}", "inputs": _described(inputs_of(contract)),
        "outputs": _described(outputs_of(contract)), "parameters": {"classes": list(contract.classes)},
    }  # fmt: skip
    return Reply(orjson.dumps(document))


async def model_ready(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v2/models/{name}[/versions/{v}]/ready``."""
    version, _ = await runtime.contract(call.model, call.version)
    return Reply(orjson.dumps({"name": call.model, "version": str(version), "ready": True}))


async def infer(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v2/models/{name}[/versions/{v}]/infer``."""
    body, binary = _parts(call)
    asked = _asked(body)
    answers = await call.predict(runtime, rows_of(_inputs(body, binary)))
    outputs = pick(tensors_of(answers), asked)
    document = {
        "model_name": call.model, "model_version": str(call.answered), "id": body.get("id") or call.request,
        "parameters": {"prediction_ids": [answer["id"] for answer in answers]},
    }  # fmt: skip
    every = _parameters(body, "the request").get("binary_data_output") is True
    return _reply(document, outputs, {t.name for t in outputs if asked.get(t.name, every)})


async def index(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v2/repository/index``."""
    ready = _object(call).get("ready", False)
    if type(ready) is not bool:
        raise Malformed("ready is neither true nor false", next="leave it out to see every model", field="ready")
    return Reply(orjson.dumps(repository.index(runtime, ready=ready)))


async def load(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v2/repository/models/{name}/load``."""
    given = _parameters(_object(call), "the request")
    return Reply(orjson.dumps(await repository.load(runtime, call.model, given)))


async def unload(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v2/repository/models/{name}/unload``."""
    _object(call)
    return Reply(orjson.dumps(await repository.unload(runtime, call.model)))


def _described(tensors: Sequence[tuple[str, str, list[int]]]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in tensors]


def _parts(call: Call) -> tuple[dict[str, Any], bytes]:
    told = call.headers.get(_SPLIT)
    if told is None:
        return _checked(parse_json(call.headers, call.body)), b""
    # As text of up to ten digits: a longer one would be turned into a number at great cost.
    if not told.isdigit() or len(told) > 10 or int(told) > len(call.body):
        raise Malformed(
            f"Inference-Header-Content-Length is {told.decode('latin-1')[:40]!r}, the body has {len(call.body)} bytes",
            next="send the length of the JSON that the binary tensors follow",
        )
    cut = int(told)
    return _checked(parse_json({}, call.body[:cut])), call.body[cut:]


def _object(call: Call) -> dict[str, Any]:
    return _checked(parse_json(call.headers, call.body)) if call.body else {}


def _checked(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Malformed("the body is not an object", next="see the protocol's request")
    if not isinstance(body.get("id", ""), str):
        raise Malformed("id is not text", next="send text, or leave it out", field="id")
    return body


def _parameters(owner: dict[str, Any], whose: str) -> dict[str, Any]:
    found = owner.get("parameters", {})
    if not isinstance(found, dict):
        raise Malformed(f"the parameters of {whose} are not an object", next="send an object, or leave them out")
    for name in _NOT_SPOKEN:
        if name in found:
            raise Malformed(f"{name} is not spoken here", next=f"leave the parameter out; {whose} has it", field=name)
    return found


def _inputs(body: dict[str, Any], binary: bytes) -> list[Tensor]:
    given = body.get("inputs")
    if not isinstance(given, list) or not given:
        raise Malformed("the body has no list 'inputs' of tensors", next="send one tensor per raw column")
    tensors, at = [], 0
    for item in given:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise Malformed("a tensor is an object with name, shape, datatype and data")
        size = _parameters(item, item["name"][:80]).get("binary_data_size")
        if size is None:
            tensors.append(_told(item))
        else:
            tensors.append(_binary(item, size, binary, at))
            at += size
    if at != len(binary):
        raise Malformed(f"{len(binary)} bytes follow the JSON, the tensors claim {at}", next="let binary_data_size say each size")
    return tensors


def _binary(item: dict[str, Any], size: object, binary: bytes, at: int) -> Tensor:
    name, datatype = item["name"][:80], item.get("datatype")
    if type(size) is not int or not 0 <= size <= len(binary) - at or "data" in item:
        raise Malformed(
            f"tensor {name} claims {str(size)[:40]} of {len(binary) - at} bytes that follow",
            next="give binary_data_size in bytes, and no data", field=name,
        )  # fmt: skip
    values = unpack(name, str(datatype), binary[at : at + size])
    return Tensor(item["name"], str(datatype), check_shape(name, item.get("shape"), len(values)), values)


def _told(item: dict[str, Any]) -> Tensor:
    name, datatype, data = item["name"], item.get("datatype"), item.get("data")
    if not isinstance(data, list):
        raise Malformed(f"tensor {name[:80]} has no list 'data'", next="send it, or binary_data_size", field=name[:80])
    if datatype not in DATATYPES:
        raise Malformed(
            f"tensor {name[:80]} has datatype {str(datatype)[:40]}", next=f"use {', '.join(DATATYPES)}", field=name[:80]
        )
    flat = [v for one in data for v in (one if isinstance(one, list) else (one,))]
    return Tensor(name, datatype, check_shape(name[:80], item.get("shape"), len(flat)), flat)


def _asked(body: dict[str, Any]) -> dict[str, bool]:
    # By output: whether it is wanted in binary.
    given = body.get("outputs") or []
    if not isinstance(given, list) or not all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in given):
        raise Malformed("outputs is not a list of objects with a name", next="leave it out to get every output", field="outputs")
    every = _parameters(body, "the request").get("binary_data_output") is True
    return {o["name"]: _parameters(o, o["name"][:80]).get("binary_data", every) is True for o in given}


def _reply(document: dict[str, Any], outputs: Sequence[Tensor], binary: set[str]) -> Reply:
    told: list[dict[str, Any]] = []
    parts = [b""]
    for tensor in outputs:
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if tensor.name in binary:
            parts.append(pack(tensor))
            told.append({**entry, "parameters": {"binary_data_size": len(parts[-1])}})
        else:
            told.append({**entry, "data": tensor.values})
    head = orjson.dumps({**document, "outputs": told})
    if len(parts) == 1:
        return Reply(head)
    parts[0] = head
    return Reply(b"".join(parts), 200, b"application/octet-stream", ((b"inference-header-content-length", b"%d" % len(head)),))
