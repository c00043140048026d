"""Stage 8: which windows of the prediction log are due, and what one of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from mulle.core.clock import EPOCH, rfc3339
from mulle.core.declare.fleet import key_of
from mulle.core.declare.model import Model
from mulle.core.errors import DataError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.window import Signal, Window
from mulle.kernel.histograms import count, count_values
from mulle.lifecycle.monitoring.decode import decode_features, tally
from mulle.lifecycle.monitoring.drift import Seen, reference_for, signals_of
from mulle.lifecycle.monitoring.kept import pack, summed
from mulle.lifecycle.monitoring.outcomes import answered, with_outcomes
from mulle.lifecycle.monitoring.performance import expected_metric, is_mature, judge_performance, judge_slices

__all__ = ["Held", "RECENT", "due_by_count", "due_windows", "judge_window", "member_windows"]

RECENT = 6
"""Windows before the present one that are looked at with it: a week of days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a window is held against: what a bundle says of itself.

    Attributes
    ----------
    reference : Json
        Histograms of the version in force at the window's end.
    specs : tuple of FeatureSpec
    classes : tuple of str
        Of a classifier, in the contract's order.
    bundle : str
        Its hash.
    estimate : Json or None
        What `mulle.kernel.estimate` learned on the holdout.
    """

    reference: Json
    specs: Sequence[FeatureSpec]
    classes: Sequence[str] = ()
    bundle: str = ""
    estimate: Json | None = None


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
    length = model.monitor.longest
    last = (now - EPOCH) // length
    first = last - 1 if since is None else (since - EPOCH) // length
    return [(EPOCH + n * length, EPOCH + (n + 1) * length) for n in range(first, last)]


def due_by_count(model: Model, times: pl.Series, *, since: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
    """Cut windows of so many answered rows, oldest first; one that lasts too long ends with fewer.

    Parameters
    ----------
    model : Model
        Its `monitor.window` is a number of rows.
    times : polars.Series
        Times of the rows answered from `since` on, in any order.
    since : datetime
        Where the first window starts.
    now : datetime

    Returns
    -------
    list of (start, end)
        Rows of one time are never parted, so a window may have a few more.
    """
    rows = model.monitor.window if isinstance(model.monitor.window, int) else 0
    left, found, start = times.filter((times >= since) & (times < now)).sort(), [], since
    while rows:
        latest = start + model.monitor.longest
        full = left[rows - 1] + timedelta(microseconds=1) if left.len() >= rows else latest
        end = min(full, latest)
        if end > now:
            break
        found.append((start, end))
        left, start = left.filter(left >= end), end
    return found


def judge_window(
    model: Model,
    *,
    predictions: pl.DataFrame,
    labels: pl.DataFrame,
    held: Held,
    start: datetime,
    end: datetime,
    now: datetime,
    features: pl.DataFrame | None = None,
    recent: Sequence[Window] = (),
    refused: Mapping[str, int] | None = None,
    further: Sequence[Signal] = (),
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
    held : Held
    start, end : datetime
        By row time; the start belongs to the window, the end does not.
    now : datetime
    features : polars.DataFrame, optional
        The decoded features, row by row with `predictions`; read from their JSON text when not given.
    recent : sequence of Window
        Those right before it; the last `RECENT` of the same bundle are looked at together with it.
    refused : dict, optional
        Field to rows that were refused for it.
    further : sequence of Signal
        What was judged elsewhere of the same span.
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
    inputs = given["_features"].struct.unnest() if features is not None else decode_features(given["features"], held.specs)
    counted = _counted(inputs, given["value"], held.reference)
    against, name = _reference(model, held, start + (end - start) / 2)
    seen = _with_recent(Seen(counted=counted, unseen=_unseen(given), refused=refused or {}), held, recent, name)
    mature = is_mature(model, outcomes, end, now)
    told = judge_performance(model, outcomes, mature=mature, classes=held.classes)
    told = replace(told, estimate=expected_metric(model, told.metric, given, inputs, held.specs, held.estimate))
    return Window(
        id=_id(model.name, start, end, mature),
        created_at=now,
        causes=tuple(causes),
        model=model.name, start=start, end=end, rows=given.height, mature=mature, versions=_versions(given),
        signals=(*signals_of(model.monitor, seen, against), *further),
        performance=told,
        slices=judge_slices(model, outcomes, mature=mature, classes=held.classes),
        reference=name,
        bundle=held.bundle,
        histograms=pack(counted),
    )  # fmt: skip


def _counted(inputs: pl.DataFrame, answers: pl.Series, reference: Json) -> Json:
    return {**count(inputs, reference), "prediction": count_values(answers, reference["prediction"])}


def _with_recent(seen: Seen, held: Held, recent: Sequence[Window], name: str) -> Seen:
    # What a season's part is like says nothing of the days between.
    if name != "training":
        return seen
    before = [w for w in recent if w.bundle == held.bundle and w.reference == name and w.histograms][-RECENT:]
    return replace(seen, recent=summed(before, held.reference), before=len(before))


def _id(model: str, start: datetime, end: datetime, mature: bool) -> str:
    return derived_id(end, "window", model, rfc3339(start), rfc3339(end), "mature" if mature else "immature")


def _unseen(rows: pl.DataFrame) -> dict[str, int]:
    return tally(rows["unseen"]) if "unseen" in rows.columns else {}


def _versions(rows: pl.DataFrame) -> dict[str, int]:
    counts = rows["version"].value_counts().sort("version")
    return {str(version): int(n) for version, n in counts.rows()}


def _reference(model: Model, held: Held, middle: datetime) -> tuple[Json, str]:
    declared = model.monitor.reference
    part = middle.month if declared == "same_month" else middle.isoweekday()
    return reference_for(held.reference, declared, part, model.monitor.min_rows)


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
        found.append(
            replace(
                window,
                id=_id(member.name, window.start, window.end, True),
                model=member.name,
                rows=rows.height,
                versions=_versions(rows),
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
