"""A connection of the inference plane: HTTP/1.1 by httptools, for uvicorn's server, with little between bytes and application.

Our answers are whole, so head and body leave in one write; a request whose body came with its head costs no event.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from mulle.surfaces.inference.asgi import App, Receive, Reply

__all__ = ["Connection"]

Begin = Callable[[str, list[tuple[bytes, bytes]], bytes, Receive, Callable[[Reply], object]], bool]
"""An application's short way for requests that came as a whole; see `mulle.surfaces.inference.app.Inference.begin`."""

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
        self.begin: Begin | None = getattr(config.loaded_app, "begin", None)
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
        keep = version != "1.0" and self._parser.should_keep_alive()
        place = _PLACES.get(self._url) or _placed(self._url)
        self._queue.append(_Exchange(self, self._parser.get_method(), place, version, self._headers, keep, self._expects))

    @property
    def peers(self) -> tuple[Any, Any]:
        """The client's address and ours."""
        return self._peers

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
            if self.begin is None or not self._active.begun(self.begin):
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
        "_body", "_changed", "_connection", "_expects", "_headers", "_method", "_more", "_parts", "_place", "_start", "_version",
        "_waiter", "complete", "gone", "keep_alive",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: bytes,
        place: tuple[str, bytes, bytes],
        version: str,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        expects: bool,
    ) -> None:
        self._connection, self._expects = connection, expects
        self._method, self._place, self._version, self._headers = method, place, version, headers
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

    def begun(self, begin: Begin) -> bool:
        """Try the application's short way, for what came as a whole from a client that reads its answers."""
        path, _, query = self._place
        if self._more or query or self._method != b"POST" or self._connection.writable is not None:
            return False
        if not begin(path, self._headers, self._body, self.receive, self._reply):
            return False
        self._changed, self._body = False, b""
        return True

    def _reply(self, reply: Reply) -> None:
        self._write(reply.status, reply.head(), reply.body)

    async def run(self, app: App) -> None:
        """Let the application answer."""
        path, raw, query = self._place
        client, server = self._connection.peers
        scope = {
            "type": "http", "asgi": _ASGI, "http_version": self._version, "method": self._method.decode("ascii"),
            "scheme": "http", "path": path, "raw_path": raw, "query_string": query, "root_path": "", "headers": self._headers,
            "client": client, "server": server,
        }  # fmt: skip
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            _log.error("the application failed", exc_info=error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            if not self.complete:
                self.keep_alive = False
                self._write(500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error")

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
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._write(self._start["status"], self._start.get("headers", ()), body)

    def _wake(self) -> None:
        self._changed = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _write(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self.complete = True
        self._wake()
        connection = self._connection
        if self.gone or connection.transport.is_closing():
            connection.answered()
            return
        usual, closes = _usual(connection.state)
        self.keep_alive = self.keep_alive and not closes
        parts, sized = [STATUS_LINE[status], usual], False
        for name, value in headers:
            if name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            sized = sized or name == b"content-length"
            parts += (name, b": ", value, b"\r\n")
        if not sized and status not in _BODILESS:
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self._method != b"HEAD" and status not in _BODILESS:
            parts.append(body)
        connection.transport.write(b"".join(parts))
        if not self.keep_alive:
            connection.transport.close()
        connection.answered()


_ASGI = {"version": "3.0", "spec_version": "2.3"}
_USUAL: list[tuple[list[tuple[bytes, bytes]], bytes, bool]] = []
"""Headers of every answer as bytes, and whether they end the connection; uvicorn makes them anew each second."""


def _usual(state: ServerState) -> tuple[bytes, bool]:
    if not _USUAL or _USUAL[0][0] is not state.default_headers:
        said = state.default_headers
        closes = any(name == b"connection" and b"close" in value.lower() for name, value in said)
        _USUAL[:] = [(said, b"".join(b"%b: %b\r\n" % pair for pair in said if pair[0] != b"connection"), closes)]
    return _USUAL[0][1:]


def _placed(url: bytes) -> tuple[str, bytes, bytes]:
    parsed = httptools.parse_url(url)
    raw = parsed.path
    path = raw.decode("ascii")
    found = (urllib.parse.unquote(path) if "%" in path else path, raw, parsed.query or b"")
    if len(_PLACES) < 4096 and len(url) < 512:
        _PLACES[url] = found
    return found
