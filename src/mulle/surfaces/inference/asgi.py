"""The few words of ASGI that the inference plane needs, and a request body read within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from mulle.core.errors import Deadline, Malformed, TooLarge, WrongType

__all__ = ["App", "Receive", "Reply", "Scope", "Send", "parse_json", "read_body", "respond"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = b"application/json"


@dataclass(slots=True)
class Reply:
    """What goes back: status, body, content type and further headers."""

    body: bytes
    status: int = 200
    type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def respond(send: Send, reply: Reply) -> None:
    """Send a reply with its length."""
    headers = [(b"content-type", reply.type), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def read_body(headers: dict[bytes, bytes], receive: Receive, *, most: int, seconds: float) -> bytes:
    """Read a request's body, at most `most` bytes and for at most `seconds`.

    Raises
    ------
    TooLarge
        As soon as it is known, before the rest is read.
    Deadline
        When the client is too slow.
    Malformed
        When the client left before the end.
    """
    told = headers.get(b"content-length", b"")
    if told.isdigit() and int(told) > most:
        raise _too_large(most)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and message["type"] == "http.request":
        if len(body) > most:
            raise _too_large(most)
        return body
    try:
        async with asyncio.timeout(seconds):
            return await _rest(body, message, receive, most)
    except TimeoutError:
        raise Deadline("the body did not arrive in time", next="send it faster, or in smaller batches") from None


async def _rest(body: bytes, message: MutableMapping[str, Any], receive: Receive, most: int) -> bytes:
    parts, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body"):
        if size > most:
            raise _too_large(most)
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] != "http.request":
        raise Malformed("the client left before the body was whole")
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is larger than {most} bytes", next="send fewer rows at once, or raise max_body")


def parse_json(headers: dict[bytes, bytes], body: bytes) -> object:
    """Parse a JSON body.

    Raises
    ------
    WrongType
        When the content type is named and is not JSON.
    Malformed
        When it is not JSON.
    """
    named = headers.get(b"content-type", JSON)
    if named != JSON:
        plain = named.split(b";", 1)[0].strip().lower()
        if plain != JSON and not plain.endswith(b"+json"):
            raise WrongType(f"content type {plain.decode('latin-1')[:100]} is not spoken here", next="send application/json")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error}", next="send one JSON object") from error
