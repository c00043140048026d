"""The inference server as a process beside the loop: started, watched, started again when it dies, stopped gracefully."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TextIO
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from mulle.core.errors import Unavailable
from mulle.core.settings import Settings

__all__ = ["InferenceServer", "end_left_server", "environment", "free_port", "inference_server"]

_GRACE = 20.0

_open = build_opener(ProxyHandler({})).open
"""Asks this machine's own server; a proxy that the environment names is not for it."""

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that this process gets when its parent ends


class InferenceServer:
    """The ``mulle serve`` process of this home, with its workers where the settings ask for several.

    It outlives a loop that is killed, and goes on answering. The next loop ends it before it starts its own, for it may be
    of other settings or another release. The home's ``serve.lock`` tells of it: the process inherits the lock's
    descriptor, so that the lock is held as long as it lives, whoever started it.

    Parameters
    ----------
    settings : Settings
        Resolved; the process gets them through its environment.
    outlives : bool
        False: it ends with the process that started it, however that ends (on Linux; elsewhere only where it ends in order).
    """

    def __init__(self, settings: Settings, *, outlives: bool = True) -> None:
        self._settings = settings
        self._outlives = outlives
        self._log = settings.home / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0

    def start(self) -> None:
        """Start the process; does not wait for it, but for the end of one that an earlier loop left.

        Raises
        ------
        Unavailable
            When that one does not end.
        """
        with (self._settings.home / "serve.lock").open("a+") as lock, self._log.open("ab") as log:
            _take_over(lock)
            lock.truncate(0)
            # Who plays history asks its own server, which no one else knows of: the door's token is for the live one.
            given = {name: value for name, value in os.environ.items() if self._outlives or name != "MULLE_TOKEN"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mulle", "serve"],
                env={**given, **environment(self._settings)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                # Said by the process itself: a loop that is killed at this moment leaves no server that nobody can name.
                preexec_fn=partial(_begin, lock.fileno(), os.getpid(), self._outlives),
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._settings.host, self._settings.inference_port

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def ended(self) -> str:
        """Say how the process ended: by which signal, or with which words."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return "it does not run" if self._process is None else "it runs"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}: {' '.join(_tail(self._log).splitlines()[-2:])}"

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server answers that it is ready.

        Raises
        ------
        Unavailable
            When it died or the time is up; the detail carries the end of its log.
        """
        url = f"http://{self._settings.host}:{self._settings.inference_port}/v2/health/ready"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.alive():
            try:
                with _open(url, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.05)
        tail = _tail(self._log)
        raise Unavailable(f"the inference server did not become ready: {tail}", next=f"look at {self._log}")

    def wait_routes(self, generation: int, timeout: float = 30.0) -> None:
        """Wait until the server, all of its workers, has taken up a routing table.

        Raises
        ------
        Unavailable
            When it has not in time.
        """
        if generation <= self._generation:
            return
        url = f"http://{self._settings.host}:{self._settings.inference_port}/v1/routes?brief=true"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.alive():
            with _open(url, timeout=5) as answer:
                self._generation = int(json.load(answer)["generation"])
            if self._generation >= generation:
                return
            time.sleep(0.02)
        raise Unavailable(
            f"the inference server did not take up routes {generation}: {_tail(self._log)}", next=f"look at {self._log}"
        )

    def stop(self) -> None:
        """Ask the process to finish what it took, and wait; kill it when it does not end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def inference_server(settings: Settings) -> Iterator[InferenceServer]:
    """Run the inference server while the block runs, and no longer; ready when the block begins."""
    server = InferenceServer(settings, outlives=False)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def end_left_server(home: Path) -> None:
    """End the server that a loop which was killed left on a home, if there is one."""
    path = home / "serve.lock"
    if path.exists():
        with path.open("a+") as lock:
            _take_over(lock)


def environment(settings: Settings) -> dict[str, str]:
    """Give settings as environment variables, for a process of ours that is started beside this one.

    Examples
    --------
    >>> environment(Settings(port=9000))["MULLE_PORT"]
    '9000'
    """
    return {f"MULLE_{f.name.upper()}": str(getattr(settings, f.name)) for f in fields(Settings)}


def free_port(host: str) -> int:
    """Find a port of an address that nobody listens on now.

    Examples
    --------
    >>> free_port("127.0.0.1") > 1024
    True
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _begin(descriptor: int, parent: int, outlives: bool) -> None:
    os.write(descriptor, str(os.getpid()).encode())
    if not outlives and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be asked to tell
            os._exit(1)


def _take_over(lock: TextIO) -> None:
    """Take the lock; who holds it is asked to finish what it took, and killed when it does not."""
    asked: int | None = None
    deadline = time.monotonic() + _GRACE
    while not _taken(lock):
        lock.seek(0)
        pid, late = lock.read(), time.monotonic() > deadline
        if pid.isdecimal() and (late or asked is None):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL if late else signal.SIGTERM)
            asked = int(pid)
        if time.monotonic() > deadline + _GRACE:
            raise Unavailable(f"an inference server of this home, pid {pid or 'unknown'}, does not end", next="end it by hand")
        time.sleep(0.02)


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-800:].strip() if path.exists() else "it left no log"
