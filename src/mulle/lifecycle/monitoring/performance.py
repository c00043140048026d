"""Stage 8, performance: what late labels say of a window, and whether enough of them are in to judge it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from mulle.core.declare.gates import AtLeast
from mulle.core.declare.model import Model
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.window import Performance, Slice
from mulle.kernel.encode import encode
from mulle.kernel.estimate import expected_loss, expected_of_classes
from mulle.kernel.metrics import measure
from mulle.lifecycle.monitoring.decode import decode_rows

__all__ = ["ENOUGH", "expected_metric", "is_mature", "judge_performance", "judge_slices", "labels_share"]

ENOUGH = 0.98
"""Share of the labels that can still come with which a window is mature before its delay has passed."""

_VALUES = 50

_SAMPLE = 20_000
"""Rows that an estimate is taken over, evenly spaced."""


def labels_share(outcomes: pl.DataFrame) -> float:
    """Return labelled rows over rows whose label can still come, 0 to 1.

    Where every row is known to stay without a label the share is 1: nothing is outstanding.

    Parameters
    ----------
    outcomes : polars.DataFrame
        What `with_outcomes` gave.
    """
    possible = outcomes.height - int(outcomes["never"].sum())
    if not possible:
        return 1.0 if outcomes.height else 0.0
    return int(outcomes["labelled"].sum()) / possible


def is_mature(model: Model, outcomes: pl.DataFrame, end: datetime, now: datetime) -> bool:
    """Tell whether a window may be judged: its end has passed and its delay too, or nearly all labels are in.

    Parameters
    ----------
    model : Model
    outcomes : polars.DataFrame
        What `with_outcomes` gave for the window's answered rows.
    end, now : datetime
    """
    return now >= end + model.monitor.delay or (now >= end and labels_share(outcomes) >= ENOUGH)


def judge_performance(model: Model, outcomes: pl.DataFrame, *, mature: bool, classes: Sequence[str] = ()) -> Performance:
    """Measure the labelled rows and hold the metric against its declared bound.

    Parameters
    ----------
    model : Model
        Its `monitor.performance` names metric and bound; without it the model's own metric is measured, unbounded.
    outcomes : polars.DataFrame
        Predictions with ``truth``, ``labelled`` and ``never``.
    mature : bool
    classes : sequence of str
        Of a classifier; by default those that the probabilities name, sorted.

    Returns
    -------
    Performance
        `verdict` is ``immature``, ``too_few`` (fewer labelled rows than `monitor.min_rows`), ``pass`` or ``alarm``;
        an immature window carries its value so far all the same.
    """
    declared = model.monitor.performance
    metric = declared.metric if declared else model.metric
    bound = float(declared.bound) if declared else None
    labelled = outcomes.filter("labelled")
    value = _measure(model, metric, labelled, classes) if labelled.height else None
    if not mature:
        verdict = "immature"
    elif value is None or labelled.height < model.monitor.min_rows:
        verdict = "too_few"
    elif bound is None:
        verdict = "pass"
    else:
        outside = value < bound if isinstance(declared, AtLeast) else value > bound
        verdict = "alarm" if outside or not np.isfinite(value) else "pass"
    return Performance(
        metric=metric,
        value=value,
        labels_share=labels_share(outcomes),
        labelled=labelled.height,
        never=int(outcomes["never"].sum()),
        bound=bound,
        verdict=verdict,
    )


def judge_slices(model: Model, outcomes: pl.DataFrame, *, mature: bool, classes: Sequence[str] = ()) -> tuple[Slice, ...]:
    """Measure the labelled rows by each value of the raw columns that `Monitor.slices` names.

    Parameters
    ----------
    model, outcomes, mature, classes
        As for `judge_performance`; the rows' raw columns are in ``row``, JSON texts.

    Returns
    -------
    tuple of Slice
        By column and value; of each column the `_VALUES` most frequent. Null is told as an empty text.
    """
    columns = model.monitor.slices
    if not columns or not outcomes.height or "row" not in outcomes.columns:
        return ()
    found = []
    raw = decode_rows(outcomes["row"], columns)
    for column in columns:
        values = raw[column].fill_null("")
        named = values.value_counts().sort(["count", values.name], descending=[True, False])[values.name].head(_VALUES)
        for value in sorted(named.to_list()):
            rows = outcomes.filter(values == value)
            told = judge_performance(model, rows, mature=mature, classes=classes)
            found.append(Slice(column=column, value=value, rows=rows.height, performance=told))
    return tuple(found)


def expected_metric(
    model: Model, metric: str, answers: pl.DataFrame, features: pl.DataFrame, specs: Sequence[FeatureSpec], estimate: Json | None
) -> float | None:
    """Estimate a metric from answers and features alone, before any label is in.

    Classifiers by their confidence, regression by a model of its loss; both are in the bundle, learned on the holdout (see
    `mulle.kernel.estimate`).

    Parameters
    ----------
    model : Model
    metric : str
    answers : polars.DataFrame, shape (rows, ...)
        ``value`` and, of classifiers, ``probabilities``.
    features : polars.DataFrame, shape (rows, features)
    specs : sequence of FeatureSpec
    estimate : Json or None
        What the bundle has learned.

    Returns
    -------
    float or None
        None without rows, or where nothing was learned for this metric.
    """
    if estimate is None or not answers.height:
        return None
    if model.task != "regression":
        _, probabilities = _probabilities(answers, estimate["classes"])
        return None if probabilities is None else expected_of_classes(metric, model.task, probabilities, estimate)
    if estimate["metric"] != metric:
        return None
    step = -(-answers.height // _SAMPLE)
    values = answers["value"].gather_every(step).cast(pl.Float64, strict=False).to_numpy()
    return expected_loss(encode(features.gather_every(step), specs), values, estimate)


def _measure(model: Model, metric: str, labelled: pl.DataFrame, classes: Sequence[str]) -> float:
    if model.task == "regression":
        truth = labelled["truth"].cast(pl.Float64).to_numpy()
        values = labelled["value"].cast(pl.Float64).to_numpy()
        return float(measure([metric], model.task, truth, values)[metric])
    answers = labelled["value"].cast(pl.String).to_numpy()
    found, probabilities = _probabilities(labelled, classes)
    return float(measure([metric], model.task, labelled["truth"].to_numpy(), answers, probabilities, found)[metric])


def _probabilities(labelled: pl.DataFrame, classes: Sequence[str]) -> tuple[Sequence[str], NDArray[np.float64] | None]:
    if "probabilities" not in labelled.columns:
        return classes, None
    rows = [orjson.loads(text) if text else {} for text in labelled["probabilities"].to_list()]
    found = list(classes) or sorted({name for row in rows for name in row})
    if not all(rows):
        return found, None
    return found, np.array([[row.get(name, 0.0) for name in found] for row in rows], dtype=np.float64)
