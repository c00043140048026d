"""The limit of the serving claims: raw ASGI and the compiled graph; nothing is batched, checked, logged or counted."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from benchmarks.serving_codes import Graph

__all__ = ["application"]

Event = MutableMapping[str, Any]
Application = Callable[[Event, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]


def application() -> Application:
    """Make the application: body parsed, rows encoded by hand, one call of the graph, answer written."""
    folder = Path(os.environ["SERVED"])
    score, loads, dumps = Graph(folder).score, orjson.loads, orjson.dumps

    async def answer(scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]) -> None:
        del scope
        event = await receive()
        body = event["body"]
        while event.get("more_body"):
            event = await receive()
            body += event["body"]
        said = dumps({"predictions": score(loads(body)["rows"])})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    return answer


if __name__ == "__main__":
    os.environ["SERVED"] = sys.argv[1]
    uvicorn.run(
        "benchmarks.serving_limit:application", factory=True, workers=int(sys.argv[3].partition("-")[2] or 1),
        host="127.0.0.1", port=int(sys.argv[2]), loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="warning",
        access_log=False, server_header=False, date_header=False, proxy_headers=False, backlog=2048,
    )  # fmt: skip
