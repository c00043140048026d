"""Spans of work, told to whoever collects traces; contexts are W3C ``traceparent`` texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Span", "Traces"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One piece of work that is over.

    Attributes
    ----------
    context, parent : str
        Its own place in a trace, and that of what it is part of; the parent is empty where it is the first.
    began, ended : int
        Nanoseconds since the epoch.
    attributes : mapping
    failed : str
        Why it failed; empty when it did not.
    """

    name: str
    context: str
    parent: str = ""
    began: int
    ended: int
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    failed: str = ""


class Traces(Protocol):
    """Where spans go; never waits for the other side."""

    def add(self, span: Span) -> None:
        """Take a span; sent later, or dropped where the other side is away for long."""
        ...

    def flush(self) -> None:
        """Send what is left, for some seconds at most."""
        ...
