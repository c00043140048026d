"""Compute on this machine: one warm pool of child processes that stages hand their heavy work to."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mulle.adapters.compute.replies import open_reply, stopped
from mulle.adapters.compute.starting import start
from mulle.core.errors import Deadline, Unavailable
from mulle.core.records.base import Json, to_json

__all__ = ["LocalCompute"]

_LOOK_SECONDS = 0.02
"""A child whose memory is bounded is looked at so often."""


class LocalCompute:
    """A pool of child processes, started at once, each running one task at a time.

    A child runs at a lower priority than serving, dies with this process whatever kills it, is killed when a task
    overruns its time, and is replaced.

    Parameters
    ----------
    processes : int
        How many; more callers than that wait for a free one.
    warm : sequence of str
        Modules that a child imports while it waits for its first task.
    log : Path, optional
        File that what children print is appended to; default: this process's stderr.

    Examples
    --------
    >>> compute = LocalCompute()
    >>> compute.call("mulle.core.settings:absent", {})
    Traceback (most recent call last):
    mulle.core.errors.UsageError: there is no task 'mulle.core.settings:absent'
    >>> compute.close()
    """

    def __init__(self, processes: int = 1, *, warm: Sequence[str] = (), log: Path | None = None) -> None:
        self._warm, self._log = tuple(warm), log
        self._lock = threading.Lock()
        self._closed = False
        # Last in, first out: the child that worked last has the warmest caches.
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._children: set[_Child] = set()
        self._calls: set[_Call] = set()
        for _ in range(max(1, processes)):
            self._spawn()

    def call(
        self, task: str, arguments: Json, *, timeout: float | None = None, memory: int | None = None, owner: str = ""
    ) -> Json:
        """Run ``module:function`` with keyword arguments in a child and return its answer.

        Parameters
        ----------
        task : str
            For example ``mulle.bootstrap.tasks:run_task``; the function takes JSON keyword arguments and returns a dict.
        arguments : dict
        timeout : float, optional
            Seconds from the moment a child takes the task; then the child is killed.
        memory : int, optional
            Bytes. The child's allocations fail above them, and a child that is seen to hold more is killed; both are told
            by Linux alone.
        owner : str, optional
            The run that it is for.

        Raises
        ------
        Deadline
            When the time was up and the child was killed.
        Unavailable
            When the child died (killed, out of memory), was stopped, or the pool is closed. Fact ``killed`` is ``memory`` when
            it held more than it was given.
        MulleError
            Whatever error of ours the task raised, rebuilt; a foreign exception comes as a plain `MulleError`
            with fact ``traceback``.
        """
        line = json.dumps({"task": task, "arguments": to_json(arguments), "memory": memory}).encode() + b"\n"
        call = _Call(owner)
        with self._lock:
            self._calls.add(call)
        try:
            return open_reply(self._asked(call, task, line, timeout, memory))
        finally:
            with self._lock:
                self._calls.discard(call)

    def _asked(self, call: _Call, task: str, line: bytes, timeout: float | None, memory: int | None) -> Json:
        child = self._take(call, task)
        try:
            reply = child.ask(line, timeout, memory)
        except _TooMuchError as error:
            self._replace(child)
            raise Unavailable(
                f"{task} held {error} of memory, more than it was given, and was killed",
                next="give it more memory or less work", task=task, killed="memory",
            ) from None  # fmt: skip
        except TimeoutError:
            self._replace(child)
            raise Deadline(
                f"{task} was not done after {timeout:g} s and was killed",
                next="give it more time (a stage has the setting stage_limit) or less work",
                task=task,
            ) from None
        except OSError:
            code = self._replace(child)
            raise stopped(task) if call.stopped.is_set() else self._dead(task, code) from None
        except BaseException:
            # Interrupted between question and answer: the child's next answer would be another one's.
            self._replace(child)
            raise
        with self._lock:
            # From here on the child may be another call's.
            call.child = None
        self._idle.put(child)
        return reply

    def stop(self, owner: str) -> None:
        """Kill the children that compute for a run; its calls under way end with `Unavailable`."""
        with self._lock:
            for call in [call for call in self._calls if call.owner == owner]:
                call.stopped.set()
                if call.child is not None:
                    call.child.kill()

    def close(self) -> None:
        """Kill the children; calls under way end with `Unavailable`. Closing twice is harmless."""
        with self._lock:
            self._closed = True
            children = tuple(self._children)
            self._children.clear()
        for child in children:
            child.kill()

    @property
    def closed(self) -> bool:
        """Whether it was closed: it takes no more calls."""
        return self._closed

    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the living children."""
        with self._lock:
            children = tuple(self._children)
        return tuple(sorted(child.pid for child in children))

    def _take(self, call: _Call, task: str) -> _Child:
        while True:
            with self._lock:
                if self._closed:
                    raise Unavailable("compute is closed", next="start it again")
                if call.stopped.is_set():
                    raise stopped(task)
            with contextlib.suppress(queue.Empty):
                child = self._idle.get(timeout=0.5)
                if not child.alive():
                    self._replace(child)
                    continue
                with self._lock:
                    call.child = child
                    if not call.stopped.is_set():
                        return child
                self._idle.put(child)

    def _spawn(self) -> None:
        with self._lock:
            if self._closed:
                return
            child = _Child(self._warm, self._log)
            self._children.add(child)
        self._idle.put(child)

    def _replace(self, child: _Child) -> int:
        code = child.kill()
        with self._lock:
            self._children.discard(child)
        self._spawn()
        return code

    def _dead(self, task: str, code: int) -> Unavailable:
        if self._closed:
            return Unavailable(f"{task} was stopped: compute was closed", next="start it again", task=task)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Unavailable(
            f"the process of {task} died ({how})",
            next="try again; when it is killed each time, memory is the usual reason",
            task=task,
            code=code,
        )


class _Call:
    """A call under way: for whom, by which child, and whether it was stopped."""

    def __init__(self, owner: str) -> None:
        self.owner, self.stopped = owner, threading.Event()
        self.child: _Child | None = None


class _TooMuchError(Exception):
    """A child holds more memory than its task was given."""


class _Child:
    """One child process and the parent's ends of what joins them."""

    def __init__(self, warm: Sequence[str], log: Path | None) -> None:
        self._channel, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        try:
            with theirs, open(log, "ab") if log else contextlib.nullcontext() as sink:
                self._process = start(theirs.fileno(), lifeline, sink.fileno() if sink else 2, warm)
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
        self._channel.setblocking(False)
        self._lock = threading.Lock()
        self._open, self._ready_once = True, False

    @property
    def pid(self) -> int:
        """The process's id; 0 when it could not be started."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether the process still runs."""
        poll = select.poll()
        poll.register(self._channel, 0)
        return not poll.poll(0) and self._process.poll() is None

    def ask(self, line: bytes, timeout: float | None, memory: int | None) -> Json:
        """Send one line and return the answer; `TimeoutError` at the deadline, another `OSError` when it died."""
        if not self._ready_once:
            # What a child imports first is no part of its first task's time.
            self._read_line(None, None)
            self._ready_once = True
        deadline = None if timeout is None else time.monotonic() + timeout
        rest = memoryview(line)
        while rest:
            self._wait(select.POLLOUT, deadline, memory)
            rest = rest[self._channel.send(rest) :]
        answer: Json = json.loads(self._read_line(deadline, memory))
        return answer

    def _read_line(self, deadline: float | None, memory: int | None) -> bytes:
        reply = bytearray()
        while not reply.endswith(b"\n"):
            self._wait(select.POLLIN, deadline, memory)
            part = self._channel.recv(1 << 16)
            if not part:
                raise BrokenPipeError("the child's socket ended")
            reply += part
        return bytes(reply)

    def kill(self) -> int:
        """Kill the process and what it started; return its exit code, negative for a signal."""
        with self._lock:
            code = self._process.end()
            if self._open:
                self._open = False
                os.close(self._lifeline)
                with contextlib.suppress(OSError):
                    # Who waits for an answer learns of it, also when the process had not begun yet.
                    self._channel.shutdown(socket.SHUT_RDWR)
        return code

    def __del__(self) -> None:
        # Only here: when the pool is closed a caller in another thread may still use it, and a number that is
        # given back too early may already name somebody else's file.
        self._channel.close()

    def _wait(self, event: int, deadline: float | None, memory: int | None) -> None:
        poll = select.poll()
        poll.register(self._channel, event)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            look = left if memory is None else min(_LOOK_SECONDS, _LOOK_SECONDS if left is None else left)
            if poll.poll(None if look is None else look * 1000):
                return
            if memory is not None and (held := _resident(self.pid)) > memory:
                raise _TooMuchError(f"{held / 1e6:.0f} MB")
            if left is not None and left <= (look or 0.0):
                raise TimeoutError


def _resident(pid: int) -> int:
    # The parent looks, not the child: a child inside a C library that keeps the interpreter's lock could not.
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
