"""Running the inference plane: one process, one event loop, a graceful end."""

from __future__ import annotations

import os
import signal
from types import FrameType

import uvicorn

from mulle.core.clock import duration
from mulle.core.errors import UsageError
from mulle.core.settings import Settings
from mulle.surfaces.door import is_loopback
from mulle.surfaces.inference.app import Inference

__all__ = ["serve"]


class _Server(uvicorn.Server):
    """Tells the runtime first, so that readiness is false while the last requests are finished."""

    def __init__(self, config: uvicorn.Config, app: Inference) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.runtime.draining = True
        super().handle_exit(sig, frame)


def serve(settings: Settings, app: Inference) -> None:
    """Serve until SIGTERM or SIGINT; what was taken is finished and logged first.

    Parameters
    ----------
    settings : Settings
        Resolved.
    app : Inference
        Of `create_app`; its lifespan starts and stops the runtime.

    Raises
    ------
    UsageError
        When bound to more than this machine without a token.
    """
    if not os.environ.get("MULLE_TOKEN") and not is_loopback(settings.host):
        raise UsageError(
            f"serving on {settings.host} without a token would let anyone ask",
            next="set MULLE_TOKEN, or serve on 127.0.0.1",
        )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.inference_port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(duration(settings.deadline).total_seconds()) + 5,
    )
    # uvicorn raises the signal again once it has ended well; a graceful end on request is exit code 0.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        _Server(config, app).run()
    finally:
        signal.signal(signal.SIGTERM, before)
