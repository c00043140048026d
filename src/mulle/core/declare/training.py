"""How a model is searched for: split, candidates, budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mulle.core.clock import duration

__all__ = ["Candidate", "Holdout", "Search", "dummy", "extra_trees", "holdout", "lightgbm", "logistic", "random_forest", "ridge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """The rows kept for the last word: the latest `span` by time, else a random share."""

    span: timedelta | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A kind of estimator with fixed parameters; the rest is searched.

    Attributes
    ----------
    kind : str
        ``lightgbm``, ``ridge``, ``logistic``, ``random_forest``, ``extra_trees`` or ``dummy``.
    params : dict
        Fixed by the user; never searched.
    """

    kind: str
    params: dict[str, Any] = field(default_factory=dict)


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


def lightgbm(**params: Any) -> Candidate:
    """Gradient-boosted trees (LightGBM); parameters by LightGBM's scikit-learn names.

    Examples
    --------
    >>> lightgbm(n_estimators=100).params
    {'n_estimators': 100}
    """
    return Candidate(kind="lightgbm", params=params)


def ridge(**params: Any) -> Candidate:
    """Linear regression with an L2 penalty (for classes: its classifier)."""
    return Candidate(kind="ridge", params=params)


def logistic(**params: Any) -> Candidate:
    """Logistic regression."""
    return Candidate(kind="logistic", params=params)


def random_forest(**params: Any) -> Candidate:
    """Random forest."""
    return Candidate(kind="random_forest", params=params)


def extra_trees(**params: Any) -> Candidate:
    """Extremely randomised trees."""
    return Candidate(kind="extra_trees", params=params)


def dummy(**params: Any) -> Candidate:
    """The baseline: the median or the most frequent class."""
    return Candidate(kind="dummy", params=params)
