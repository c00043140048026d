"""How a model is searched for: split, candidates, budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.declare.candidates import Candidate

__all__ = ["Holdout", "Search", "holdout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """The rows kept for the last word: the latest `span` by time, else a random share."""

    span: timedelta | None
    share: float


@dataclass(frozen=True, slots=True, init=False)
class Search:
    """A search over candidates within a budget.

    Parameters
    ----------
    candidates : iterable of Candidate
    trials : int
        At most so many trials.
    timeout : str
        At most so long, for the whole search; not used on a replay clock, where trials alone bound it.
    ensemble : int
        At most so many members; 1 is no ensemble.

    Examples
    --------
    >>> from mulle.core.declare.candidates import lightgbm, ridge
    >>> Search([lightgbm(), ridge()], trials=5, timeout="30s").trials
    5
    """

    candidates: tuple[Candidate, ...]
    trials: int
    timeout: timedelta
    ensemble: int

    def __init__(
        self, candidates: Iterable[Candidate] = (), *, trials: int = 20, timeout: str | timedelta = "60s", ensemble: int = 1
    ) -> None:
        object.__setattr__(self, "candidates", tuple(candidates))
        object.__setattr__(self, "trials", trials)
        object.__setattr__(self, "timeout", duration(timeout))
        object.__setattr__(self, "ensemble", ensemble)


def holdout(span: str | timedelta | float = 0.2) -> Holdout:
    """Keep the last `span` by time, or a share of the rows at random.

    Examples
    --------
    >>> holdout("14d").span.days, holdout(0.25).share
    (14, 0.25)
    """
    if isinstance(span, float):
        return Holdout(span=None, share=span)
    return Holdout(span=duration(span), share=0.2)
