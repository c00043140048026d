"""Metrics of the project's own: calling a user's function on answers, whole, in parts and drawn anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsFloat, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.gates import (
    AtLeast,
    AtMost,
    EachSlice,
    Fairness,
    Gate,
    GeneralisationGap,
    NoWorseThanChampion,
)
from mulle.core.declare.metric import Metric
from mulle.core.errors import DataError
from mulle.kernel.answered import Answers
from mulle.kernel.metrics import METRICS

__all__ = ["REPEATS", "call_metric", "own_interval", "own_metrics"]

REPEATS = 50
"""How often a user's function is called for an interval: enough for a standard error (Efron and Tibshirani, 1993, 6.4)."""

_NORMAL_95 = 1.959964

Index = npt.NDArray[np.int64]


def own_metrics(gates: Iterable[Gate]) -> dict[str, Metric]:
    """Collect the metrics of the project's own that gates name, by name.

    Raises
    ------
    DataError
        When one has the name of a built-in metric, or two have the same.
    """
    found: dict[str, Metric] = {}
    for gate in gates:
        asked = gate.gate if isinstance(gate, EachSlice) else gate
        own = asked.own if isinstance(asked, (AtMost, AtLeast, NoWorseThanChampion, GeneralisationGap, Fairness)) else None
        if own is None:
            continue
        if own.name in METRICS or found.setdefault(own.name, own) != own:
            raise DataError(f"there are two metrics called '{own.name}'", next='give yours another: ml.metric(..., name="cost")')
    return found


def call_metric(metric: Metric, answers: Answers, rows: pl.DataFrame | None, at: Index | None = None) -> float:
    """Call a user's metric on answers, or on some of them.

    Parameters
    ----------
    metric : Metric
    answers : Answers
    rows : polars.DataFrame or None
        The answers' raw rows; None where the metric takes none.
    at : numpy.ndarray of int64, optional
        Positions; a row may come more than once.

    Raises
    ------
    DataError
        When the function fails, or gives what is no finite number.
    """
    part = answers if at is None else answers.take(at)
    more = {
        "probabilities": part.probabilities,
        "classes": part.classes,
        "rows": rows if rows is None or at is None else rows[at],
    }
    try:
        # A column of the contract's floats may be read by a function that writes into it: it gets its own.
        given = metric.function(np.array(part.truth), np.array(part.values), **{name: more[name] for name in metric.takes})
        value = float(cast(SupportsFloat, given))
    except Exception as error:
        raise DataError(
            f"metric {metric.name} failed: {type(error).__name__}: {error}", next="mend the function; it must give one number"
        ) from error
    if not np.isfinite(value):
        raise DataError(f"metric {metric.name} gave {value}", next="mend the function; it must give a finite number")
    return value


def own_interval(
    metric: Metric, value: float, answers: Answers, rows: pl.DataFrame | None, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Give the 95% interval of a user's metric: its value and two standard errors of `REPEATS` bootstrap draws to each side.

    Returns
    -------
    dict
        By name; empty of a single row, or when the function fails on a draw.
    """
    n = len(answers.truth)
    if n < 2:
        return {}
    dice = np.random.default_rng(seed)
    try:
        drawn = [call_metric(metric, answers, rows, dice.integers(0, n, n)) for _ in range(REPEATS)]
    except DataError:
        # A metric may be defined for all rows and not for every part of them: it has a value, and nobody knows how sure.
        return {}
    away = _NORMAL_95 * float(np.std(drawn, ddof=1))
    return {metric.name: (value - away, value + away)}
