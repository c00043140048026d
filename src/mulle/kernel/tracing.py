"""Where work stands in a trace (W3C Trace Context), and the one place that scoring looks at to tell of its parts."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence

from mulle.core.ports.traces import Span, Traces

__all__ = ["RequestTraces", "child_of", "hook", "run_context", "stage_context"]

Parts = Sequence[tuple[str, float, str]]
"""Name, seconds and what it was of, of pieces of work that followed each other up to now."""

hook: Callable[[Sequence[str], Parts], None] | None = None
"""Takes the requests of a batch and the parts of its scoring; None, and free, unless traces are asked for."""

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NOTHING = {"0" * 32, "0" * 16}


def child_of(parent: str = "") -> tuple[str, str]:
    """Give a new place in a parent's trace, or in a trace of its own, and the parent as it is to be told.

    Parameters
    ----------
    parent : str
        A ``traceparent``; one that cannot be read counts as none (W3C Trace Context, 4.3).

    Returns
    -------
    context, parent : str
        The context is empty where the parent's sender records nothing.

    Examples
    --------
    >>> context, parent = child_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> context[:36] == parent[:36], context == parent
    (True, False)
    >>> child_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")[0]
    ''
    """
    found = _PARENT.fullmatch(parent)
    if found is None or {found[1], found[2]} & _NOTHING:
        return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01", ""
    if not int(found[3], 16) & 1:
        return "", parent
    return f"00-{found[1]}-{os.urandom(8).hex()}-01", parent


def run_context(run: str) -> str:
    """Give a run's place: the same in every process, for another may end it.

    Examples
    --------
    >>> run_context("a") == run_context("a"), run_context("a") == run_context("b")
    (True, False)
    """
    return f"00-{_hex(run, 32)}-{_hex(run + '/', 16)}-01"


def stage_context(run: str, stage: str) -> str:
    """Give the place of a run's stage."""
    return f"00-{_hex(run, 32)}-{_hex(f'{run}/{stage}', 16)}-01"


def _hex(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


class RequestTraces:
    """The traces of requests that are being answered.

    Parameters
    ----------
    traces : Traces
    """

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._open: dict[str, tuple[str, str, int]] = {}

    def begin(self, request: str, parent: str) -> None:
        """Note that a request began; its parent is what the client sent."""
        context, above = child_of(parent)
        if context:
            self._open[request] = (context, above, time.time_ns())

    def end(self, request: str, name: str, attributes: dict[str, str | int | float], failed: str = "") -> None:
        """Tell of a request that is over."""
        found = self._open.pop(request, None)
        if found is not None:
            context, parent, began = found
            times = {"began": began, "ended": time.time_ns()}
            self._traces.add(Span(name=name, context=context, parent=parent, attributes=attributes, failed=failed, **times))

    def scored(self, requests: Sequence[str], parts: Parts) -> None:
        """Tell of a batch's parts, to each request in it; set as `hook`."""
        now = time.time_ns()
        for request in requests:
            if request not in self._open:
                continue
            parent, ended = self._open[request][0], now
            for name, seconds, of in reversed(parts):
                began = ended - int(seconds * 1e9)
                told: dict[str, str | int | float] = {"mulle.model": of, "mulle.batch_rows": len(requests)}
                self._traces.add(
                    Span(name=name, context=child_of(parent)[0], parent=parent, began=began, ended=ended, attributes=told)
                )
                ended = began

    def flush(self) -> None:
        """Send what is left."""
        self._traces.flush()
