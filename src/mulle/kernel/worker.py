"""A child process for what must not run in the caller's: models that did not compile, and explanations.

The caller never imports what the child does. The child has bounds of time and memory, is started when it is first needed
and again when it died, and goes when its caller goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mulle.core.errors import BundleError, ContractError, Deadline, MulleError, Unavailable
from mulle.core.records.base import Json

__all__ = ["CHILD", "Worker", "pack_frame", "read_frame"]

CHILD = "mulle.lifecycle.registry.child"
"""The module that the child runs. Named here and never imported: it brings the training libraries."""

_FRAME = struct.Struct("<IQ")
_OPENING_SECONDS = 60.0
"""Longest time for starting the child and reading a bundle: what a model's libraries import is no part of its answers."""

_LOOK_SECONDS = 0.02
_LONGEST_REST = 8.0
_KINDS: dict[str, type[MulleError]] = {kind.__name__: kind for kind in (BundleError, ContractError)}

Cells = npt.NDArray[np.float64]


def pack_frame(words: Json, cells: npt.NDArray[np.generic] | None = None) -> bytes:
    """Frame a message: two lengths, a small JSON object, and the raw cells of a matrix, row by row.

    Examples
    --------
    >>> from io import BytesIO
    >>> words, cells = read_frame(BytesIO(pack_frame({"op": "run"}, np.ones((1, 2), np.float32))).read)
    >>> words["op"], np.frombuffer(cells, np.float32).tolist()
    ('run', [1.0, 1.0])
    """
    told = json.dumps(words).encode()
    body = b"" if cells is None else np.ascontiguousarray(cells).tobytes()
    return _FRAME.pack(len(told), len(body)) + told + body


def read_frame(read: Callable[[int], bytes]) -> tuple[Json, bytes]:
    """Read a message that `pack_frame` made.

    Parameters
    ----------
    read : callable
        Gives as many bytes as it is asked for; fewer only at the end.

    Raises
    ------
    EOFError
        When there is no whole message left.
    """
    told, body = _FRAME.unpack(_whole(read, _FRAME.size))
    return json.loads(_whole(read, told)), _whole(read, body)


def _whole(read: Callable[[int], bytes], size: int) -> bytes:
    given = read(size)
    if len(given) != size:
        raise EOFError
    return given


class Worker:
    """One child that opens bundles by their folder; callers in several threads wait for each other.

    Parameters
    ----------
    seconds : float
        Longest time to wait for other callers, and then for the answer.
    memory : int, optional
        Bytes that the child may hold; a child that is seen to hold more is killed. Told by Linux alone.

    Attributes
    ----------
    starts : int
        How often a child was started.
    """

    def __init__(self, *, seconds: float = 60.0, memory: int | None = None) -> None:
        self._child: _Child | None = None
        self._seconds, self._memory = seconds, memory
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._failed: dict[str, tuple[int, float]] = {}
        self.starts = 0

    def call(
        self, asked: str, folder: Path, matrix: npt.NDArray[np.float32], *, seconds: float | None = None
    ) -> tuple[Json, Cells]:
        """Ask the child about an encoded matrix.

        Parameters
        ----------
        asked : str
            ``run`` or ``explain``.
        folder : Path
            The bundle's.
        matrix : numpy.ndarray of float32, shape (n, k)
        seconds : float, optional
            Shorter than the worker's own. Starting a child and opening the bundle is not counted.

        Returns
        -------
        words : dict
        cells : numpy.ndarray of float64, shape (n, any)

        Raises
        ------
        Deadline
            When the time was up; the child was killed.
        Unavailable
            When the child died or held too much memory, or did so a moment ago (facts name ``retry_after``).
        ContractError
            When the model refuses these rows.
        BundleError
            When the bundle does not load or its model fails.
        """
        bound = self._seconds if seconds is None else min(seconds, self._seconds)
        if not self._lock.acquire(timeout=max(0.0, bound)):
            raise _late(folder, bound)
        try:
            self._rested(folder)
            child = self._opened(folder)
            words = {"op": asked, "folder": str(folder), "shape": matrix.shape}
            # From here, not from the call: a child that took its time to import must not be ended for it.
            return self._answer(child, words, matrix, folder, time.monotonic() + bound, bound)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child, a call under way with it; the next call would start another."""
        child = self._child
        if child is not None:
            child.stop()  # whoever waits for its answer then learns that it died
        with self._lock:
            self._end()

    def __del__(self) -> None:
        # Whoever forgets to close must not leave a child behind for as long as the process lives.
        with contextlib.suppress(Exception):
            self._end()

    @property
    def pid(self) -> int | None:
        """The living child's process id."""
        child = self._child
        return None if child is None else child.process.pid

    def _rested(self, folder: Path) -> None:
        times, until = self._failed.get(str(folder), (0, 0.0))
        left = until - time.monotonic()
        if left > 0:
            raise Unavailable(
                f"the child that runs {folder.name} ended {times} times in a row, and starts again in {left:.1f} s",
                next="try again after that; its reason is in the log", bundle=folder.name, retry_after=int(left) + 1,
            )  # fmt: skip

    def _opened(self, folder: Path) -> _Child:
        if self._child is None or self._child.process.poll() is not None:
            self._end()
            self._child, self._open = _Child(), set()
            self.starts += 1
        if str(folder) not in self._open:
            deadline = time.monotonic() + _OPENING_SECONDS
            self._answer(self._child, {"op": "open", "folder": str(folder)}, None, folder, deadline, _OPENING_SECONDS)
            self._open.add(str(folder))
        return self._child

    def _answer(
        self, child: _Child, words: Json, matrix: npt.NDArray[np.float32] | None, folder: Path, deadline: float, bound: float
    ) -> tuple[Json, Cells]:
        try:
            told, body = child.ask(pack_frame(words, matrix), deadline, self._memory)
        except _TooMuchError as error:
            self._broken(folder)
            raise Unavailable(
                f"the child that runs {folder.name} held {error} of memory, more than it may, and was ended",
                next="send fewer rows at once, or raise child_memory", bundle=folder.name,
            ) from None  # fmt: skip
        except TimeoutError:
            self._broken(folder)
            raise _late(folder, bound) from None
        except (OSError, EOFError):
            how = self._broken(folder)
            raise Unavailable(
                f"the child that runs {folder.name} died ({how})", next="try again; its reason is in the log", bundle=folder.name
            ) from None
        except BaseException:
            # Interrupted between question and answer: the child's next answer would be another one's.
            self._end()
            raise
        if "error" in told:
            said = told["error"]
            raise _KINDS.get(said["kind"], BundleError)(said["detail"], next=said["next"], **said["facts"])
        if "shape" in told:  # an answer: that it opens alone does not make it well
            self._failed.pop(str(folder), None)
        return told, np.frombuffer(body, dtype=np.float64).reshape(told.get("shape", (0, 0)))

    def _broken(self, folder: Path) -> str:
        code = self._end()
        times = self._failed.get(str(folder), (0, 0.0))[0] + 1
        # The first death may be chance; a bundle that kills each child must not keep the others waiting for new ones.
        rest = 0.0 if times == 1 else min(0.25 * 2**times, _LONGEST_REST)
        self._failed[str(folder)] = (times, time.monotonic() + rest)
        return (
            "no reason known" if code is None else f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        )

    def _end(self) -> int | None:
        child, self._child = self._child, None
        return None if child is None else child.kill()


class _TooMuchError(Exception):
    """A child holds more memory than it may."""


class _Child:
    """The process and the parent's ends of its pipes."""

    def __init__(self) -> None:
        lifeline, self._lifeline = os.pipe()
        # -P: a project's own `queue.py` in the working folder must not shadow the standard library's.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD, str(lifeline)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=(lifeline,), env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True, bufsize=0,
        )  # fmt: skip
        os.close(lifeline)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin, self.process.stdout
        os.set_blocking(self._to.fileno(), False)

    def ask(self, message: bytes, deadline: float, memory: int | None) -> tuple[Json, bytes]:
        """Send a message and return the answer; `TimeoutError` at the deadline, another `OSError` or `EOFError` when it died."""
        rest = memoryview(message)
        while rest:
            self._wait(self._to.fileno(), select.POLLOUT, deadline, memory)
            rest = rest[os.write(self._to.fileno(), rest) :]

        def read(size: int) -> bytes:
            parts, left = [], size
            while left:
                self._wait(self._from.fileno(), select.POLLIN, deadline, memory)
                part = os.read(self._from.fileno(), min(left, 1 << 20))
                if not part:
                    raise EOFError
                parts.append(part)
                left -= len(part)
            return b"".join(parts)

        return read_frame(read)

    def stop(self) -> None:
        """Kill the process and what it started; its pipes then end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> int:
        """End the process and what it started; return its exit code, negative for the signal that had ended it."""
        try:
            # A child that is ending by itself is given the moment to say how.
            code = self.process.wait(0.05)
        except subprocess.TimeoutExpired:
            self.stop()
            code = self.process.wait()
        self._to.close()
        self._from.close()
        os.close(self._lifeline)
        return code

    def _wait(self, descriptor: int, event: int, deadline: float, memory: int | None) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            left = deadline - time.monotonic()
            look = left if memory is None else min(_LOOK_SECONDS, left)
            if poll.poll(max(0.0, look) * 1000):
                return
            if memory is not None and (held := _resident(self.process.pid)) > memory:
                raise _TooMuchError(f"{held / 1e6:.0f} MB")
            if left <= look:
                raise TimeoutError


def _late(folder: Path, seconds: float) -> Deadline:
    return Deadline(
        f"the child that runs {folder.name} did not answer within {seconds:.3g} s",
        next="send fewer rows at once, or raise deadline", bundle=folder.name,
    )  # fmt: skip


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
