"""Mulle's own endpoints: predict, labels, models and routes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from mulle.core.errors import Malformed
from mulle.core.records.base import to_json
from mulle.lifecycle.serving.runtime import Runtime
from mulle.lifecycle.serving.score import Answer
from mulle.surfaces.inference.asgi import Reply, parse_json
from mulle.surfaces.inference.call import Call

__all__ = ["labels", "model", "models", "predict", "reply_of", "routes", "rows_of"]

_TURN = 200
"""Models described in a row; then others get their turn."""


async def predict(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v1/models/{name}[/versions/{v}]/predict``."""
    rows = rows_of(call)
    explain = bool(call.query) and _explain(call)
    if explain:
        runtime.explaining.check(rows)
    answers = await call.predict(runtime, rows)
    if explain:
        await runtime.explain(call.model, rows, answers, call.started)
    return reply_of(call, answers)


def _explain(call: Call) -> bool:
    for part in call.query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name == b"explain":
            if value not in (b"true", b"false"):
                said = value.decode("latin-1")[:40]
                raise Malformed(f"explain is '{said}'", next="write explain=true, or leave it out", model=call.model)
            return value == b"true"
    return False


def rows_of(call: Call) -> list[Any]:
    """Read the rows that a request asks predictions for.

    Raises
    ------
    WrongType, Malformed
    """
    body = parse_json(call.headers, call.body)
    rows = body.get("rows") if type(body) is dict else None
    if type(rows) is not list:
        raise Malformed("the body has no list 'rows'", next='send {"rows": [{...}]}', model=call.model)
    return rows


def reply_of(call: Call, answers: list[Answer]) -> Reply:
    """Write predictions as `predict` answers them."""
    return Reply(orjson.dumps({"model": call.model, "version": call.answered, "predictions": answers}))


async def labels(runtime: Runtime, call: Call) -> Reply:
    """Answer ``POST /v1/labels``."""
    body = parse_json(call.headers, call.body)
    return Reply(orjson.dumps(runtime.label(body)), 202)


async def models(runtime: Runtime, _call: Call) -> Reply:
    """Answer ``GET /v1/models``: what is deployed here."""
    items = [_item(runtime, name) for name in runtime.table.models()]
    return Reply(orjson.dumps({"items": items, "next": None}))


async def model(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v1/models/{name}``: its routes and what a request carries."""
    version, contract = await runtime.contract(call.model, call.version)
    inputs = to_json(contract.inputs)
    return Reply(
        orjson.dumps({**_item(runtime, call.model), "version": version, "task": contract.task, "ready": True, "inputs": inputs})
    )


async def routes(runtime: Runtime, call: Call) -> Reply:
    """Answer ``GET /v1/routes``: the generation in force, and (not with ``?brief=true``) the versions of each model."""
    found = {} if b"brief=true" in call.query.split(b"&") else await _described(runtime)
    problem = runtime.table.problems.get("")
    document = {
        "generation": runtime.generation(), "models": found, "problem": problem.problem() if problem else None,
    }  # fmt: skip
    return Reply(orjson.dumps(document, default=str))


async def _described(runtime: Runtime) -> dict[str, object]:
    found: dict[str, object] = {}
    for number, name in enumerate(runtime.table.models()):
        found[name] = runtime.routes(name)
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    return found


def _item(runtime: Runtime, name: str) -> dict[str, object]:
    found = runtime.routes(name)
    force = found["in_force"]
    champion = force[0]["version"] if isinstance(force, list) and force else None
    return {"id": name, **found, "version": champion}
