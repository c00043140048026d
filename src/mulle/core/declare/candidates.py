"""Candidates: the kinds of estimator that a search chooses from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Candidate", "dummy", "extra_trees", "lightgbm", "logistic", "random_forest", "ridge"]


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
