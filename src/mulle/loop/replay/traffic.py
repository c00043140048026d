"""A replay's client: plays events in time order against the real HTTP server over several connections.

It runs in a thread of its own and never passes its horizon, which the replay moves; so requests keep flowing while
the loop thinks, and none is sent before what it may depend on is decided.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mulle.core.errors import Unavailable

__all__ = ["Event", "Tally", "Traffic"]


@dataclass(frozen=True, slots=True)
class Event:
    """One request: the instant it is sent at (microseconds since the UTC epoch), its path, body and rows."""

    at: int
    path: str
    body: bytes
    rows: int


@dataclass(slots=True)
class Tally:
    """What the client counted: requests by path's kind, failures with a sample of reasons."""

    predictions: int = 0
    rows: int = 0
    labels: int = 0
    failed: int = 0
    reasons: list[str] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection that asks one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[int] | None = None
        self.buffer = b""
        self.last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self.buffer[:head].lower()
        mark = lower.find(b"content-length:")
        length = int(lower[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
        if len(self.buffer) >= head + 4 + length:
            status, self.last = int(self.buffer[9:12]), self.buffer[head + 4 : head + 4 + length]
            self.buffer = self.buffer[head + 4 + length :]
            if self.answer and not self.answer.done():
                self.answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.answer and not self.answer.done():
            self.answer.set_exception(ConnectionError(str(exc or "closed by the server")))

    async def ask(self, head: bytes, body: bytes) -> int:
        if self.transport is None:
            raise ConnectionError("not connected")
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(b"%s%d\r\n\r\n%s" % (head, len(body), body))
        return await self.answer


class Traffic:
    """Sends events in time order, up to a horizon, over `connections` keep-alive connections.

    Parameters
    ----------
    host, port : address of the inference server
    connections : int
        At most so many requests are in flight.

    Examples
    --------
    >>> traffic = Traffic("127.0.0.1", 1, connections=8)
    >>> traffic.tally.failed
    0
    """

    def __init__(self, host: str, port: int, *, connections: int = 8) -> None:
        self.tally = Tally()
        self._host, self._port, self._connections = host, port, connections
        self._changed = threading.Condition()
        self._horizon = 0
        self._pause = 0.0
        self._queue: list[Sequence[Event]] = []
        self._open = True
        self._done_through = 0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Connect and begin; nothing is sent before the horizon is moved."""
        self._thread = threading.Thread(target=self._run, name="mulle-traffic", daemon=True)
        self._thread.start()

    def add(self, events: Iterable[Event]) -> None:
        """Queue more events; they follow those queued before in time."""
        with self._changed:
            self._queue.append(tuple(events))
            self._changed.notify_all()

    def allow(self, until: int, *, pause: float = 0.0) -> None:
        """Let events before an instant (microseconds) be sent, `pause` seconds apart per connection."""
        with self._changed:
            self._horizon = max(self._horizon, until)
            self._pause = pause
            self._changed.notify_all()

    def wait_answered(self, before: int, timeout: float = 600.0) -> None:
        """Wait until every event before an instant (microseconds) was answered.

        Raises
        ------
        Unavailable
            When the client died or the time is up.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._done_through >= before or self._error is not None, timeout):
                raise Unavailable("replay: the server did not answer in time", next="look at the server's log")
        if self._error is not None:
            raise Unavailable(f"replay: the client failed: {self._error}", next="look at the server's log") from self._error

    def close(self) -> None:
        """Stop; events not sent yet are dropped."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout=30)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
        with self._changed:
            self._open = False
            self._changed.notify_all()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        free: asyncio.Queue[_Connection] = asyncio.Queue()
        for _ in range(self._connections):
            free.put_nowait(await self._connected())
        flying: set[asyncio.Task[None]] = set()
        while True:
            batch, horizon = await asyncio.to_thread(self._next)
            if batch is None:
                break
            for event in batch:
                connection = await free.get()
                task = loop.create_task(self._send(event, connection, free))
                flying.add(task)
                task.add_done_callback(flying.discard)
                if self._pause:
                    await asyncio.sleep(self._pause)
            if flying:
                await asyncio.gather(*flying)
            with self._changed:
                self._done_through = max(self._done_through, horizon)
                self._changed.notify_all()

    async def _connected(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection

    def _next(self) -> tuple[list[Event] | None, int]:
        """Take the events up to the horizon; blocks while there is nothing to do."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self._done_through < self._horizon)
            if not self._open:
                return None, 0
            horizon = self._horizon
            taken: list[Event] = []
            rest: list[Sequence[Event]] = []
            for events in self._queue:
                cut = next((i for i, e in enumerate(events) if e.at >= horizon), len(events))
                taken.extend(events[:cut])
                if cut < len(events):
                    rest.append(events[cut:])
            self._queue = rest
            return taken, horizon

    async def _send(self, event: Event, connection: _Connection, free: asyncio.Queue[_Connection]) -> None:
        head = b"POST %s HTTP/1.1\r\nhost: %s:%d\r\ncontent-type: application/json\r\ncontent-length: " % (
            event.path.encode(),
            self._host.encode(),
            self._port,
        )
        if connection.transport is None:  # the server lets go of a connection on which nothing was asked for long
            connection = await self._connected()
        try:
            status = await connection.ask(head, event.body)
        except ConnectionError as error:
            self._fail(f"{event.path}: {error}")
            connection = await self._connected()
        else:
            if status >= 300:
                self._fail(f"{event.path}: HTTP {status} {connection.last[:300]!r}")
        self._count(event)
        free.put_nowait(connection)

    def _count(self, event: Event) -> None:
        if event.path == "/v1/labels":
            self.tally.labels += 1
        else:
            self.tally.predictions += 1
            self.tally.rows += event.rows

    def _fail(self, reason: str) -> None:
        self.tally.failed += 1
        if len(self.tally.reasons) < 20:
            self.tally.reasons.append(reason)
