"""Fewer and shorter pauses of Python's garbage collector, for processes that answer."""

from __future__ import annotations

import gc

__all__ = ["shorten_pauses"]

_YOUNG = 10_000
"""Objects that a batch of some hundred rows does not reach, so that few collections fall into one."""


def shorten_pauses() -> None:
    """Leave what the process has imported out of every later collection, and let new objects be looked at less often.

    To be called once, after the imports and before models are loaded: what is taken out is never collected. Without it a
    full collection goes through all that libraries made, some sixty thousand objects, while requests wait.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
