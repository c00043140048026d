"""What causes the next run, and what holds it back: the cool-down and the runs of a day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.errors import NotFound
from mulle.core.records.base import Cause
from mulle.core.records.deployment import champion_of, current
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.run import FINAL, Run
from mulle.core.records.window import Alert
from mulle.kernel.project import release_of
from mulle.lifecycle.monitoring.alerts import kind_of
from mulle.loop.monitoring.cron import last_cron
from mulle.loop.parts import Parts

__all__ = ["Rest", "due_cause", "due_members", "longest_search", "rest_of", "rests_until"]

_MOST = 1_000

_PATIENT = 3
"""So many runs in a row that were no better than the champion widen the cool-down."""

_WIDEST = 16
"""At most so many times."""

_ALERTS = ("performance", "service", "skew", "drift")
"""Kinds of alerts that may cause a run, the most pressing first."""


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a model rests between two runs that the loop causes.

    Attributes
    ----------
    span : timedelta
        The cool-down in force.
    in_vain : int
        Runs in a row, the last ones, that were no better than the champion.
    """

    span: timedelta
    in_vain: int


def due_cause(parts: Parts, model: Model, alerts: Sequence[Alert], now: datetime) -> Cause | None:
    """Return why a model should run now, or None.

    Parameters
    ----------
    alerts : sequence of Alert
        In force.

    Returns
    -------
    Cause or None
        Alerts first (performance, service, skew, drift), then the schedule, new data, labels, an upstream model and a
        release; None inside the cool-down, or when the model has had its runs of the day.
    """
    runs, retrain = _runs(parts, model), model.retrain
    # What a clock that was ahead has dated does not tell how long ago it was.
    past = [run for run in runs if run.created_at <= now]
    last = past[0] if past else None
    if retrain.per_day is not None and len([r for r in past if _caused(r) and now - r.created_at < _DAY]) >= retrain.per_day:
        return None
    if last is not None and now - last.created_at < retrain.cooldown and not _on_schedule(model, last, now):
        return None
    cause = next(_causes(parts, model, alerts, runs, last, now), None)
    if cause is None or last is None:
        return cause
    # Looked up last: that a run would be in vain is asked only where there is a reason for one.
    rest = rest_of(parts, model, runs).span
    rested = now - last.created_at >= rest or (cause.type == "schedule" and _on_schedule(model, last, now, rest))
    return cause if rested else None


_DAY = timedelta(days=1)


def longest_search(model: Model, run: Run) -> timedelta:
    """Tell how long a run's search may take: what is declared for it, and of a run that the loop caused its budget at most."""
    timeout, budget = model.search.timeout, model.retrain.budget
    return timeout if budget is None or not _caused(run) else min(timeout, budget)


def rest_of(parts: Parts, model: Model, runs: Sequence[Run] | None = None) -> Rest:
    """Tell how long a model rests, for runs that found nothing better make it rest longer.

    Parameters
    ----------
    runs : sequence of Run, optional
        The model's, newest first.
    """
    in_vain = 0
    for better in _verdicts(parts, model.name, _runs(parts, model) if runs is None else runs):
        if better:
            break
        in_vain += 1
    wider = min(_WIDEST, 2 ** (in_vain - _PATIENT + 1)) if in_vain >= _PATIENT else 1
    return Rest(model.retrain.cooldown * wider, in_vain)


def rests_until(parts: Parts, model: Model, rest: Rest, now: datetime) -> tuple[datetime, str] | None:
    """Tell until when the loop causes no run of a model for an alert, and what holds it; None where nothing does."""
    past = [run for run in _runs(parts, model) if run.created_at <= now]
    ends = [(run.created_at + rest.span, f"the cool-down of {rest.span}") for run in past[:1]]
    per_day = model.retrain.per_day
    today = [run for run in past if _caused(run) and now - run.created_at < _DAY]
    if per_day is not None and len(today) >= per_day:
        ends.append((today[per_day - 1].created_at + _DAY, f"per_day={per_day}"))
    return max((end for end in ends if end[0] > now), default=None)


def _verdicts(parts: Parts, model: str, runs: Sequence[Run]) -> Iterator[bool]:
    """Tell of each run that came to a verdict, newest first, whether it was better than the champion."""
    held_back = {d.to_version for d in parts.metadata.deployments.of(model) if d.action == "hold_back"}
    states = parts.metadata.runs.states([run.id for run in runs])
    for run in runs:
        if states.get(run.id) not in FINAL:
            continue
        version = parts.metadata.models.of_run(run.id)
        against = [g for g in parts.metadata.runs.gates(run.id) if g.gate.startswith("no_worse_than_champion")]
        if version is not None:
            # Trained on the same rows again it is the champion once more, which every gate lets pass.
            alike = bool(against) and all(g.value is not None and g.value == g.bound for g in against)
            yield version.version not in held_back and not alike
        elif any(g.verdict != "pass" for g in against):
            yield False


def _runs(parts: Parts, model: Model) -> list[Run]:
    # Runs of some members alone say nothing of the whole.
    return [run for run in parts.metadata.runs.list(model.name, limit=_MOST) if "members" not in run.options]


def _caused(run: Run) -> bool:
    return all(cause.type not in ("person", "api") for cause in run.causes)


def _causes(
    parts: Parts, model: Model, alerts: Sequence[Alert], runs: Sequence[Run], last: Run | None, now: datetime
) -> Iterator[Cause]:
    retrain = model.retrain
    # Inside the cool-down nothing but the schedule, which has its own, gets as far as here.
    resting = last is not None and now - last.created_at < retrain.cooldown
    if not resting:
        yield from _alerted(model, alerts)
    if retrain.cron and last is not None and last_cron(retrain.cron, now, last.created_at, retrain.timezone) is not None:
        yield Cause(type="schedule", id=retrain.cron, why=f"schedule {retrain.cron} {retrain.timezone}")
    if resting:
        return
    if "new_data" in retrain.on:
        yield from _new_data(parts, model, runs, last, now)
    if last is not None:
        yield from _labelled(parts, model, last)
        yield from _upstream(parts, model, last, now)
        yield from _released(parts, model, last)


def _on_schedule(model: Model, last: Run, now: datetime, rest: timedelta | None = None) -> bool:
    """Tell whether a tick of the schedule is due that lies a whole cool-down after the one that caused the last run.

    A daily tick is a day after the one before on its own clock, also where the day has 23 hours, and also where the last
    run began some seconds after its tick.
    """
    retrain = model.retrain
    if retrain.cron is None or all(cause.type != "schedule" for cause in last.causes):
        return False
    upcoming = last_cron(retrain.cron, now, last.created_at, retrain.timezone)
    before = last_cron(retrain.cron, last.created_at, last.created_at - timedelta(days=366), retrain.timezone)
    if upcoming is None or before is None:
        return False
    return _local(upcoming, retrain.timezone) - _local(before, retrain.timezone) >= (rest or retrain.cooldown)


def _local(at: datetime, timezone: str) -> datetime:
    return at.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)


def _alerted(model: Model, alerts: Sequence[Alert]) -> Iterator[Cause]:
    for wanted in _ALERTS:
        for alert in alerts if wanted in model.retrain.on else ():
            if kind_of(alert) == wanted:
                subject = alert.feature or model.name
                yield Cause(type="alert", id=alert.id, why=f"{wanted} alarm: {alert.signal} of {subject}")


def _new_data(parts: Parts, model: Model, runs: Sequence[Run], last: Run | None, now: datetime) -> Iterator[Cause]:
    dataset, retrain = model.features.dataset.name, model.retrain
    newest = parts.metadata.datasets.get(dataset)
    if newest is None:
        return
    versions = parts.metadata.datasets.versions(dataset, limit=_MOST) if last is not None else [newest]
    # Whatever its date, what a run has read is not new.
    read = _read(parts, runs[0], dataset) if runs else None
    fresh = [v for v in versions if last is None or (v.version > read if read is not None else v.created_at > last.created_at)]
    rows = sum(v.added for v in fresh)
    old = last is None or (retrain.max_age is not None and now - last.created_at >= retrain.max_age)
    free = retrain.new_rows is None and retrain.max_age is None
    if fresh and (free or old or (retrain.new_rows is not None and rows >= retrain.new_rows)):
        several = f"{dataset}@{newest.version} brought {rows} rows"
        aged = f", and the last run is older than {retrain.max_age}" if old and retrain.max_age and last is not None else ""
        yield Cause(type="new_data", id=newest.id, why=several + aged)


def _read(parts: Parts, run: Run, dataset: str) -> int | None:
    """Tell which version of a dataset a run has read; None when it came to none."""
    told = [event.detail.get("data", {}) for event in parts.metadata.runs.events(run.id) if event.kind == "data"]
    return next((int(data[dataset]) for data in told if dataset in data), None)


def _labelled(parts: Parts, model: Model, last: Run) -> Iterator[Cause]:
    wanted = model.retrain.new_labels
    if wanted is None:
        return
    try:
        told = parts.lake.scan(LABELS).filter((pl.col("created_at") > last.created_at) & pl.col("value").is_not_null())
        whole = pl.col("model").str.split("/").list.first() == model.name
        # One that names a prediction may leave the model out; told by prediction, by key, or both, a row counts once.
        by_key = told.filter(whole & pl.col("prediction_id").is_null()).select("key_text", "time")
        asked = parts.lake.scan(PREDICTIONS).filter(whole).select("id", "time", pl.col("key_text").fill_null(pl.col("id")))
        named = told.filter(pl.col("prediction_id").is_not_null()).select("prediction_id")
        by_id = asked.join(named, left_on="id", right_on="prediction_id", how="semi").select("key_text", "time")
        count = pl.concat([by_key, by_id]).unique().select(pl.len()).collect().item()
    except NotFound:
        return
    if count >= wanted:
        yield Cause(type="labels", id=model.name, why=f"{count} labels came since the last run, {wanted} are waited for")


def _upstream(parts: Parts, model: Model, last: Run, now: datetime) -> Iterator[Cause]:
    for name in model.retrain.after:
        history = parts.metadata.deployments.of(name)
        present = current(history, now)
        version = champion_of(present)
        if present is not None and version is not None and version != champion_of(current(history, last.created_at)):
            yield Cause(type="deployment", id=present.id, why=f"upstream model {name}@{version} answers now")


def _released(parts: Parts, model: Model, last: Run) -> Iterator[Cause]:
    if "release" not in model.retrain.on:
        return
    if last.code != parts.project.code:
        yield Cause(type="release", id=parts.project.code, why=f"the project's code is {parts.project.code}, was {last.code}")
    release = release_of(parts.settings.project)
    if last.release and last.release != release:
        yield Cause(type="release", id=release, why=f"Mulle and lock files are {release}, were {last.release}")


def due_members(parts: Parts, fleet: Model, now: datetime) -> list[tuple[str, Cause]]:
    """Name the members of a fleet that answer badly enough to be trained again, each with its alert.

    A member rests after each run that was its own, or its fleet's, as its fleet does.
    """
    if "performance" not in fleet.retrain.on:
        return []
    alerts = [a for a in parts.metadata.alerts.list(state="open", limit=_MOST) if fleet_of(a.model) == fleet.name]
    wanted = {a.model: a for a in alerts if key_of(a.model) and kind_of(a) == "performance"}
    runs = parts.metadata.runs.list(fleet.name, limit=_MOST) if wanted else ()
    recent = [run for run in runs if timedelta(0) <= now - run.created_at < fleet.retrain.cooldown]
    resting = {key for run in recent for key in run.options.get("members", ())}
    if any("members" not in run.options for run in recent):
        return []
    return [
        (name, Cause(type="alert", id=alert.id, why=f"performance alarm of {name}"))
        for name, alert in sorted(wanted.items())
        if key_of(name) not in resting
    ]
