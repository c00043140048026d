"""The words of a benchmark: a claim, the sides that are measured for it, and the targets it is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["GIB", "Claim", "Outcome", "Same", "Side", "Size", "Target", "faster_than", "memory_under", "within"]

Size = Literal["small", "full"]
Same = Callable[[Path, str, str], str]
"""Compares two answers: folder, name of the answer that others are held to, name of another; what differs, or nothing."""

GIB = 2**30
OURS = "Mulle"
"""The side that targets are about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Somebody who does a claim's work.

    Attributes
    ----------
    name : str
        As it is printed.
    call : str
        ``module:function``, see `benchmarks.side`.
    peer : str or None
        The environment it runs in (a file in ``pins/``); None for our own.
    repeat : int
        Of so many runs the best counts.
    note : str
        What a reader must know to read its figure.
    seeded : bool
        Whether a seed changes what it does; a study asks who takes none once.
    """

    name: str
    call: str
    peer: str | None = None
    repeat: int = 5
    note: str = ""
    seeded: bool = True

    @property
    def slug(self) -> str:
        """The name as a file's."""
        return "".join(c if c.isalnum() else "-" for c in self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a side reached; `failed` says why it reached nothing.

    Attributes
    ----------
    runs : tuple of (float, float)
        Seconds by the clock, and of processor time over all threads, of one operation in each run.
    peak_bytes : int
        The process's highest resident memory, imports and preparation included.
    """

    side: Side
    runs: tuple[tuple[float, float], ...] = ()
    peak_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    failed: str = ""

    @property
    def best(self) -> float:
        """The shortest of the runs by the clock, in seconds."""
        return min(self.runs)[0]

    @property
    def cpu(self) -> float:
        """The processor time of that run, in seconds."""
        return min(self.runs)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a claim promises.

    Attributes
    ----------
    says : str
    bound : float
    at_least : bool
        Whether the figure must reach the bound, or stay under it.
    figure : callable
        From the outcomes by side's name (only those that answered, and rightly); None when it cannot be told.
    """

    says: str
    bound: float
    at_least: bool
    figure: Callable[[Mapping[str, Outcome]], float | None]

    def met(self, outcomes: Mapping[str, Outcome]) -> bool | None:
        """Tell whether it is met; None when it cannot be told."""
        value = self.figure(outcomes)
        return None if value is None else value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Work that is measured.

    Attributes
    ----------
    name : str
    says : str
        What is done, in one sentence; ``{}`` fields are filled from the size.
    make : str
        ``module:function`` that makes the data in a folder, seeded.
    sizes : mapping
        ``small`` and ``full``.
    sides : tuple of Side
        The first is ours, the second the one that the others' answers are held to.
    same : callable
    targets : tuple of Target
        Judged at full size only.
    """

    name: str
    says: str
    make: str
    sizes: Mapping[Size, Mapping[str, int]]
    sides: tuple[Side, ...]
    same: Same
    targets: tuple[Target, ...]


def faster_than(peer: str, times: float, *, called: str) -> Target:
    """Promise to be so many times as fast as the fastest side of a peer."""

    def ratio(outcomes: Mapping[str, Outcome]) -> float | None:
        theirs = [o.best for o in outcomes.values() if o.side.peer == peer]
        return min(theirs) / outcomes[OURS].best if theirs and OURS in outcomes else None

    return Target(says=f"at least {times:g} x as fast as {called}", bound=times, at_least=True, figure=ratio)


def within(limit: str, times: float) -> Target:
    """Promise to take at most so many times as long as a side."""

    def ratio(outcomes: Mapping[str, Outcome]) -> float | None:
        return outcomes[OURS].best / outcomes[limit].best if {OURS, limit} <= set(outcomes) else None

    return Target(says=f"at most {times:g} x the time of {limit}", bound=times, at_least=False, figure=ratio)


def memory_under(gib: float) -> Target:
    """Promise to stay under so many GiB."""

    def peak(outcomes: Mapping[str, Outcome]) -> float | None:
        return outcomes[OURS].peak_bytes / GIB if OURS in outcomes else None

    return Target(says=f"under {gib:g} GiB", bound=gib, at_least=False, figure=peak)
