"""The form that every kind of candidate is written down in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mulle.core.declare.ranges import Range
from mulle.core.errors import DeclarationError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec

__all__ = ["Kind", "Make", "Prepare", "Space", "nothing_searched", "only_for", "scaled_target"]

Make = Callable[[Json, str, int], Any]
"""From parameters, task and seed to an unfitted estimator."""

Prepare = Callable[[Sequence[FeatureSpec], str, str], list[tuple[str, Any]]]
"""From the matrix's columns, the task and the encoding of long categories to the steps before the estimator."""

Space = Callable[[str], dict[str, Range]]
"""From the task to the ranges of the parameters that are searched."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of estimator.

    Attributes
    ----------
    prepare, make, space : callable
    most_rows : int or None
        A trial on more rows is refused: the fit would take time or memory out of all proportion.
    leaf : str or None
        The parameter that says how many rows a leaf holds at least; its range is bounded by the table's size.
    """

    prepare: Prepare
    make: Make
    space: Space
    most_rows: int | None = None
    leaf: str | None = None


def nothing_searched(task: str) -> dict[str, Range]:
    """Search no parameter at all."""
    del task
    return {}


def only_for(tasks: tuple[str, ...], task: str, kind: str, instead: str) -> None:
    """Refuse a task that a kind of estimator has no answer to.

    Raises
    ------
    DeclarationError
    """
    if task not in tasks:
        raise DeclarationError(f"{kind} is no candidate for {task}", next=f"use {instead}")


def scaled_target(regressor: Any) -> Any:
    """Fit a regressor on the target in units of its spread, so that one range of penalties suits any target."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    return TransformedTargetRegressor(regressor=regressor, transformer=StandardScaler())
