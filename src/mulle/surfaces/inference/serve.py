"""Running the inference plane: one process, one event loop, a graceful end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from time import monotonic
from types import FrameType

import uvicorn

from mulle.core.clock import duration
from mulle.core.errors import UsageError
from mulle.core.settings import Settings
from mulle.surfaces.door import is_loopback
from mulle.surfaces.inference.app import Inference
from mulle.surfaces.inference.wire import Connection

__all__ = ["check_door", "serve"]

_LINGER = 0.5
"""Seconds that an ending server waits for the next request of connections that are open: its answer closes them."""


class _Server(uvicorn.Server):
    """Tells the runtime first, so that readiness is false while the last requests are finished."""

    def __init__(self, config: uvicorn.Config, app: Inference, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._begun = app, begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # Closing a connection under a client that is just sending would fail its request, so the answer says it first.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        end = monotonic() + _LINGER
        while self.server_state.connections and monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.runtime.draining = True
        super().handle_exit(sig, frame)


def serve(
    settings: Settings, app: Inference, *, listening: socket.socket | None = None, begun: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGTERM or SIGINT; what was taken is finished and logged first.

    Parameters
    ----------
    settings : Settings
        Resolved.
    app : Inference
        Of `create_app`; its lifespan starts and stops the runtime.
    listening : socket, optional
        A listening socket; by default one is opened on the host and port of the settings.
    begun : callable
        Called when requests are answered.

    Raises
    ------
    UsageError
        When bound to more than this machine without a token.
    """
    check_door(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.inference_port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(duration(settings.deadline).total_seconds()) + 5,
    )
    # uvicorn raises the signal again once it has ended well; a graceful end on request is exit code 0.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        _Server(config, app, begun).run(sockets=None if listening is None else [listening])
    finally:
        signal.signal(signal.SIGTERM, before)


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
