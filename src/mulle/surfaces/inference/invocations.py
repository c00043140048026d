"""MLflow's scoring protocol: every shape of its request becomes rows, and its deployment clients find the models.

Shapes: https://mlflow.org/docs/latest/deployment/deploy-model-locally (dataframe_split, dataframe_records,
instances, inputs, CSV). ``params`` are taken and not used: a model's answer depends on its rows alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import orjson

import mulle
from mulle.core.errors import ContractError, Malformed, NotFound, WrongType
from mulle.core.records.bundle import InputField
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.asgi import Reply, check_charset, parse_json
from mulle.surfaces.inference.call import Call

__all__ = ["endpoint", "endpoints", "invoke", "invoke_only", "version"]

_KEYS = ("dataframe_records", "dataframe_split", "instances", "inputs")
_SHAPES = "dataframe_records, dataframe_split, instances or inputs"
_FALSE_TRUE = {"false": False, "true": True, "0": False, "1": True}


async def invoke(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v1/models/{name}[/versions/{v}]/invocations`` and ``POST /endpoints/{name}/invocations``.

    KServe's first protocol, ``POST /v1/models/{name}:predict``, has the shapes ``instances`` and ``inputs`` of it.
    """
    contract = await call.contract(runtime)
    kind, _, rest = call.headers.get(b"content-type", b"").lower().partition(b";")
    if kind.strip() == b"text/csv":
        _check_csv(rest)
        rows = _csv(call.body, contract.inputs, call.model)
    else:
        rows = _rows(parse_json(call.headers, call.body), [f.name for f in contract.inputs])
    answers = await call.predict(runtime, rows)
    return Reply(orjson.dumps({"predictions": [answer["value"] for answer in answers]}))


async def invoke_only(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /invocations``, where MLflow's own server has its one model: the only one that is deployed here.

    Raises
    ------
    NotFound
        When there is none, or more than one.
    """
    names = runtime.table.models()
    if len(names) != 1:
        raise NotFound(f"{len(names)} models are deployed here, so one must be named", next="POST /v1/models/{name}/invocations")
    call.model = names[0]
    return await invoke(runtime, call)


async def version(_runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /version``: that of the MLflow whose protocol this is, as its clients expect."""
    try:
        found = installed("mlflow")
    except PackageNotFoundError:
        found = mulle.__version__
    return Reply(found.encode())


async def endpoints(runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /api/2.0/endpoints``: the models, as MLflow's deployment client lists them."""
    return Reply(orjson.dumps({"endpoints": [_endpoint(name) for name in runtime.table.models()]}))


async def endpoint(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /api/2.0/endpoints/{name}``."""
    if call.model not in runtime.table:
        raise NotFound(f"no model '{call.model}' is deployed here", next="GET /v1/models lists what is", model=call.model)
    return Reply(orjson.dumps(_endpoint(call.model)))


def _endpoint(name: str) -> dict[str, object]:
    return {
        "name": name, "endpoint_type": "mulle/v1/predict", "model": {"name": name, "provider": "mulle"},
        "endpoint_url": f"/endpoints/{name}/invocations", "limit": None,
    }  # fmt: skip


def _rows(body: object, names: Sequence[str]) -> list[Any]:
    if not isinstance(body, dict):
        raise Malformed("the body is not an object", next=f"send one with {_SHAPES}")
    found = [key for key in _KEYS if key in body]
    if len(found) != 1:
        said = f"{' and '.join(found)} at once" if found else "none of MLflow's shapes"
        raise Malformed(f"the body has {said}", next=f"send one of {_SHAPES}")
    given = body[found[0]]
    if found[0] == "dataframe_records":
        return _listed(given, "dataframe_records")
    if found[0] == "dataframe_split":
        return _split(given, names)
    if found[0] == "instances":
        return _positional(_listed(given, "instances"), names)
    return _inputs(given, names)


def _split(split: object, names: Sequence[str]) -> list[Any]:
    if not isinstance(split, dict) or not split.keys() <= {"columns", "data", "index"}:
        raise Malformed("dataframe_split is not an object of columns, data and index", next="send columns and data")
    columns = [str(name) for name in _listed(split.get("columns", list(names)), "columns")]
    data = _listed(split.get("data"), "data")
    index = split.get("index")
    if index is not None and len(_listed(index, "index")) != len(data):
        raise Malformed(f"the index has {len(index)} rows, the data {len(data)}", next="leave the index out")
    return [_zipped(columns, values, row) for row, values in enumerate(data)]


def _positional(items: list[Any], names: Sequence[str]) -> list[Any]:
    # A model with one column may be asked with bare values.
    bare = len(names) == 1
    return [
        item if isinstance(item, dict) else _zipped(names, [item] if bare and not isinstance(item, list) else item, row)
        for row, item in enumerate(items)
    ]


def _inputs(given: object, names: Sequence[str]) -> list[Any]:
    if not isinstance(given, dict):
        return _positional(_listed(given, "inputs"), names)
    if not any(isinstance(values, list) for values in given.values()):
        return [given]
    columns = {name: [_scalar(v) for v in _listed(values, name)] for name, values in given.items()}
    if len({len(values) for values in columns.values()}) != 1:
        raise Malformed("the columns of inputs differ in length", next="send one value per row in each")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _scalar(value: object) -> object:
    # A column of shape [n, 1] is one of n.
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _check_csv(parameters: bytes) -> None:
    unknown = {part.partition(b"=")[0].strip() for part in parameters.split(b";")} - {b"charset", b""}
    if unknown:
        shown = b", ".join(sorted(unknown)).decode("latin-1")[:80]
        raise WrongType(f"content type text/csv with {shown} is not spoken here", next="send text/csv; charset=utf-8")
    check_charset(parameters)


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
        # A column without a name is the index that pandas writes when nobody told it not to.
        rows.append({n: _typed(text, kinds.get(n, "BYTES"), n, index, model) for n, text in row.items() if n})
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
