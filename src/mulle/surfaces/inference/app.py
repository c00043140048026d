"""The inference plane's ASGI application: finds the handler by path, and turns whatever happens into a reply.

Raw ASGI, because a framework's own cost would be more than that of the model.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from importlib.util import find_spec

from mulle.core.clock import duration
from mulle.core.errors import NotFound, UsageError
from mulle.core.settings import Settings
from mulle.kernel import tracing
from mulle.kernel.logs import keep_log
from mulle.lifecycle.serving.ids import fresh_ids
from mulle.lifecycle.serving.runtime import Runtime
from mulle.lifecycle.serving.score import Answer
from mulle.surfaces.inference import invocations, native, openapi, v2
from mulle.surfaces.inference.asgi import Receive, Reply, Scope, Send, inflate, read_body, respond
from mulle.surfaces.inference.call import Call, count_refused
from mulle.surfaces.inference.door import Door
from mulle.surfaces.inference.incidents import named_by
from mulle.surfaces.inference.metrics import Exposition
from mulle.surfaces.inference.problem import NotAllowed, problem

__all__ = ["Inference", "create_app"]

Handler = Callable[[Runtime, Call], Awaitable[Reply]]
Found = tuple[str, Handler, str, int | None]

_OPEN = {"/v2/health/live", "/v2/health/ready", "/ping", "/health", "/version", "/docs"}


def create_app(runtime: Runtime, settings: Settings, *, token: str | None = None) -> Inference:
    """Make the ASGI application over a runtime.

    Parameters
    ----------
    runtime : Runtime
        Started and stopped by the application's lifespan.
    settings : Settings
        Resolved; limits and the bound host.
    token : str, optional
        Asked of every request but health checks and the empty page of ``/docs``, when not empty; ``MULLE_TOKEN`` of the
        environment by default.

    Raises
    ------
    UsageError
        When gRPC is asked for and not installed.
    """
    if settings.grpc_port and find_spec("grpc") is None:
        raise UsageError("grpc_port is set and gRPC is not installed", next="pip install 'mulle[grpc]', or set grpc_port to 0")
    return Inference(runtime, settings, os.environ.get("MULLE_TOKEN", "") if token is None else token)


class Inference:
    """The application; callable as ASGI asks."""

    def __init__(self, runtime: Runtime, settings: Settings, token: str) -> None:
        self.runtime, self._settings = runtime, settings
        self._door = Door(settings.host, token)
        self._most, self._seconds = settings.max_body, duration(settings.deadline).total_seconds()
        self._paths: dict[tuple[str, str], Found] = {}
        self._end: Callable[[], Awaitable[None]] | None = None
        self._traces = None if runtime.traces is None else tracing.RequestTraces(runtime.traces)
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
            "/v2/repository/index": {"POST": v2.index},
            "/ping": {"GET": v2.ready},
            "/health": {"GET": v2.ready},
            "/version": {"GET": invocations.version},
            "/invocations": {"POST": invocations.invoke_only},
            "/api/2.0/endpoints": {"GET": invocations.endpoints},
            "/metrics": {"GET": metrics},
            "/openapi.json": {"GET": openapi.server},
            "/docs": {"GET": openapi.docs},
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
            if b"x-request-id" in headers and (given := named_by(headers)):
                # Ours stays in it: a client may send the same id twice, and rows are paired by it.
                request = f"{given}~{request}"
            if self._traces is not None:
                self._traces.begin(request, headers.get(b"traceparent", b"").decode("latin-1"))
            method = scope["method"]
            found = self._paths.get((path, method)) or self._find(path, method)
            _, handler, model, version = found
            if path not in _OPEN:
                self._door.check(headers)
            body = await read_body(headers, receive, most=self._most, seconds=self._seconds) if method == "POST" else b""
            if body and b"content-encoding" in headers:
                body = inflate(headers[b"content-encoding"], body, most=self._most)
            call = Call(request, headers, body, scope["query_string"], model, version, started, receive)
            reply = await handler(self.runtime, call)
        except Exception as error:
            reply = self._refused(error, request, path, model, started)
        else:
            call.count(self.runtime, reply.status)
            if "~" in request:
                told = (b"x-request-id", request.partition("~")[0].encode())
                reply = Reply(reply.body, reply.status, reply.type, (*reply.headers, told))
        if self._traces is not None:
            _trace(self._traces, request, scope["method"], path, model, call, reply)
        await respond(send, reply)

    def begin(
        self,
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        receive: Receive,
        answer: Callable[[Reply], object],
    ) -> bool:
        """Take a plain ``POST .../predict`` whose body is whole: the same as `__call__`, without a task for each request.

        Parameters
        ----------
        path, headers, body
            As the client sent them; without a query.
        receive : callable
            ASGI's; tells when the client leaves.
        answer : callable
            Gets the reply, later and once.

        Returns
        -------
        bool
            False when it is nothing of that kind, and nothing was done.
        """
        found = self._paths.get((path, "POST"))
        if self._traces is not None or found is None or found[1] is not native.predict or len(body) > self._most:
            return False
        named = dict(headers)
        if b"x-mulle-route" in named or b"content-encoding" in named or b"x-request-id" in named:
            return False
        _, _, model, version = found
        started, request = time.perf_counter(), fresh_ids(time.time_ns() // 1000, 1)[0]
        try:
            self._door.check(named)
            call = Call(request, named, body, b"", model, version, started, receive)
            answers = call.submit(self.runtime, native.rows_of(call), version)
        except Exception as error:
            # Not within this call: a client that sends many bad requests at once must not nest them.
            asyncio.get_running_loop().call_soon(answer, self._refused(error, request, path, model, started))
        else:
            answers.add_done_callback(partial(self._finish, call, path, answer))
        return True

    def _finish(self, call: Call, path: str, answer: Callable[[Reply], object], answers: asyncio.Future[list[Answer]]) -> None:
        try:
            reply = native.reply_of(call, call.take(answers.result()))
        except Exception as error:
            reply = self._refused(error, call.request, path, call.model, call.started)
        else:
            call.count(self.runtime, reply.status)
        answer(reply)

    def _refused(self, error: Exception, request: str, path: str, model: str, started: float) -> Reply:
        reply = problem(error, request.partition("~")[0], path=path)
        count_refused(self.runtime, error, model, reply.status, started, request)
        return reply

    def _find(self, path: str, method: str) -> Found:
        fixed = self._fixed.get(path.rstrip("/") or "/")
        if fixed is not None:
            return "", _allowed(fixed, method, path), "", None
        door, model, version, action = _model_path(path)
        handlers = _ACTIONS.get((door, action))
        if not model or handlers is None or version == -1:
            raise NotFound(f"nothing is served at {path[:200]}", next="GET /docs shows what is, /openapi.json lists it")
        found: Found = (path, _allowed(handlers, method, path), model, version)
        if model in self.runtime.table and len(self._paths) < 50_000:
            self._paths[(path, method)] = found
        return found

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._end is not None:
                    await self._end()
                await self.runtime.stop()
                if self._traces is not None:
                    await asyncio.to_thread(self._traces.flush)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        keep_log(self._settings.home, "serve")
        if self._traces is not None:
            tracing.hook = self._traces.scored
        await self.runtime.start()
        if self._settings.grpc_port:
            # Loaded only when asked for: it is an extra, and costs memory.
            from mulle.surfaces.inference.rpc import start_rpc

            self._end = await start_rpc(self.runtime, self._settings, self._door, self._traces)


def _trace(
    traces: tracing.RequestTraces, request: str, method: str, path: str, model: str, call: Call | None, reply: Reply
) -> None:
    about: dict[str, str | int | float] = {"http.request.method": method, "http.response.status_code": reply.status}
    about |= {"mulle.request": request, **({"mulle.model": model} if model else {})}
    if call is not None and call.route:
        about |= {"mulle.version": call.answered, "mulle.route": call.route}
    # A path that nobody serves must not become a name.
    name = method if reply.status == 404 else f"{method} {path}"
    traces.end(request, name, about, f"status {reply.status}" if reply.status >= 500 else "")


_DOORS = {
    "v1/models/": "v1", "v2/models/": "v2", "v2/repository/models/": "repository", "endpoints/": "endpoints",
    "api/2.0/endpoints/": "mlflow",
}  # fmt: skip

_ACTIONS: dict[tuple[str, str], dict[str, Handler]] = {
    ("v1", "predict"): {"POST": native.predict},
    ("v1", "invocations"): {"POST": invocations.invoke},
    ("v1", ":predict"): {"POST": invocations.invoke},
    ("v1", "openapi.json"): {"GET": openapi.model},
    ("v1", ""): {"GET": native.model},
    ("v2", ""): {"GET": v2.model},
    ("v2", "ready"): {"GET": v2.model_ready},
    ("v2", "infer"): {"POST": v2.infer},
    ("repository", "load"): {"POST": v2.load},
    ("repository", "unload"): {"POST": v2.unload},
    ("endpoints", "invocations"): {"POST": invocations.invoke},
    ("mlflow", ""): {"GET": invocations.endpoint},
}


_WORDS = {action for _, action in _ACTIONS if action}


def _model_path(path: str) -> tuple[str, str, int | None, str]:
    # DOOR/NAME[/versions/V][/ACTION]; a fleet's member has a slash in its name. A version that is no number is -1.
    path = path[1:]
    prefix = next((prefix for prefix in _DOORS if path.startswith(prefix)), "")
    if not prefix:
        return "", "", None, ""
    parts, version, action = path[len(prefix) :].strip("/").split("/"), None, ""
    if len(parts) > 1 and parts[-1] in _WORDS:
        action = parts.pop()
    elif parts[-1].endswith(":predict"):
        parts[-1], action = parts[-1].removesuffix(":predict"), ":predict"
    if len(parts) > 2 and parts[-2] == "versions":
        last = parts[-1]
        version = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else -1
        parts = parts[:-2]
    return _DOORS[prefix], "/".join(parts), version, action


def _allowed(handlers: dict[str, Handler], method: str, path: str) -> Handler:
    handler = handlers.get("GET" if method == "HEAD" else method)
    if handler is None:
        allow = ", ".join(handlers)
        raise NotAllowed(f"{method} is not answered at {path[:200]}", next=f"use {allow}", allow=allow)
    return handler
