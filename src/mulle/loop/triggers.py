"""What causes the next run: an alarm, new data, the schedule; held back by the cool-down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.errors import DeclarationError
from mulle.core.records.base import Cause
from mulle.core.records.window import Alert
from mulle.lifecycle.monitoring.alerts import kind_of
from mulle.loop.parts import Parts

__all__ = ["cron_due", "due_cause", "due_members", "next_cron"]

_MOST = 1_000


def due_cause(parts: Parts, model: Model, alerts: Sequence[Alert], now: datetime) -> Cause | None:
    """Return why a model should run now, or None.

    Parameters
    ----------
    alerts : sequence of Alert
        In force.

    Returns
    -------
    Cause or None
        Performance before drift before the schedule before new data; None inside the cool-down.
    """
    # Runs of some members alone say nothing of the whole.
    runs = [run for run in parts.metadata.runs.list(model.name, limit=_MOST) if "members" not in run.options]
    last = runs[0].created_at if runs else None
    if last is not None and now - last < model.retrain.cooldown:
        return None
    for wanted in ("performance", "drift"):
        if wanted in model.retrain.on:
            for alert in alerts:
                if kind_of(alert) == wanted:
                    subject = alert.feature or model.name
                    return Cause(type="alert", id=alert.id, why=f"{wanted} alarm: {alert.signal} of {subject}")
    if model.retrain.cron and last is not None and cron_due(model.retrain.cron, last, now):
        return Cause(type="schedule", id=model.retrain.cron, why=f"schedule {model.retrain.cron}")
    if "new_data" in model.retrain.on:
        return _new_data(parts, model, last)
    return None


def due_members(parts: Parts, fleet: Model, now: datetime) -> list[tuple[str, Cause]]:
    """Name the members of a fleet that answer badly enough to be trained again, each with its alert.

    A member rests after each run that was its own, or its fleet's, as its fleet does.
    """
    if "performance" not in fleet.retrain.on:
        return []
    alerts = [a for a in parts.metadata.alerts.list(state="open", limit=_MOST) if fleet_of(a.model) == fleet.name]
    wanted = {a.model: a for a in alerts if key_of(a.model) and kind_of(a) == "performance"}
    runs = parts.metadata.runs.list(fleet.name, limit=_MOST) if wanted else ()
    recent = [run for run in runs if now - run.created_at < fleet.retrain.cooldown]
    resting = {key for run in recent for key in run.options.get("members", ())}
    if any("members" not in run.options for run in recent):
        return []
    return [
        (name, Cause(type="alert", id=alert.id, why=f"performance alarm of {name}"))
        for name, alert in sorted(wanted.items())
        if key_of(name) not in resting
    ]


def _new_data(parts: Parts, model: Model, last: datetime | None) -> Cause | None:
    dataset = model.features.dataset.name
    version = parts.metadata.datasets.get(dataset)
    if version is None or (last is not None and version.created_at <= last):
        return None
    return Cause(type="new_data", id=version.id, why=f"{dataset}@{version.version} brought {version.added} rows")


def cron_due(cron: str, last: datetime, now: datetime) -> bool:
    """Tell whether a schedule's tick lies in ``(last, now]``; many missed ticks count once.

    Examples
    --------
    >>> cron_due("0 4 * * *", datetime(2013, 3, 1, 5, tzinfo=UTC), datetime(2013, 3, 2, 4, tzinfo=UTC))
    True
    """
    upcoming = next_cron(cron, last)
    return upcoming is not None and upcoming <= now


def next_cron(cron: str, after: datetime) -> datetime | None:
    """Return the first instant after `after` that a five-field cron names, in UTC; None within four years.

    Fields take ``*``, numbers, ranges, lists and steps. As in cron, when both day fields are restricted either may
    match (POSIX crontab).
    """
    minutes, hours, days, months, weekdays = _fields(cron)
    free_day, free_weekday = cron.split()[2] == "*", cron.split()[4] == "*"
    day = after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(4 * 366):
        by_day, by_weekday = day.day in days, (day.isoweekday() % 7) in weekdays
        chosen = by_day and by_weekday if free_day or free_weekday else by_day or by_weekday
        if day.month in months and chosen:
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    moment = day.replace(hour=hour, minute=minute)
                    if moment > after:
                        return moment
        day += timedelta(days=1)
    return None


def _fields(cron: str) -> tuple[set[int], ...]:
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    parsed = [_field(text, low, high) for text, (low, high) in zip(cron.split(), bounds, strict=True)]
    parsed[4] = {0 if d == 7 else d for d in parsed[4]}
    return tuple(parsed)


def _field(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        try:
            start = low if span == "*" else int(first)
            end = high if span == "*" or (step and not last) else int(last or first)
            chosen = range(start, end + 1, int(step or 1))
        except ValueError as error:
            raise DeclarationError(
                f"cron field {text!r} cannot be read", next="use numbers, *, ranges, lists and steps"
            ) from error
        if start < low or end > high or not chosen:
            raise DeclarationError(f"cron field {text!r} is outside {low}-{high}", next="mend the schedule")
        values.update(chosen)
    return values
