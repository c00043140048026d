"""Several inference processes on one port: each has its own listening socket, and whoever dies is replaced.

The parent opens all the sockets and keeps them open. So the system spreads connections over the workers, and those that
wait for one that died wait for who takes its place; none is refused.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mulle.core.clock import duration
from mulle.core.errors import Unavailable
from mulle.core.settings import Settings
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.listening import LEAVE, Door, listen

__all__ = ["Workers", "counters_folder", "work"]

_LOOK = 0.1
_STARTS = 60.0
_SHORT_LIFE = 5.0
_MOST_FALLS = 5

_WORKER = """
import sys
from mulle.bootstrap.inference import wire_inference
from mulle.core.settings import load_settings
from mulle.surfaces.inference.workers import work
settings = load_settings()
work(wire_inference(settings), settings, *map(int, sys.argv[1:5]))
"""


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    lifeline: int
    ready: int
    began: float

    def is_ready(self) -> bool:
        """Tell whether it answers; it says so with one byte."""
        with suppress(BlockingIOError):
            if self.ready >= 0 and os.read(self.ready, 1):
                os.close(self.ready)
                self.ready = -1
        return self.ready < 0

    def let_go(self) -> None:
        """Close the pipes; one that is still there shuts its door, finishes what it took and ends."""
        for end in (self.lifeline, self.ready):
            if end >= 0:
                os.close(end)
        self.lifeline = self.ready = -1


class Workers:
    """The processes of one inference server, as many as the settings say.

    SIGTERM and SIGINT end them gracefully, SIGHUP replaces them one after the other: the next one answers before the last
    one stops.

    Parameters
    ----------
    settings : Settings
        Resolved.
    environment : dict
        For the workers; `loop.server.environment` gives one.
    command : sequence of str, optional
        Runs a worker, its number and three descriptors appended; this module by default.
    """

    def __init__(self, settings: Settings, environment: dict[str, str], command: list[str] | None = None) -> None:
        self._settings, self._environment = settings, environment
        self._command = command or [sys.executable, "-P", "-c", _WORKER]
        self._sockets: list[socket.socket] = []
        self._workers: dict[int, _Worker] = {}
        self._ending: list[_Worker] = []
        self._stopping, self._renewing, self._falls = False, False, 0

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises
        ------
        Unavailable
            When the port is taken, or workers die again and again as soon as they are started.
        """
        shutil.rmtree(counters_folder(self._settings), ignore_errors=True)
        listen(self._settings, shared=False).close()  # a port that is taken would be shared with whoever has it
        self._sockets = [listen(self._settings, shared=True) for _ in range(self._settings.workers)]
        before = {number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            for slot in range(len(self._sockets)):
                self._workers[slot] = self._start(slot)
            while not self._stopping:
                self._look()
                if self._renewing:
                    self._renewing = False
                    self._renew()
                time.sleep(_LOOK)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._renewing = True
        else:
            self._stopping = True

    def _look(self) -> None:
        for worker in [w for w in self._ending if w.process.poll() is not None]:
            self._ending.remove(worker)
            worker.let_go()
        for slot, worker in self._workers.items():
            if worker.is_ready():
                self._falls = 0
            code = worker.process.poll()
            if code is None:
                continue
            print(f"mulle: inference worker {slot} ended with {code}; another takes its place", file=sys.stderr, flush=True)
            worker.let_go()
            self._falls += time.monotonic() - worker.began < _SHORT_LIFE
            if self._falls > _MOST_FALLS * len(self._sockets):
                raise Unavailable("the inference workers end as soon as they are started", next="the reason is above")
            self._workers[slot] = self._start(slot)

    def _renew(self) -> None:
        for slot, old in list(self._workers.items()):
            new = self._workers[slot] = self._start(slot)
            self._ending.append(old)
            deadline = time.monotonic() + _STARTS
            while not new.is_ready() and new.process.poll() is None and time.monotonic() < deadline and not self._stopping:
                time.sleep(_LOOK)
            old.process.send_signal(LEAVE)

    def _start(self, slot: int) -> _Worker:
        listening = self._sockets[slot].fileno()
        watched, lifeline = os.pipe()
        ready, tells = os.pipe()
        os.set_blocking(ready, False)
        process = subprocess.Popen(
            [*self._command, str(slot), str(listening), str(watched), str(tells)],
            env=self._environment, stdin=subprocess.DEVNULL, pass_fds=(listening, watched, tells),
            process_group=0,  # Ctrl-C is for the parent, which ends them in order
        )  # fmt: skip
        os.close(watched)
        os.close(tells)
        return _Worker(process, lifeline, ready, time.monotonic())

    def _stop(self) -> None:
        everyone = [*self._workers.values(), *self._ending]
        # First: held open here, they would let clients in whom no worker takes, until the last one has ended.
        for listening in self._sockets:
            listening.close()
        for worker in everyone:
            worker.let_go()
            worker.process.terminate()
        end = time.monotonic() + duration(self._settings.deadline).total_seconds() + 8
        for worker in everyone:
            try:
                worker.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def counters_folder(settings: Settings) -> Path:
    """Return where the workers of this machine's server on this port tell each other what they counted."""
    return settings.home / "counters" / f"{socket.gethostname()}-{settings.inference_port}"


def work(runtime: Runtime, settings: Settings, slot: int, listening: int, lifeline: int, tells: int) -> None:
    """Be one of the workers, until SIGTERM or the parent's death.

    Parameters
    ----------
    runtime : Runtime
        Not started yet.
    slot : int
    listening, lifeline, tells : int
        Descriptors: the socket, a pipe that closes when the parent ends, and one that is told when requests are answered.
    """
    from mulle.lifecycle.serving.peers import Peers
    from mulle.surfaces.inference.app import create_app
    from mulle.surfaces.inference.serve import serve

    door = Door(socket.socket(fileno=listening))
    threading.Thread(target=_end_with, args=(lifeline, door), daemon=True, name="lifeline").start()
    runtime.among(Peers(counters_folder(settings), slot))

    def begun() -> None:
        os.write(tells, b"1")

    serve(settings, create_app(runtime, settings), door=door, begun=begun)


def _end_with(lifeline: int, door: Door) -> None:
    os.read(lifeline, 1)
    # Here and not in the signal's handler alone: the main thread may be deep in a model or a feature function.
    door.shut()
    os.kill(os.getpid(), signal.SIGTERM)
