"""A connection of the inference plane: HTTP/1.1 by httptools, for uvicorn's server, with little between bytes and application.

Our answers are whole, so head and body leave in one write; a request whose body came with its head costs no event.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections import deque
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from mulle.surfaces.inference.asgi import App

__all__ = ["Connection"]

_HIGH_WATER = 2**16
_BAD = b"Invalid HTTP request received."
_BODILESS = {204, 304}
_PLACES: dict[bytes, tuple[str, bytes, bytes]] = {}
"""Path, raw path and query by target, for those asked again and again."""

_log = logging.getLogger("mulle.inference")


class Connection(asyncio.Protocol):
    """One client's connection; uvicorn makes it and keeps it in its state.

    Parameters
    ----------
    config : uvicorn.Config
    server_state : uvicorn.server.ServerState
        Holds the open connections, the tasks, and the headers of every answer.
    app_state : dict
        Not used: the application keeps its own.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        del app_state
        self.app: App = config.loaded_app
        self.state = server_state
        self.loop = _loop or asyncio.get_event_loop()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.writable: asyncio.Future[None] | None = None
        self._patience = float(config.timeout_keep_alive)
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url, self._headers, self._expects = b"", list[tuple[bytes, bytes]](), False
        self._queue: deque[_Exchange] = deque()
        self._active: _Exchange | None = None
        self._last = 0.0
        self._peers: tuple[Any, Any] = (None, None)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.state.connections.add(self)  # type: ignore[arg-type]
        self._peers = (transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self._last = self.loop.time()
        self.loop.call_later(self._patience, self._sweep)

    def connection_lost(self, _exc: Exception | None) -> None:
        """End; whoever works for this client can learn that it left."""
        self.state.connections.discard(self)
        self._queue.clear()
        self._parser = None
        self.resume_writing()
        if self._active is not None:
            self._active.leave()

    def data_received(self, data: bytes) -> None:
        """Parse what came and begin the requests in it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as the request that it is
        except httptools.HttpParserError:
            self._refuse()
            return
        if self._active is None:
            self._next()
        elif self._queue:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """Close, as a client that stops sending has left."""

    def pause_writing(self) -> None:
        """Let answers wait: the client reads slowly."""
        self.writable = self.writable or self.loop.create_future()

    def resume_writing(self) -> None:
        """Let answers go on."""
        waiter, self.writable = self.writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url, self._headers, self._expects = b"", [], False

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Queue the request; it begins when the bytes at hand are parsed."""
        version = self._parser.get_http_version()
        path, raw, query = _PLACES.get(self._url) or _placed(self._url)
        scope = {
            "type": "http", "asgi": _ASGI, "http_version": version, "method": self._parser.get_method().decode("ascii"),
            "scheme": "http", "path": path, "raw_path": raw, "query_string": query, "root_path": "", "headers": self._headers,
            "client": self._peers[0], "server": self._peers[1],
        }  # fmt: skip
        keep = version != "1.0" and self._parser.should_keep_alive()
        self._queue.append(_Exchange(self, scope, keep, self._expects))

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        exchange = self._queue[-1] if self._queue else self._active
        if exchange is not None and not exchange.complete:
            exchange.take(body)

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        exchange = self._queue[-1] if self._queue else self._active
        if exchange is not None and not exchange.complete:
            exchange.end()

    # What the server and the exchange call.

    def shutdown(self) -> None:
        """Close when nothing is being answered, else after the answer."""
        if self._active is None:
            self.transport.close()
        else:
            self._active.keep_alive = False

    def answered(self) -> None:
        """Go on with the next request, if there is one."""
        self.state.total_requests += 1
        self._active = None
        self._last = self.loop.time()
        if not self.transport.is_closing():
            self._next()

    def _next(self) -> None:
        if self._queue:
            self._active = self._queue.popleft()
            task = self.loop.create_task(self._active.run(self.app))
            self.state.tasks.add(task)
            task.add_done_callback(self.state.tasks.discard)
        if not self._queue:
            self.transport.resume_reading()

    def _refuse(self) -> None:
        head = b"".join(b"%s: %s\r\n" % pair for pair in self.state.default_headers)
        told = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(_BAD)
        self.transport.write(STATUS_LINE[400] + head + told + _BAD)
        self.transport.close()

    def _sweep(self) -> None:
        # One timer a connection that looks again, in place of one a request that is cancelled.
        if self.transport.is_closing():
            return
        left = self._patience if self._active is not None else self._last + self._patience - self.loop.time()
        if left <= 0:
            self.transport.close()
        else:
            self.loop.call_later(left, self._sweep)


class _Exchange:
    """One request and its answer, as ASGI has them."""

    __slots__ = (
        "_body", "_changed", "_connection", "_expects", "_more", "_parts", "_scope", "_start", "_waiter", "complete", "gone",
        "keep_alive",
    )  # fmt: skip

    def __init__(self, connection: Connection, scope: dict[str, Any], keep_alive: bool, expects: bool) -> None:
        self._connection, self._scope, self._expects = connection, scope, expects
        self.keep_alive, self.complete, self.gone = keep_alive, False, False
        self._body, self._more, self._changed = b"", True, False
        self._waiter: asyncio.Future[None] | None = None
        self._start: Any = None
        self._parts: list[bytes] = []

    def take(self, body: bytes) -> None:
        """Take a piece of the body; with too much that nobody read, the client has to wait."""
        self._body = self._body + body if self._body else body
        if len(self._body) > _HIGH_WATER:
            self._connection.transport.pause_reading()
        self._wake()

    def end(self) -> None:
        """Take the end of the body."""
        self._more = False
        self._wake()

    def leave(self) -> None:
        """Take note that the client left."""
        self.gone = True
        self._wake()

    async def run(self, app: App) -> None:
        """Let the application answer."""
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException as error:
            _log.error("the application failed", exc_info=error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            if not self.complete:
                self._start, self._parts, self.keep_alive = _FAILED, [b"Internal Server Error"], False
                self._write()

    async def receive(self) -> dict[str, Any]:
        """Give what came of the body, or wait for more; when the answer is out or the client left, say so."""
        transport = self._connection.transport
        if self._expects and not transport.is_closing():
            self._expects = False
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._changed or self.gone or self.complete):
            if self._more:
                transport.resume_reading()
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        self._changed = False
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, message: Any) -> None:
        """Take the answer's start and its pieces; they leave together."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body"):
            return
        if self._connection.writable is not None:
            await self._connection.writable
        self._write()

    def _wake(self) -> None:
        self._changed = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _write(self) -> None:
        self.complete = True
        self._wake()
        connection, start = self._connection, self._start
        if self.gone or connection.transport.is_closing():
            connection.answered()
            return
        status, sized = start["status"], False
        parts = [STATUS_LINE[status]]
        for name, value in (*connection.state.default_headers, *start.get("headers", ())):
            if name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            sized = sized or name == b"content-length"
            parts += (name, b": ", value, b"\r\n")
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if not sized and status not in _BODILESS:
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self._scope["method"] != "HEAD" and status not in _BODILESS:
            parts.append(body)
        connection.transport.write(b"".join(parts))
        if not self.keep_alive:
            connection.transport.close()
        connection.answered()


_ASGI = {"version": "3.0", "spec_version": "2.3"}
_FAILED = {"status": 500, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}


def _placed(url: bytes) -> tuple[str, bytes, bytes]:
    parsed = httptools.parse_url(url)
    raw = parsed.path
    path = raw.decode("ascii")
    found = (urllib.parse.unquote(path) if "%" in path else path, raw, parsed.query or b"")
    if len(_PLACES) < 4096 and len(url) < 512:
        _PLACES[url] = found
    return found
