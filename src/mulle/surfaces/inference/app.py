"""The inference plane's ASGI application: finds the handler by path, and turns whatever happens into a reply.

Raw ASGI, because a framework's own cost would be more than that of the model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable

from mulle.core.clock import duration
from mulle.core.errors import MulleError, NotFound
from mulle.core.settings import Settings
from mulle.lifecycle.serving.ids import fresh_ids
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference import invocations, native, v2
from mulle.surfaces.inference.asgi import Receive, Reply, Scope, Send, read_body, respond
from mulle.surfaces.inference.call import Call
from mulle.surfaces.inference.door import Door
from mulle.surfaces.inference.metrics import Exposition
from mulle.surfaces.inference.problem import NotAllowed, problem

__all__ = ["Inference", "create_app"]

Handler = Callable[[Runtime, Call], Awaitable[Reply]]
Found = tuple[str, Handler, str, int | None]

_OPEN = {"/v2/health/live", "/v2/health/ready", "/ping"}


def create_app(runtime: Runtime, settings: Settings, *, token: str | None = None) -> Inference:
    """Make the ASGI application over a runtime.

    Parameters
    ----------
    runtime : Runtime
        Started and stopped by the application's lifespan.
    settings : Settings
        Resolved; limits and the bound host.
    token : str, optional
        Asked of every request but health checks, when not empty; ``MULLE_TOKEN`` of the environment by default.
    """
    return Inference(runtime, settings, os.environ.get("MULLE_TOKEN", "") if token is None else token)


class Inference:
    """The application; callable as ASGI asks."""

    def __init__(self, runtime: Runtime, settings: Settings, token: str) -> None:
        self.runtime = runtime
        self._door = Door(settings.host, token)
        self._most, self._seconds = settings.max_body, duration(settings.deadline).total_seconds()
        self._paths: dict[tuple[str, str], Found] = {}
        exposition = Exposition(runtime)

        async def metrics(_runtime: Runtime, _call: Call) -> Reply:
            return exposition.reply()

        self._fixed: dict[str, dict[str, Handler]] = {
            "/v1/models": {"GET": native.models},
            "/v1/routes": {"GET": native.routes},
            "/v1/labels": {"POST": native.labels},
            "/v2": {"GET": v2.server},
            "/v2/health/live": {"GET": v2.live},
            "/v2/health/ready": {"GET": v2.ready},
            "/ping": {"GET": v2.ready},
            "/metrics": {"GET": metrics},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        started, request = time.perf_counter(), fresh_ids(time.time_ns() // 1000, 1)[0]
        path, model, call = scope["path"], "", None
        try:
            headers = dict(scope["headers"])
            method = scope["method"]
            found = self._paths.get((path, method)) or self._find(path, method)
            _, handler, model, version = found
            if path not in _OPEN:
                self._door.check(headers)
            body = await read_body(headers, receive, most=self._most, seconds=self._seconds) if method == "POST" else b""
            call = Call(request, headers, body, scope["query_string"], model, version, started)
            reply = await handler(self.runtime, call)
        except Exception as error:
            reply = problem(error, request, path=path)
            self._refused(error, model, reply.status, started)
        else:
            if call.route:
                self.runtime.tally.request(model, call.answered, call.route, reply.status, time.perf_counter() - started)
        await respond(send, reply)

    def _refused(self, error: Exception, model: str, status: int, started: float) -> None:
        # A name that nobody deployed must not become a label: a scan would fill the memory.
        known = model if model in self.runtime.table else ""
        version = str(error.facts.get("version", "")) if isinstance(error, MulleError) else ""
        self.runtime.tally.request(known, version, "", status, time.perf_counter() - started)

    def _find(self, path: str, method: str) -> Found:
        fixed = self._fixed.get(path.rstrip("/") or "/")
        if fixed is not None:
            return "", _allowed(fixed, method, path), "", None
        parts = path.strip("/").split("/")
        model, version, action = _model_path(parts)
        handlers = _ACTIONS.get((parts[0], action))
        if not model or handlers is None or version == -1:
            raise NotFound(f"nothing is served at {path[:200]}", next="see docs/reference/http.md")
        found: Found = (path, _allowed(handlers, method, path), model, version)
        if model in self.runtime.table and len(self._paths) < 50_000:
            self._paths[(path, method)] = found
        return found

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.runtime.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.runtime.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


_ACTIONS: dict[tuple[str, str], dict[str, Handler]] = {
    ("v1", "predict"): {"POST": native.predict},
    ("v1", "invocations"): {"POST": invocations.invoke},
    ("v1", ""): {"GET": native.model},
    ("v2", ""): {"GET": v2.model},
    ("v2", "ready"): {"GET": v2.model_ready},
    ("v2", "infer"): {"POST": v2.infer},
}


def _model_path(parts: list[str]) -> tuple[str, int | None, str]:
    # /v1/models/NAME[/versions/V][/ACTION]; a version that is no number is -1
    if len(parts) < 3 or parts[1] != "models":
        return "", None, ""
    rest, version = parts[3:], None
    if len(rest) >= 2 and rest[0] == "versions":
        version = int(rest[1]) if rest[1].isascii() and rest[1].isdigit() and len(rest[1]) < 10 else -1
        rest = rest[2:]
    return (parts[2], version, "/".join(rest)) if len(rest) < 2 else ("", None, "")


def _allowed(handlers: dict[str, Handler], method: str, path: str) -> Handler:
    handler = handlers.get("GET" if method == "HEAD" else method)
    if handler is None:
        allow = ", ".join(handlers)
        raise NotAllowed(f"{method} is not answered at {path[:200]}", next=f"use {allow}", allow=allow)
    return handler
