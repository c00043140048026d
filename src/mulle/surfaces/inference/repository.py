"""The repository part of the Open Inference Protocol, where routes decide what answers: loading warms, unloading lets go.

Extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulle.core.errors import NotFound, UsageError
from mulle.lifecycle.serving.runtime import Runtime

__all__ = ["index", "load", "unload"]


def index(runtime: Runtime, *, ready: bool) -> list[dict[str, str]]:
    """List the routed models with their versions, whether in memory or not.

    Parameters
    ----------
    ready : bool
        Only those in memory.
    """
    items = []
    for name in runtime.table.models():
        described = runtime.routes(name)
        loaded, force, problem = set(runtime.table.versions(name)), described["in_force"], described["problem"]
        why = str(problem["detail"]) if isinstance(problem, dict) else "not in memory; loaded when it is asked for"
        items += [_item(name, str(version), "") for version in sorted(loaded)]
        if not ready:
            named = {part["version"] for part in force} if isinstance(force, list) else set()
            items += [_item(name, str(version), why) for version in sorted(named - loaded)]
            # A fleet's model that nobody asked for yet: which version it will be, its routes say then.
            items += [] if loaded or named else [_item(name, "", why)]
    return items


async def load(runtime: Runtime, model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a model's versions in force into memory; which they are is the routes' matter.

    Raises
    ------
    UsageError
        When the request brings a model or a configuration of its own.
    NotFound, Unavailable
    """
    if parameters:
        raise UsageError(
            f"a model is loaded from its bundle alone, not with {', '.join(sorted(parameters))[:80]}",
            next="deploy a version: `mulle deploy`", model=model,
        )  # fmt: skip
    await runtime.contract(model)
    return {"name": model, "loaded": runtime.table.versions(model)}


async def unload(runtime: Runtime, model: str) -> dict[str, Any]:
    """Let a model's versions go from memory, but those in force.

    Raises
    ------
    NotFound
    """
    if model not in runtime.table:
        raise NotFound(f"no model '{model}' is deployed here", next="POST /v2/repository/index lists what is", model=model)
    gone = await runtime.table.let_go(model)
    return {"name": model, "unloaded": gone, "kept": runtime.table.versions(model)}


def _item(name: str, version: str, why: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": "UNAVAILABLE" if why else "READY", "reason": why}
