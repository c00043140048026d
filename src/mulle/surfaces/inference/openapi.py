"""OpenAPI of what is served, from the models' contracts, and a page of our own on which a model can be tried."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

import orjson

import mulle
from mulle.core.errors import MulleError
from mulle.core.records.bundle import Contract, InputField
from mulle.core.settings import Settings
from mulle.kernel.sample import read_sample
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.asgi import Reply
from mulle.surfaces.inference.call import Call
from mulle.surfaces.inference.paths import COMPONENTS, GENERAL, Document, operations, problems

__all__ = ["docs", "model", "server"]

DETAILED = 64
"""With at most this many models the server's document has each one's rows; in a larger fleet each has its own document."""

_BLANK = {"FP64": 0.0, "INT64": 0, "BOOL": False, "BYTES": "", "TIME": "2020-01-01T00:00:00Z"}
_TYPES: dict[str, Document] = {
    "FP64": {"type": ["number", "null"], "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308},
    "INT64": {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1},
    "BOOL": {"type": ["boolean", "null"]},
    "BYTES": {"type": ["string", "null"]},
    "TIME": {"type": ["string", "null"], "format": "date-time"},
}


async def server(runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /openapi.json``."""
    names = runtime.table.models()
    paths: Document = dict(GENERAL)
    schemas: Document = dict(COMPONENTS)
    for name in names if len(names) <= DETAILED else ():
        try:
            found, made = await _described(runtime, name, None)
        except MulleError:
            # What cannot be loaded cannot be described; /v1/routes says why.
            continue
        paths |= found
        schemas |= made
    return Reply(orjson.dumps(_document("Mulle: inference", paths, schemas)))


async def model(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v1/models/{name}[/versions/{v}]/openapi.json``."""
    paths, schemas = await _described(runtime, call.model, call.version)
    return Reply(orjson.dumps(_document(f"Mulle: {call.model}", paths, COMPONENTS | schemas)))


async def docs(_runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /docs``; the page asks for the documents itself, with the token that its user gives."""
    page, policy = _page()
    return Reply(page, type=b"text/html; charset=utf-8", headers=((b"content-security-policy", policy),))


async def _described(runtime: Runtime, name: str, version: int | None) -> tuple[Document, Document]:
    found, contract = await runtime.contract(name, version)
    address = Path(runtime.table.route_of(name, found).address)
    example = await asyncio.to_thread(_example, address, contract)
    row = f"Row-{name}".replace("/", ".")
    path = name if version is None else f"{name}/versions/{version}"
    schemas = {row: _row(contract, runtime.settings, example)}
    return operations(path, row, contract, example, runtime.settings), schemas


def _document(title: str, paths: Document, schemas: Document) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": mulle.__version__},
        "paths": paths,
        "components": {
            "schemas": schemas, "responses": problems(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "MULLE_TOKEN, when it is set"}},
        },
        "security": [{}, {"token": []}],
    }  # fmt: skip


def _row(contract: Contract, settings: Settings, example: Document) -> Document:
    codes = {f.column: list(f.categories) for f in contract.features if f.kind == "category" and f.categories}
    fields = {f.name: _field(f, contract, codes.get(f.name, []), settings) for f in contract.inputs}
    return {
        "type": "object", "properties": fields, "required": [f.name for f in contract.inputs if f.required],
        "additionalProperties": False, "examples": [example],
    }  # fmt: skip


def _field(field: InputField, contract: Contract, codes: list[str], settings: Settings) -> Document:
    made = dict(_TYPES[field.type])
    said = []
    if field.type == "BYTES":
        made["maxLength"] = settings.max_text
    if field.name in contract.key:
        said.append("Key: labels are told by it.")
    if field.name == contract.time:
        said.append("Time of the row; without an offset it is UTC, missing it is now.")
    if codes and field.type == "BYTES":
        # Not an enum: another code is answered too, and counted as unseen.
        made["examples"] = codes[:100]
        said.append(f"Codes known from training: {', '.join(codes[:20])}{' ...' if len(codes) > 20 else ''}.")
    return {**made, "description": " ".join(said)} if said else made


def _example(address: Path, contract: Contract) -> Document:
    try:
        rows = read_sample(orjson.loads((address / "sample.json").read_bytes())).rows
        first = rows.row(0, named=True) if rows.height else {}
    except (OSError, ValueError, MulleError):
        first = {}  # a bundle of the first layout has none
    known = {f.column: f.categories[0] for f in contract.features if f.kind == "category" and f.categories}
    return {f.name: _shown(first.get(f.name, known.get(f.name)), f) for f in contract.inputs}


def _shown(value: object, field: InputField) -> object:
    if value is None or value != value or (field.type != "BYTES" and isinstance(value, str)):
        return _BLANK[field.type]
    if isinstance(value, float):
        return float(f"{value:.6g}")  # an example to read and change
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


@cache
def _page() -> tuple[bytes, bytes]:
    folder = files("mulle.surfaces.inference") / "page"
    script = (folder / "docs.js").read_text(encoding="utf-8")
    style = (folder / "docs.css").read_text(encoding="utf-8")
    page = (folder / "docs.html").read_text(encoding="utf-8").replace("/*script*/", script).replace("/*style*/", style)
    policy = f"default-src 'none'; connect-src 'self'; script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    return page.encode(), policy.encode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
