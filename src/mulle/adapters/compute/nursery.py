"""The nursery of `LocalCompute`'s children: imports what is slow, once, then forks a child for each that asks."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from mulle.adapters.compute.child import NICENESS, serve
from mulle.kernel.lifeline import killed_at_end

__all__ = ["main"]

_LOOK_MILLISECONDS = 1000
_DESCRIPTORS = 5
_MOST_BYTES = 1 << 20
_EXEC = "import sys; from mulle.adapters.compute.child import serve; serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])"


@dataclass(slots=True)
class _Child:
    """A child: what its parent is told through, whether it died, and whether the parent has let go of it."""

    pid: int
    status: socket.socket
    dead: bool = False
    left: bool = False


@dataclass(frozen=True, slots=True)
class _Born:
    """What a child was given."""

    channel: int
    lifeline: int
    warm: Sequence[str]
    alone: bool


class _Nursery:
    """Waits for requests, deaths, parents that let go, and the end of its own parent; it has no thread beside that."""

    def __init__(self, control: int, lifeline: int) -> None:
        self._parent = os.getppid()
        self._control, self._lifeline = socket.socket(fileno=control), lifeline
        self._children: dict[int, _Child] = {}
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The thread that started this one may have held it back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        self._poll = select.poll()
        for descriptor in (control, lifeline, self._woken):
            self._poll.register(descriptor, select.POLLIN)

    def tend(self) -> _Born:
        """Work until the parent is gone; this returns in each child alone."""
        while True:
            if os.getppid() != self._parent:
                self._leave()
            for descriptor, _ in self._poll.poll(_LOOK_MILLISECONDS):
                if descriptor == self._lifeline:
                    self._leave()
                elif descriptor == self._woken:
                    os.read(self._woken, 1 << 12)
                elif descriptor in self._children:
                    self._let_go(self._children[descriptor])
                elif (born := self._bear()) is not None:
                    return born
            self._bury()

    def _bear(self) -> _Born | None:
        told, descriptors, flags, _ = socket.recv_fds(self._control, 1, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not told:
            self._leave()
        if len(descriptors) < _DESCRIPTORS or flags & socket.MSG_CTRUNC:
            raise OSError("a nursery has too many open files")
        channel, lifeline, stderr, folder, status = descriptors
        teller = socket.socket(fileno=status)
        words = teller.recv(_MOST_BYTES)
        if _has_let_go(teller):
            teller.close()
        else:
            alone = len(os.listdir("/proc/self/task")) == 1
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                self._close()
                teller.close()
                return _grown(channel, lifeline, stderr, folder, words, alone)
            # Here too: when the parent hears the id, the group is there to be killed.
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            with contextlib.suppress(OSError):
                teller.send(str(pid).encode())
            self._children[status] = _Child(pid, teller)
            self._poll.register(status, select.POLLIN)
        for descriptor in (channel, lifeline, stderr, folder):
            os.close(descriptor)
        return None

    def _let_go(self, child: _Child) -> None:
        """Kill a child that the parent wants no more; it is buried when it is dead."""
        child.left = True
        self._poll.unregister(child.status)
        _kill(child)

    def _bury(self) -> None:
        for descriptor, child in list(self._children.items()):
            if not child.dead and (found := os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                child.dead = True
                code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
                with contextlib.suppress(OSError):
                    child.status.send(str(code).encode())
            if child.dead and child.left:
                # Not before: until then no other process gets its id.
                os.waitpid(child.pid, 0)
                del self._children[descriptor]
                child.status.close()

    def _close(self) -> None:
        """In a child: give back what is the nursery's, so that no pipe of another child stays open."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for child in self._children.values():
            child.status.close()
        self._control.close()
        for descriptor in (self._lifeline, self._woken, self._wakes):
            os.close(descriptor)

    def _leave(self) -> NoReturn:
        for child in self._children.values():
            _kill(child)
        os._exit(0)


def _has_let_go(status: socket.socket) -> bool:
    poll = select.poll()
    poll.register(status, select.POLLIN)
    return bool(poll.poll(0))


def _kill(child: _Child) -> None:
    # It was not buried, so the id is its own or its group's.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child.pid, signal.SIGKILL)


def _grown(channel: int, lifeline: int, stderr: int, folder: int, words: bytes, alone: bool) -> _Born:
    """Become what a process started by the parent at this moment would be."""
    os.dup2(stderr, 2)
    os.dup2(2, 1)
    os.fchdir(folder)
    given = json.loads(words)
    os.close(stderr)
    os.close(folder)
    os.environ.clear()
    os.environ.update(given["environment"])
    time.tzset()
    importlib.invalidate_caches()
    if (numpy := sys.modules.get("numpy")) is not None:
        # Python's own generator does so by itself.
        numpy.random.seed()
    return _Born(channel, lifeline, given["warm"], alone)


def main(arguments: Sequence[str]) -> None:
    """Start from the command line: the socket of requests, the lifeline, the modules to import."""
    control, lifeline = int(arguments[0]), int(arguments[1])
    os.dup2(2, 1)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    killed_at_end(lifeline)
    for name in arguments[2:]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # Collected once and then never looked at again: the children's memory stays one with this.
    gc.collect()
    gc.freeze()
    born = _Nursery(control, lifeline).tend()
    if not born.alone:
        # An import has started a thread, whose locks a fork would leave as they are: begin anew.
        print(f"compute: {arguments[2:]} start threads, so that children start slowly", file=sys.stderr, flush=True)
        for descriptor in (born.channel, born.lifeline):
            os.set_inheritable(descriptor, True)
        command = [sys.executable, "-P", "-c", _EXEC, str(born.channel), str(born.lifeline), *born.warm]
        os.execv(sys.executable, command)
    serve(born.channel, born.lifeline, born.warm)


if __name__ == "__main__":
    main(sys.argv[1:])
