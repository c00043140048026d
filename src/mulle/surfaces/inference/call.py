"""One request on its way through a handler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mulle.core.errors import Deadline, Malformed, MulleError, NotFound, Overloaded, TooLarge, Unavailable, UsageError
from mulle.core.records.bundle import Contract
from mulle.lifecycle.serving.route import Forced
from mulle.lifecycle.serving.runtime import Runtime
from mulle.lifecycle.serving.score import Answer
from mulle.surfaces.inference import incidents
from mulle.surfaces.inference.asgi import Receive

__all__ = ["Call", "count_refused"]

_ROUTE = b"x-mulle-route"


class Call:
    """A request's parts.

    Attributes
    ----------
    request : str
        Its id.
    model : str
    version : int or None
        As the path names them.
    started : float
        Seconds of `time.perf_counter`.
    receive : callable, optional
        ASGI's; tells when the client leaves.
    size : int
        Bytes of the body, or of the message it came in.
    answered, route : int or str, str
        Version and route of the first answer, for the counters.
    """

    __slots__ = ("answered", "body", "headers", "model", "query", "receive", "request", "route", "size", "started", "version")

    def __init__(
        self,
        request: str,
        headers: dict[bytes, bytes],
        body: bytes,
        query: bytes,
        model: str,
        version: int | None,
        started: float,
        receive: Receive | None = None,
    ) -> None:
        self.request, self.headers, self.body, self.query = request, headers, body, query
        self.model, self.version, self.started = model, version, started
        self.size, self.receive = len(body), receive
        self.answered: int | str = ""
        self.route = ""

    async def predict(self, runtime: Runtime, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Hand rows to the runtime and wait for their answers; raises as `submit`."""
        version = self.version if _ROUTE not in self.headers else await _forced(runtime, self)
        return self.take(await self.submit(runtime, rows, version))

    async def contract(self, runtime: Runtime) -> Contract:
        """Return the contract that the request's rows are read by; where there is none, the log says that it was asked for."""
        try:
            _, contract = await runtime.contract(self.model, self.version)
        except Unavailable as error:
            runtime.turned_away.add(self.model, self.request, self.started, error)
            raise
        return contract

    def submit(self, runtime: Runtime, rows: Sequence[Mapping[str, Any]], version: int | None) -> asyncio.Future[list[Answer]]:
        """Hand rows to the runtime.

        Raises
        ------
        Malformed
            Without rows, or when a row is no object.
        TooLarge
            With more rows than one request may have, or a longer text than a field may have.
        """
        if not rows:
            raise Malformed("there are no rows in the request", next="send at least one", model=self.model)
        if len(rows) > runtime.settings.most_rows:
            raise TooLarge(f"{len(rows)} rows in one request, at most {runtime.settings.most_rows}", next="split them")
        for index, row in enumerate(rows):
            if type(row) is not dict:
                raise Malformed(f"row {index} is not an object", next='send {"rows": [{...}]}', model=self.model, row=index)
        if self.size > runtime.settings.max_text:
            _check_texts(rows, runtime.settings.max_text, self.model)
        gone = None if self.receive is None else self.gone
        return runtime.submit(self.model, rows, self.request, version, self.started, gone)

    def take(self, answers: list[Answer]) -> list[Answer]:
        """Note for the counters who answered; gives the answers back."""
        first = answers[0]
        self.answered, self.route = first["version"], first["route"]
        seconds = time.perf_counter() - self.started
        if seconds > incidents.SLOW:
            incidents.answered_late(self.request, self.model, answers, seconds)
        return answers

    async def gone(self) -> None:
        """Return when the client has left."""
        while self.receive is not None and (await self.receive())["type"] != "http.disconnect":
            pass

    def count(self, runtime: Runtime, status: int) -> None:
        """Count the request when it asked for predictions."""
        if self.route:
            runtime.tally.request(self.model, self.answered, self.route, status, time.perf_counter() - self.started)


def count_refused(runtime: Runtime, error: BaseException, model: str, status: int, started: float, request: str = "") -> None:
    """Count a request that was refused, and log it.

    Parameters
    ----------
    model : str
        As the request named it, or empty.
    status : int
        HTTP's, whatever the protocol.
    request : str
        Its id.
    """
    # A name that nobody deployed must not become a label: a scan would fill the memory.
    known = model if model in runtime.table else ""
    version = str(error.facts.get("version", "")) if isinstance(error, MulleError) else ""
    seconds = time.perf_counter() - started
    runtime.tally.request(known, version, "", status, seconds)
    runtime.tally.kinds[(known, version, error.slug if isinstance(error, MulleError) else MulleError.slug)] += 1
    incidents.failed(error, request, known, status, seconds)
    # What a version took is in the log with its answer or its error.
    if known and isinstance(error, (Overloaded, Deadline)) and "model" in error.facts and "left" not in error.facts:
        runtime.turned_away.add(known, request, started, error)


async def _forced(runtime: Runtime, call: Call) -> Forced:
    told = call.headers[_ROUTE].decode("latin-1").strip()[:40]
    if call.version is not None:
        raise UsageError("X-Mulle-Route and the address both name a version", next="leave one of them out", model=call.model)
    if told.isascii() and told.isdigit() and len(told) < 10:
        return Forced(int(told))
    if told not in {"champion", "canary", "shadow"}:
        raise UsageError(
            f"X-Mulle-Route is {told!r}", next="send champion, canary, shadow or the number of a version", model=call.model
        )
    await runtime.contract(call.model)  # a model that nobody asked for yet is loaded first
    force = runtime.routes(call.model)["in_force"]
    for part in force if isinstance(force, list) else ():
        if part["mode"] == told:
            return Forced(part["version"])
    raise NotFound(f"no {told} of '{call.model}' is in force", next="GET /v1/routes shows what is", model=call.model)


def _check_texts(rows: Sequence[Mapping[str, Any]], most: int, model: str) -> None:
    for index, row in enumerate(rows):
        for name, value in row.items():
            if type(value) is str and len(value) > most:
                shown = name[:80]
                raise TooLarge(
                    f"{model} row {index}: {shown} has {len(value)} characters, at most {most}",
                    next="shorten it, or raise max_text", model=model, row=index, field=shown,
                )  # fmt: skip
