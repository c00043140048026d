"""The few words of ASGI that the inference plane needs, and a request body read within its limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from mulle.core.errors import Deadline, Malformed, TooLarge, WrongType

__all__ = ["App", "Receive", "Reply", "Scope", "Send", "check_charset", "inflate", "parse_json", "read_body", "respond"]

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

    def head(self) -> list[tuple[bytes, bytes]]:
        """Give all headers, the length among them."""
        return [(b"content-type", self.type), (b"content-length", b"%d" % len(self.body)), *self.headers]


async def respond(send: Send, reply: Reply) -> None:
    """Send a reply with its length."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.head()})
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


def inflate(encoding: bytes, body: bytes, *, most: int) -> bytes:
    """Undo a body's ``Content-Encoding``: gzip, deflate or identity.

    Raises
    ------
    TooLarge
        When it would be larger than `most`; the rest is not unpacked.
    WrongType
        On another encoding.
    Malformed
        When it is not what it says.

    Examples
    --------
    >>> inflate(b"deflate", zlib.compress(b"{}"), most=2)
    b'{}'
    """
    plain = encoding.strip().lower()
    if plain in {b"", b"identity"}:
        return body
    if plain not in {b"gzip", b"deflate"}:
        raise WrongType(f"content encoding {plain.decode('latin-1')[:40]} is not spoken here", next="send gzip, or plain")
    # 32 more than the window: gzip's or zlib's head, whichever it has.
    unpacker = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Malformed(f"the body is not {plain.decode()}: {error}", next="send it plain") from error
    if len(found) > most:
        raise _too_large(most)
    if not unpacker.eof:
        raise Malformed(f"the body ends within its {plain.decode()} stream", next="send all of it")
    return found


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is larger than {most} bytes", next="send fewer rows at once, or raise max_body")


def check_charset(parameters: bytes) -> None:
    """Look for a charset among a content type's parameters.

    Raises
    ------
    WrongType
        When it is not UTF-8.
    """
    for part in parameters.lower().split(b";"):
        name, _, value = part.partition(b"=")
        if name.strip() == b"charset" and value.strip(b' "') not in {b"utf-8", b"utf8", b"us-ascii"}:
            raise WrongType(f"charset {value.decode('latin-1')[:40]} is not spoken here", next="send UTF-8")


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
        plain, _, rest = named.lower().partition(b";")
        plain = plain.strip()
        if plain != JSON and not plain.endswith(b"+json"):
            raise WrongType(f"content type {plain.decode('latin-1')[:100]} is not spoken here", next="send application/json")
        check_charset(rest)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error}", next="send one JSON object") from error
