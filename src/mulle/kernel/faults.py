"""Places where a test may kill the process: how the loop proves that a run survives ``kill -9`` at every step."""

from __future__ import annotations

import os
import signal

__all__ = ["VARIABLE", "point"]

VARIABLE = "MULLE_FAULT"
"""The environment variable that names the point to die at; unset outside chaos tests."""


def point(name: str) -> None:
    """Kill the own process with SIGKILL when ``MULLE_FAULT`` equals the name; otherwise do nothing.

    SIGKILL, not an exception: nothing may be flushed, closed or handed over, as when the machine loses power. With
    ``term:`` before the name it is SIGTERM, as when a service manager ends the process.

    Parameters
    ----------
    name : str
        For example ``before:search``, ``after:register``, ``committed:publish``.

    Examples
    --------
    >>> point("before:search")
    """
    asked = os.environ.get(VARIABLE)
    if asked == name:
        os.kill(os.getpid(), signal.SIGKILL)
    elif asked == f"term:{name}":
        os.kill(os.getpid(), signal.SIGTERM)
