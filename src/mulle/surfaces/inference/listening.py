"""The door of an inference process: a listening socket that is shut at once, whatever the process is busy with."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

from mulle.core.errors import Unavailable
from mulle.core.settings import Settings

__all__ = ["BACKLOG", "LEAVE", "Door", "listen"]

BACKLOG = 2048

LEAVE = signal.SIGUSR1
"""The signal to a server whose place another has taken: the door stays open, for it is the other's as well."""


class Door:
    """A listening socket that can be shut whatever the event loop is busy with; who waited before it is let in first.

    Attributes
    ----------
    listening : socket
    waited : list of socket
        Connections that nobody had taken when it was shut.
    """

    def __init__(self, listening: socket.socket) -> None:
        self.listening, self.waited = listening, list[socket.socket]()
        self._shut = False
        listening.setblocking(False)

    def shut(self) -> None:
        """Take who waits and let nobody else in; from any thread, or between two instructions of this one."""
        if self._shut:
            return
        self._shut = True
        with suppress(BlockingIOError):
            while True:
                self.waited.append(self.listening.accept()[0])
        # The event loop still watches the descriptor, so that it must stay one: of a socket to which nobody ever comes.
        with socket.socket(socket.AF_UNIX) as idle:
            os.dup2(idle.fileno(), self.listening.fileno(), inheritable=False)


def listen(settings: Settings, *, shared: bool) -> socket.socket:
    """Listen on the host and port of the settings.

    Parameters
    ----------
    settings : Settings
    shared : bool
        Whether others may listen there as well; the system spreads connections over them.

    Raises
    ------
    Unavailable
        When the port is taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        made.bind((settings.host, settings.inference_port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Unavailable(
            f"{settings.host}:{settings.inference_port} cannot be listened on: {error}", next="choose another inference_port"
        ) from error
    return made
