"""Ports for servers that tests start, no two of them the same."""

from __future__ import annotations

import os
import socket
from itertools import count

__all__ = ["free_port"]

_FIRST, _EACH, _WORKERS = 10_000, 2_750, 8
# Below the ports that the system gives by itself: what it calls free now may be another test's server a moment later.
_turns = count(os.getpid())


def free_port() -> int:
    """Find a port of this machine that nobody listens on and no other process of the test run is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        port = _FIRST + worker * _EACH + next(_turns) % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
