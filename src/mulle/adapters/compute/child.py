"""The child of `LocalCompute`: reads requests from a socket, runs them, answers on it, dies with its parent."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mulle.adapters.compute.replies import refusal
from mulle.core.errors import MulleError, UsageError
from mulle.core.records.base import Json, to_json
from mulle.kernel.lifeline import die_with_parent

__all__ = ["NICENESS", "answer", "serve"]

NICENESS = 5
"""A child gives way to serving by so much."""

_TRACE_LINES = 12


def answer(task: str, arguments: Json) -> Json:
    """Run one task and give what the parent is told: ``{"answer": ...}`` or ``{"error": ...}``.

    Parameters
    ----------
    task : str
        ``module:function``.
    arguments : dict
        Keyword arguments, JSON values.

    Returns
    -------
    dict
        An error carries ``kind`` (class name), ``detail``, ``next`` and ``facts``; a foreign exception is told
        as `MulleError` with the last lines of its traceback.

    Examples
    --------
    >>> answer("mulle.core.hashing:hash_json", {"value": 1})["error"]["kind"]
    'MulleError'
    """
    try:
        result = _find(task)(**arguments)
        if not isinstance(result, dict):
            raise TypeError(f"it returned {type(result).__name__}, and a task must return a dict of JSON values")
        encoded = to_json(result)
        json.dumps(encoded)
    except MulleError as error:
        return refusal(error)
    except BaseException as error:
        # SystemExit and KeyboardInterrupt too: a task must not end the pool's process without a word.
        return {"error": _foreign(task, error)}
    return {"answer": encoded}


def _find(task: str) -> Callable[..., object]:
    module, _, name = task.partition(":")
    found = getattr(importlib.import_module(module), name, None) if module and name else None
    if not callable(found):
        raise UsageError(f"there is no task '{task}'", next="write it as module:function", task=task)
    return found  # type: ignore[no-any-return]


def _foreign(task: str, error: BaseException) -> Json:
    lines = "".join(traceback.format_exception(error)).strip().splitlines()[-_TRACE_LINES:]
    return {
        "kind": "MulleError",
        "detail": f"{task} failed: {type(error).__name__}: {error}",
        "next": "the traceback's last lines are in `traceback`",
        "facts": {"task": task, "cause": type(error).__name__, "traceback": lines},
    }


def serve(channel: int, lifeline: int, warm: Sequence[str] = ()) -> None:
    """Say once that all is imported, then answer requests until the socket ends.

    Parameters
    ----------
    channel : int
        File descriptor of a socket: one JSON object a line, one answer a request, in order.
    lifeline : int
        A pipe that nothing is ever written to; its end means that the parent is gone.
    warm : sequence of str
        Modules to import before the first request.
    """
    die_with_parent(lifeline)
    for name in warm:
        # A module that does not import is told by the task that needs it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with os.fdopen(channel, "rb") as incoming, os.fdopen(os.dup(channel), "wb") as outgoing:
        outgoing.write(b"{}\n")
        outgoing.flush()
        for line in incoming:
            request: dict[str, Any] = json.loads(line)
            with _holding(request.get("memory")):
                reply = answer(request["task"], request["arguments"])
            outgoing.write(json.dumps(reply, default=str).encode() + b"\n")
            outgoing.flush()


@contextlib.contextmanager
def _holding(memory: int | None) -> Iterator[None]:
    """Let the task allocate so many bytes more: one that asks for far too much then fails, and its process lives on."""
    if memory is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory + _mapped()
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _mapped() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(arguments: Sequence[str]) -> None:
    """Start from the command line: two descriptors, then the modules to warm."""
    # Prints go to the parent's stderr: its stdout belongs to whoever called it, and may carry JSON.
    os.dup2(2, 1)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    serve(int(arguments[0]), int(arguments[1]), arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
