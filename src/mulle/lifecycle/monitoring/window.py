"""Stage 8: which windows of the prediction log are due, and what one of them says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import polars as pl

from mulle.core.clock import EPOCH, rfc3339
from mulle.core.declare.fleet import key_of
from mulle.core.declare.model import Model
from mulle.core.errors import DataError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.window import Window
from mulle.lifecycle.monitoring.drift import decode_features, drift_signals, quality_signals
from mulle.lifecycle.monitoring.outcomes import answered, with_outcomes
from mulle.lifecycle.monitoring.performance import is_mature, judge_performance

__all__ = ["due_windows", "judge_window", "member_windows"]


def due_windows(model: Model, *, since: datetime | None, now: datetime) -> list[tuple[datetime, datetime]]:
    """List the windows that have ended, oldest first.

    Windows lie side by side on a grid of the declared length, counted from the UTC epoch, so that replicas and replays
    cut the same ones.

    Parameters
    ----------
    model : Model
    since : datetime or None
        The first window is the one that holds this instant: the end of the last mature window, or the first
        deployment. None asks for the last ended window only.
    now : datetime

    Returns
    -------
    list of (start, end)
        Empty when the window that holds `since` has not ended.
    """
    length = model.monitor.window
    last = (now - EPOCH) // length
    first = last - 1 if since is None else (since - EPOCH) // length
    return [(EPOCH + n * length, EPOCH + (n + 1) * length) for n in range(first, last)]


def judge_window(
    model: Model,
    *,
    predictions: pl.DataFrame,
    labels: pl.DataFrame,
    reference: Json,
    specs: Sequence[FeatureSpec],
    start: datetime,
    end: datetime,
    now: datetime,
    features: pl.DataFrame | None = None,
    classes: Sequence[str] = (),
    causes: Sequence[Cause] = (),
) -> Window:
    """Judge one window: drift, quality, and performance as far as labels are in.

    Parameters
    ----------
    model : Model
    predictions : polars.DataFrame
        Rows of the lake's table of predictions, of this model; rows outside the window and shadow scores are left out
        here.
    labels : polars.DataFrame
        Rows of the lake's table of labels, of this model; those known after `now` are not looked at.
    reference : Json
        The reference histograms of the version in force at the window's end.
    specs : sequence of FeatureSpec
        That version's features.
    start, end : datetime
        By row time; the start belongs to the window, the end does not.
    now : datetime
    features : polars.DataFrame, optional
        The decoded features, row by row with `predictions`; read from their JSON text when not given.
    classes : sequence of str
        Of a classifier, in the contract's order.
    causes : sequence of Cause
        For example the deployment that answered.

    Returns
    -------
    Window
        Its id is the same for every judgement of the same span with the same maturity, so repeating one doubles nothing.

    Raises
    ------
    DataError
        When `features` has another height than `predictions`.
    """
    given = _rows(predictions, features, start, end)
    outcomes = with_outcomes(given.drop("_features", strict=False), labels, now)
    mature = is_mature(model, outcomes, end, now)
    inputs = decode_features(given["features"], specs) if features is None else given["_features"].struct.unnest()
    unseen = given["unseen"] if "unseen" in given.columns else pl.Series([None] * given.height, dtype=pl.String)
    signals = (
        *drift_signals(model.monitor, inputs, given["value"], reference),
        *quality_signals(model.monitor, inputs, unseen, reference),
    )
    tally = given["version"].value_counts().sort("version")
    return Window(
        id=derived_id(end, "window", model.name, rfc3339(start), rfc3339(end), "mature" if mature else "immature"),
        created_at=now,
        causes=tuple(causes),
        model=model.name,
        start=start,
        end=end,
        rows=given.height,
        mature=mature,
        versions={str(v): int(n) for v, n in tally.rows()},
        signals=signals,
        performance=judge_performance(model, outcomes, mature=mature, classes=classes),
    )


def member_windows(fleet: Model, predictions: pl.DataFrame, labels: pl.DataFrame, window: Window, now: datetime) -> list[Window]:
    """Judge how each member of a fleet answered in a mature window, by one reading; those with enough labels only.

    Parameters
    ----------
    fleet : Model
    predictions, labels : polars.DataFrame
        Of all its members, as `judge_window` takes them.
    window : Window
        The fleet's own of the same span.
    now : datetime

    Returns
    -------
    list of Window
        By name; without signals: drift is the whole fleet's.
    """
    outcomes = with_outcomes(_rows(predictions, None, window.start, window.end), labels, now)
    if "model" not in outcomes.columns:
        return []
    found = []
    members = outcomes.filter(pl.col("model").str.starts_with(f"{fleet.name}/"))
    for (name,), rows in sorted(members.partition_by("model", as_dict=True).items()):
        member = fleet.member(key_of(str(name)))
        if int(rows["labelled"].sum()) < member.monitor.min_rows:
            continue
        tally = rows["version"].value_counts().sort("version")
        found.append(
            replace(
                window,
                id=derived_id(window.end, "window", member.name, rfc3339(window.start), rfc3339(window.end), "mature"),
                model=member.name,
                rows=rows.height,
                versions={str(v): int(n) for v, n in tally.rows()},
                signals=(),
                performance=judge_performance(member, rows, mature=True),
            )
        )
    return found


def _rows(predictions: pl.DataFrame, features: pl.DataFrame | None, start: datetime, end: datetime) -> pl.DataFrame:
    if features is not None:
        if features.height != predictions.height:
            raise DataError(
                f"{predictions.height} predictions came with {features.height} rows of features", next="give them row by row"
            )
        predictions = predictions.with_columns(features.to_struct("_features"))
    return answered(predictions).filter((pl.col("time") >= start) & (pl.col("time") < end))
