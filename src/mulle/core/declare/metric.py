"""A metric of the project's own: a cost, a profit, whatever a gate shall hold a model to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from mulle.core.declare.names import plain_name
from mulle.core.errors import DeclarationError

__all__ = ["OPTIONAL", "Metric", "metric"]

OPTIONAL = ("probabilities", "classes", "rows")
"""What a metric's function may ask for by name, beside truth and prediction."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by a user's function.

    Attributes
    ----------
    name : str
        In verdicts, on the card and in the tracker.
    function : callable
    lower_is_better : bool
    takes : tuple of str
        Which of `OPTIONAL` the function names among its parameters.
    """

    name: str
    function: Callable[..., object]
    lower_is_better: bool
    takes: tuple[str, ...]


def metric(function: Callable[..., object], *, name: str | None = None, lower_is_better: bool) -> Metric:
    """Make a metric of a function, for use in gates; the search goes on by the task's metric.

    Parameters
    ----------
    function : callable
        Takes truth and prediction, arrays of shape (n,): float64 for regression, text for classes. It may name further
        parameters: ``probabilities``, array of shape (n, classes), or None; ``classes``, its columns; ``rows``, a
        `polars.DataFrame` of the n raw rows. Gives one finite number. It is called many times, on parts and on rows drawn
        with repetition.
    name : str, optional
        By default the function's.
    lower_is_better : bool

    Raises
    ------
    DeclarationError
        When it is no function, has no name of its own, or does not take truth and prediction.

    Examples
    --------
    >>> def cost(truth, prediction):
    ...     return abs(truth - prediction).sum()
    >>> metric(cost, lower_is_better=True).name
    'cost'
    """
    if not callable(function):
        raise DeclarationError(f"metric({function!r}) is no function", next="give a function of truth and prediction")
    called = name or getattr(function, "__name__", "")
    if not called or called == "<lambda>":
        raise DeclarationError("a metric without a name", next='write ml.metric(..., name="cost", lower_is_better=True)')
    return Metric(plain_name(called, "metric"), function, lower_is_better, _taken(function, called))


def _taken(function: Callable[..., object], called: str) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    placed = [p for p in parameters if p.name not in OPTIONAL and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not any(p.kind == p.VAR_POSITIONAL for p in parameters):
        wanted = sum(p.default is p.empty for p in placed)
        if len(placed) < 2 or wanted > 2:
            raise DeclarationError(
                f"metric {called} does not take truth and prediction alone",
                next=f"write def {called}(truth, prediction), and by name what else it needs of {', '.join(OPTIONAL)}",
            )
    return tuple(p.name for p in parameters if p.name in OPTIONAL)
