"""The paths of the inference plane as OpenAPI has them: those of one model, and those of the server."""

from __future__ import annotations

from typing import Any

from mulle.core.errors import ContractError, Deadline, Malformed, NotFound, Overloaded, TooLarge, Unavailable, WrongType
from mulle.core.records.bundle import Contract
from mulle.core.settings import Settings
from mulle.surfaces.door import Forbidden, Unauthorized
from mulle.surfaces.inference.tensors import DATATYPES, inputs_of

__all__ = ["COMPONENTS", "GENERAL", "Document", "operations", "problems"]

Document = dict[str, Any]

_PROBLEM: Document = {
    "type": "object",
    "description": "What went wrong, as RFC 9457 has it.",
    "required": ["type", "title", "status", "detail", "next", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
        "next": {"type": "string"}, "retryable": {"type": "boolean"}, "request_id": {"type": "string"},
        "row": {"type": "integer"}, "field": {"type": "string"},
    },
}  # fmt: skip
_PREDICTION: Document = {
    "type": "object",
    "required": ["id", "value", "version", "route", "freshness"],
    "properties": {
        "id": {"type": "string"}, "value": {"type": ["number", "string", "null"]}, "version": {"type": "integer"},
        "route": {"type": "string"}, "freshness": {"type": "object", "additionalProperties": {"type": "string"}},
        "probabilities": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
    },
}  # fmt: skip
_PREDICTIONS: Document = {
    "type": "object",
    "required": ["model", "version", "predictions"],
    "properties": {
        "model": {"type": "string"}, "version": {"type": "integer"},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
    },
}  # fmt: skip
_TENSOR: Document = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"}, "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"enum": list(DATATYPES)}, "data": {"type": "array"}, "parameters": {"type": "object"},
    },
}  # fmt: skip
_INFERENCE: Document = {
    "type": "object",
    "required": ["model_name", "model_version", "id", "outputs"],
    "properties": {
        "model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"},
        "parameters": {"type": "object"},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
    },
}  # fmt: skip
_LABEL: Document = {
    "type": "object",
    "required": ["value"],
    "description": "By the prediction's id, or by the row's key (with model and, where rows have one, time).",
    "properties": {
        "prediction_id": {"type": "string"}, "key": {"type": "object"}, "model": {"type": "string"},
        "time": {"type": ["string", "null"], "format": "date-time"}, "value": {"type": ["number", "string", "boolean", "null"]},
        "reason": {"type": "string"}, "known_at": {"type": ["string", "null"], "format": "date-time"},
    },
}  # fmt: skip

COMPONENTS: Document = {
    "Problem": _PROBLEM, "Prediction": _PREDICTION, "Predictions": _PREDICTIONS, "Tensor": _TENSOR, "Inference": _INFERENCE,
    "Label": _LABEL,
}  # fmt: skip

_REFUSALS = (Malformed, Unauthorized, Forbidden, NotFound, TooLarge, WrongType, ContractError, Overloaded, Unavailable, Deadline)


def problems() -> Document:
    """Give the responses of a request that is refused, by name."""
    body = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {kind.slug: {"description": kind.title, "content": body} for kind in _REFUSALS}


def operations(path: str, row: str, contract: Contract, example: Document, settings: Settings) -> Document:
    """Describe the paths of one model.

    Parameters
    ----------
    path : str
        Its name, with ``/versions/V`` for one version.
    row : str
        Name of the schema of its rows.
    example : dict
        A row.
    """
    rows = {
        "type": "array", "minItems": 1, "maxItems": settings.most_rows, "items": {"$ref": f"#/components/schemas/{row}"},
    }  # fmt: skip
    tensors = [
        {"name": name, "datatype": datatype, "shape": [1, 1], "data": [example[name]]}
        for name, datatype, _ in inputs_of(contract)
    ]
    return {
        f"/v1/models/{path}/predict": _post("Answer rows.", _one("rows", rows), {"rows": [example]}, _ref("Predictions")),
        f"/v1/models/{path}/invocations": _post(
            "Answer rows in MLflow's shapes.", _one("dataframe_records", rows), {"dataframe_records": [example]},
            _one("predictions", {"type": "array"}),
        ),
        f"/v2/models/{path}/infer": _post(
            "Answer tensors, one a column (Open Inference Protocol V2).",
            _one("inputs", {"type": "array", "minItems": 1, "items": _ref("Tensor")}), {"inputs": tensors}, _ref("Inference"),
        ),
        f"/v1/models/{path}": _get("What the model is, and what its rows carry."),
        f"/v2/models/{path}": _get("The model's inputs and outputs as tensors."),
        f"/v2/models/{path}/ready": _get("Whether the model answers."),
    }  # fmt: skip


def _one(name: str, schema: Document) -> Document:
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _responses(schema: Document, status: int = 200) -> Document:
    found: Document = {str(status): {"description": "answered", "content": {"application/json": {"schema": schema}}}}
    return found | {str(kind.status): {"$ref": f"#/components/responses/{kind.slug}"} for kind in _REFUSALS}


def _post(summary: str, schema: Document, example: object, answer: Document, status: int = 200) -> Document:
    body = {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": _responses(answer, status)}}


def _get(summary: str, schema: Document | None = None) -> Document:
    return {"get": {"summary": summary, "responses": _responses(schema or {"type": "object"})}}


_RECEIPT: Document = {
    "type": "object",
    "required": ["accepted", "duplicates", "unknown"],
    "properties": {"accepted": {"type": "integer"}, "duplicates": {"type": "integer"}, "unknown": {"type": "array"}},
}
_LABELS = {
    "type": "object",
    "required": ["labels"],
    "properties": {"model": {"type": "string"}, "labels": {"type": "array", "minItems": 1, "items": _ref("Label")}},
}

GENERAL: Document = {
    "/v1/models": _get("What is served."),
    "/v1/routes": _get("The routes in force, and which versions are loaded."),
    "/v1/labels": _post(
        "Tell true outcomes.", _LABELS, {"labels": [{"prediction_id": "01J0000000000000000000000", "value": 1}]}, _RECEIPT, 202
    ),
    "/v2": _get("The server and what it speaks."),
    "/v2/health/live": _get("Whether the process runs."),
    "/v2/health/ready": _get("Whether requests may come."),
    "/v2/repository/index": {"post": {
        "summary": "The models and their versions, in memory or not.",
        "requestBody": {"content": {"application/json": {"schema": {
            "type": "object", "properties": {"ready": {"type": "boolean"}},
        }}}},
        "responses": _responses({"type": "array", "items": {"type": "object"}}),
    }},
}  # fmt: skip
