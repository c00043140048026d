"""Running the inference plane: one process, one event loop, a graceful end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import FrameType

import uvicorn

from mulle.core.clock import duration
from mulle.core.errors import UsageError
from mulle.core.settings import Settings
from mulle.kernel.pauses import shorten_pauses
from mulle.surfaces.door import is_loopback
from mulle.surfaces.inference.app import Inference
from mulle.surfaces.inference.listening import BACKLOG, LEAVE, Door, listen
from mulle.surfaces.inference.wire import Connection

__all__ = ["check_door", "serve"]

_LINGER = 0.5
"""Seconds that an ending server waits for the next request of connections that are open: its answer closes them."""


class _Server(uvicorn.Server):
    """Tells the runtime first, so that readiness is false while the last requests are finished."""

    def __init__(self, config: uvicorn.Config, app: Inference, door: Door, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._door, self._begun = app, door, begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # Closing a connection under a client that is just sending would fail its request, so the answer says it first.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        loop = asyncio.get_running_loop()
        made = partial(Connection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        for waited in self._door.waited:
            await loop.connect_accepted_socket(made, waited)
        end = monotonic() + _LINGER
        while self.server_state.connections and monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.runtime.draining = True
        self._door.shut()
        super().handle_exit(sig, frame)

    def leave(self, *_: object) -> None:
        """End, but leave the door open."""
        self._app.runtime.draining = self.should_exit = True


def serve(settings: Settings, app: Inference, *, door: Door | None = None, begun: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; what was taken is finished and logged first.

    Parameters
    ----------
    settings : Settings
        Resolved.
    app : Inference
        Of `create_app`; its lifespan starts and stops the runtime.
    door : Door, optional
        Where clients come in; by default one is opened on the host and port of the settings.
    begun : callable
        Called when requests are answered.

    Raises
    ------
    UsageError
        When bound to more than this machine without a token.
    Unavailable
        When the port is taken.
    """
    check_door(settings)
    door = door or Door(listen(settings, shared=False))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(duration(settings.deadline).total_seconds()) + 5,
    )
    server = _Server(config, app, door, begun)
    # uvicorn raises the signal again once it has ended well; a graceful end on request is exit code 0.
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: None), LEAVE: signal.signal(LEAVE, server.leave)}
    shorten_pauses()
    try:
        server.run(sockets=[door.listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_door(settings: Settings) -> None:
    """Refuse to serve others than this machine without a token.

    Raises
    ------
    UsageError
    """
    if not os.environ.get("MULLE_TOKEN") and not is_loopback(settings.host):
        raise UsageError(
            f"serving on {settings.host} without a token would let anyone ask",
            next="set MULLE_TOKEN, or serve on 127.0.0.1",
        )
