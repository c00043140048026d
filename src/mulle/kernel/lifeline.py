"""A child process that ends with its parent, whatever ends that: the child's side of a pipe that nothing is written to."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import threading

__all__ = ["die_with_parent", "killed_at_end"]


def die_with_parent(lifeline: int) -> None:
    """Have this process's group killed when the other end of a pipe closes, or its parent is gone.

    Parameters
    ----------
    lifeline : int
        The reading end; the process must lead a group of its own.
    """
    killed_at_end(lifeline)
    threading.Thread(target=_watch, args=(lifeline, os.getppid()), daemon=True, name="lifeline").start()


def killed_at_end(lifeline: int) -> None:
    """Have the kernel kill this process's group when the other end of a pipe closes, where it can; this starts no thread.

    It does so even while a C library holds the interpreter's lock.

    Parameters
    ----------
    lifeline : int
        The reading end; the process must lead a group of its own.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _watch(lifeline: int, parent: int) -> None:
    # The parent's id is looked at too: a process forked from it may keep the pipe open after its death.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN | select.POLLHUP)
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    os.killpg(0, signal.SIGKILL)
