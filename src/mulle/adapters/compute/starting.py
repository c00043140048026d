"""How a compute child is started: forked from a nursery where that can be, or by itself."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["FORKABLE", "Process", "start"]

FORKABLE = frozenset({"lightgbm", "numpy", "onnx", "optuna", "pandas", "scipy", "sklearn"})
"""What a nursery imports: slow packages that start no thread. What starts one, as Polars does, is left to the child."""

_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}

_OURS = ("MULLE_", "MLFLOW_", "PYTEST_")
"""What is so named in the environment is read by a task, not by an import; other differences ask for another nursery."""

_KEPT = 4
"""So many nurseries stay; of more, those that were not used for longest and have no child are ended."""

_PATIENCE_SECONDS = 30.0
"""A nursery that says nothing of a child's death for so long hangs, and is ended too."""


class Process(Protocol):
    """A child process that was started."""

    @property
    def pid(self) -> int:
        """Its id; 0 when it could not be started."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def end(self) -> int:
        """Kill it and what it started; return its exit code. Ending twice is harmless."""


def start(channel: int, lifeline: int, stderr: int, warm: Sequence[str]) -> Process:
    """Start a child that serves a socket; it has the environment and the working folder of this moment.

    Parameters
    ----------
    channel, lifeline : int
        Descriptors for `mulle.adapters.compute.child.serve`; the caller closes its own afterwards.
    stderr : int
        Descriptor that the child prints to.
    warm : sequence of str
        Modules to import before the first request.

    Raises
    ------
    OSError
        When the system starts no more processes.
    """
    if sys.platform == "linux":
        # Whatever keeps a nursery from it, such as too many open files in flight.
        with contextlib.suppress(OSError):
            return _from_nursery((channel, lifeline, stderr), warm)
    return _Direct(channel, lifeline, stderr, warm)


class _Direct:
    """A child with an interpreter of its own."""

    def __init__(self, channel: int, lifeline: int, stderr: int, warm: Sequence[str]) -> None:
        self._process = _run("child", (channel, lifeline), stderr, warm)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def end(self) -> int:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


class _Forked:
    """A child of a nursery, which tells its id and later its exit code, and buries it when this lets go."""

    def __init__(self, nursery: _Nursery, status: socket.socket) -> None:
        self._nursery, self._status = nursery, status
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._code: int | None = None
        self._lost = self._ended = False

    @property
    def pid(self) -> int:
        while self._pid is None and self._code is None:
            self._hear(None)
        return self._pid or 0

    def poll(self) -> int | None:
        while not self._lost and self._hear(0):
            pass
        return self._code

    def end(self) -> int:
        self.poll()
        with self._lock:
            ended, self._ended = self._ended, True
        if not ended and self._pid and not self._lost:
            # Dead or alive, the id is its own until this lets go.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            while self._code is None:
                if not self._hear(_PATIENCE_SECONDS) and _is_zombie(self._pid):
                    self._nursery.end()
        if self._code is None:
            self._code = -signal.SIGKILL
        with contextlib.suppress(OSError):
            self._status.shutdown(socket.SHUT_RDWR)
        return self._code

    def __del__(self) -> None:
        self._status.close()

    def _hear(self, seconds: float | None) -> bool:
        """Take what the nursery says; tell whether there was something."""
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if not poll.poll(None if seconds is None else seconds * 1000):
            return False
        with self._lock:
            try:
                told = self._status.recv(16, socket.MSG_DONTWAIT)
            except BlockingIOError:  # another thread was faster
                return True
            except OSError:
                told = b""
            if not told:
                self._lost = True
                self._code = -signal.SIGKILL if self._code is None else self._code
            elif self._pid is None:
                self._pid = int(told)
            else:
                self._code = int(told)
        return True


class _Nursery:
    """A process that has imported packages and forks children, as its parent sees it."""

    def __init__(self, shared: Sequence[str], stderr: int) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline, ours = os.pipe()
        self._lifeline = os.fdopen(ours, "wb")
        self._children: weakref.WeakSet[_Forked] = weakref.WeakSet()
        # Arrow's allocator starts a thread where it may.
        calm = ",".join(filter(None, (os.environ.get("JE_ARROW_MALLOC_CONF"), "background_thread:false")))
        try:
            with theirs:
                self._process = _run("nursery", (theirs.fileno(), lifeline), stderr, shared, {"JE_ARROW_MALLOC_CONF": calm})
        except BaseException:
            self.forget()
            raise
        finally:
            os.close(lifeline)

    def fork(self, inherited: Sequence[int], warm: Sequence[str]) -> _Forked:
        """Ask for a child; this does not wait for it."""
        words = json.dumps({"environment": _environment(), "warm": list(warm)})
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = _Forked(self, mine)
        folder = os.open(".", os.O_PATH)
        try:
            mine.send(words.encode(), socket.MSG_DONTWAIT)
            socket.send_fds(self._control, [b"."], [*inherited, folder, theirs.fileno()], socket.MSG_DONTWAIT)
        finally:
            os.close(folder)
            theirs.close()
        self._children.add(child)
        return child

    def alive(self) -> bool:
        return self._process.poll() is None

    def used(self) -> bool:
        return any(child.poll() is None for child in self._children)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        self._control.close()
        self._lifeline.close()


_lock = threading.Lock()
_nurseries: dict[object, _Nursery] = {}
"""By what they imported and under which environment; the one that was used last is the last."""


def _from_nursery(inherited: Sequence[int], warm: Sequence[str]) -> Process:
    shared = tuple(name for name in warm if name.partition(".")[0] in FORKABLE)
    key = (shared, sys.executable, _place(), frozenset(item for item in os.environ.items() if not item[0].startswith(_OURS)))
    with _lock:
        nursery = _nurseries.pop(key, None)
        while True:
            if nursery is None or not nursery.alive():
                if nursery is not None:
                    nursery.end()
                nursery = _Nursery(shared, inherited[-1])
            _nurseries[key] = nursery
            _thin()
            # It may die just now.
            with contextlib.suppress(ConnectionError):
                return nursery.fork(inherited, warm)
            _nurseries.pop(key).end()
            nursery = None


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _thin() -> None:
    for key, nursery in list(_nurseries.items())[:-1]:
        if not nursery.alive() or (len(_nurseries) > _KEPT and not nursery.used()):
            _nurseries.pop(key).end()


def _place() -> str:
    """Give the working folder where an import may depend on it."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return "" if all(not entry or os.path.isabs(entry) for entry in entries) else os.getcwd()


def _environment() -> dict[str, str]:
    return {**os.environ, **_THREADS}


def _run(
    module: str, inherited: Sequence[int], stderr: int, warm: Sequence[str], more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    # -P: a project's own `queue.py` in the working folder must not shadow the standard library's.
    command = [sys.executable, "-P", "-m", f"mulle.adapters.compute.{module}", *map(str, inherited), *warm]
    return subprocess.Popen(
        command, pass_fds=inherited, stdin=subprocess.DEVNULL, stderr=stderr, env=_environment() | dict(more or {}),
        start_new_session=True,
    )  # fmt: skip


@atexit.register
def _end_all() -> None:
    with _lock:
        while _nurseries:
            _nurseries.popitem()[1].end()


def _forget_all() -> None:
    # In a process forked from this one: they are not its own, and another thread may have held the lock.
    global _lock
    _lock = threading.Lock()
    while _nurseries:
        _nurseries.popitem()[1].forget()


os.register_at_fork(after_in_child=_forget_all)
