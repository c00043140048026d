"""Running the control plane: what ``mulle up`` waits in, until a signal tells it to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from mulle.core.errors import Conflict
from mulle.core.settings import Settings
from mulle.loop.parts import Parts
from mulle.surfaces.api.app import create_app

__all__ = ["serve_control"]


class _Server(uvicorn.Server):
    """Stops on SIGINT and SIGTERM and does not raise them again.

    Uvicorn's own way would end the process by SIGTERM before the engine and the inference server behind it are closed.
    """

    interrupted = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002
        self.interrupted = self.interrupted or sig == signal.SIGINT
        self.should_exit = True


def serve_control(parts: Callable[[], Parts]) -> None:
    """Serve status page and API until SIGTERM (then it returns) or SIGINT.

    Parameters
    ----------
    parts : callable
        Gives the parts in force.

    Raises
    ------
    Conflict
        When the port is taken.
    UsageError
        When bound beyond loopback without a token.
    KeyboardInterrupt
        After a clean stop by SIGINT.
    """
    config = uvicorn.Config(create_app(parts), log_level="warning", access_log=False, server_header=False, ws="none",
                            timeout_graceful_shutdown=5)  # fmt: skip
    server = _Server(config)
    with _listening(parts().settings) as listener:
        server.run(sockets=[listener])
    if server.interrupted:
        raise KeyboardInterrupt


def _listening(settings: Settings) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}",
            next="choose another port with MULLE_PORT or `port` in mulle.toml",
            port=settings.port,
        ) from error
    return listener
