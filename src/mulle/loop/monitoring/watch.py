"""Judges the windows of row time that ended, and opens and closes alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mulle.core.clock import rfc3339
from mulle.core.declare.fleet import key_of
from mulle.core.declare.model import Model
from mulle.core.records.base import Json
from mulle.core.records.window import Alert, Signal, Window
from mulle.lifecycle.monitoring.alerts import alert_changes
from mulle.lifecycle.monitoring.service import service_signals
from mulle.lifecycle.monitoring.window import RECENT, Held, due_by_count, due_windows, judge_window, member_windows
from mulle.loop.monitoring.seen import Happening, bundle_of, estimate_of, in_force, logged_between
from mulle.loop.monitoring.skew import skew_signals
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import answered_times, predictions_between, refused_fields

__all__ = ["judge_windows"]

_MOST_ALERTS = 20_000


def judge_windows(parts: Parts, model: Model, now: datetime) -> tuple[tuple[Alert, ...], list[Happening]]:
    """Judge the windows that ended: first without waiting for labels, once more when mature.

    Returns
    -------
    tuple
        The alerts in force, and what happened.
    """
    said: list[Happening] = []
    for window, before in (*_ended(parts, model, now), *_matured(parts, model, now)):
        parts.metadata.windows.add(window)
        said += _told(parts, model, window, parts.metadata.alerts.list(model.name, state="open"), now, before)
        if model.each is not None and window.mature:
            said += _judge_members(parts, model, window, now)
    return tuple(parts.metadata.alerts.list(model.name, state="open")), said


def _told(
    parts: Parts, model: Model, window: Window, in_force: Sequence[Alert], now: datetime, before: Window | None
) -> list[Happening]:
    said: list[Happening] = []
    changes = alert_changes(model, window, in_force, now, before=before)
    for alert, event in changes.opened:
        parts.metadata.alerts.add(alert, event)
        said.append(("alert", model.name, f"{alert.signal} of {alert.feature or model.name}: {_evidence(alert.evidence)}"))
    about = {alert.id: alert for alert in in_force}
    for event in changes.events:
        parts.metadata.alerts.add_event(event)
        if event.kind == "close":
            alert = about[event.alert]
            said.append(("alert", model.name, f"{alert.signal} of {alert.feature or model.name}: closed"))
    return said


def _judge_members(parts: Parts, model: Model, window: Window, now: datetime) -> list[Happening]:
    """Say of each member with labels in a mature window how it answered, so that an alert names the one that decays."""
    predictions, labels = logged_between(parts, model, window.start, window.end, now)
    found = member_windows(model, predictions, labels, window, now)
    parts.metadata.windows.add_many(found)
    in_force: dict[str, list[Alert]] = {}
    for alert in parts.metadata.alerts.list(state="open", limit=_MOST_ALERTS):
        in_force.setdefault(alert.model, []).append(alert)
    said: list[Happening] = []
    for one in found:
        said += _told(parts, model.member(key_of(one.model)), one, in_force.get(one.model, ()), now, None)
    return said


def _ended(parts: Parts, model: Model, now: datetime) -> list[tuple[Window, Window | None]]:
    last = parts.metadata.windows.last(model.name, mature=False)
    if last is not None and last.end > now:
        parts.metadata.windows.drop(model.name, now)
        last = parts.metadata.windows.last(model.name, mature=False)
    since = last.end if last else parts.metadata.deployments.of(model.name)[0].effective_at
    recent = list(_before(parts, model, since))
    found: list[tuple[Window, Window | None]] = []
    for start, end in _due(parts, model, since, now):
        window = _judge(parts, model, start, end, now, recent[-RECENT:])
        recent.append(window)
        found.append((window, None))
    return found


def _due(parts: Parts, model: Model, since: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
    if not isinstance(model.monitor.window, int):
        return due_windows(model, since=since, now=now)
    times = answered_times(parts.lake, model.name, since, now, members=model.each is not None)
    return due_by_count(model, times, since=since, now=now)


def _before(parts: Parts, model: Model, end: datetime) -> Sequence[Window]:
    start = end - (RECENT + 1) * model.monitor.longest
    return [w for w in parts.metadata.windows.of(model.name, start=start, end=end) if w.end <= end][-RECENT:]


def _matured(parts: Parts, model: Model, now: datetime) -> list[tuple[Window, Window | None]]:
    # Windows judged before their labels were in are judged once more when the declared delay has passed.
    horizon = now - 2 * model.monitor.delay - 2 * model.monitor.longest
    waiting = [
        w for w in parts.metadata.windows.of(model.name, start=horizon) if not w.mature and w.end + model.monitor.delay <= now
    ]
    return [(_judge(parts, model, w.start, w.end, now, _before(parts, model, w.start)), w) for w in waiting]


def _judge(parts: Parts, model: Model, start: datetime, end: datetime, now: datetime, recent: Sequence[Window]) -> Window:
    version = in_force(parts, model.name, end)
    contract, reference = bundle_of(version.address)
    predictions, labels = logged_between(parts, model, start, end, now)
    held = Held(
        reference=reference,
        specs=contract.features,
        classes=contract.classes,
        bundle=version.bundle,
        estimate=estimate_of(version.address),
    )
    return judge_window(
        model,
        predictions=predictions,
        labels=labels,
        held=held,
        start=start,
        end=end,
        now=now,
        recent=recent,
        refused=refused_fields(parts.lake, model.name, start, end),
        further=[*skew_signals(parts, model, version, predictions), *_served(parts, model, start, end)],
    )


def _served(parts: Parts, model: Model, start: datetime, end: datetime) -> list[Signal]:
    if model.monitor.service is None:
        return []
    members = model.each is not None
    return service_signals(model.monitor, predictions_between(parts.lake, model.name, start, end, members=members, refused=True))


def _evidence(evidence: Json) -> str:
    value, bound = evidence.get("value"), evidence.get("bound")
    start = evidence.get("start")
    when = f" in the window of {start if isinstance(start, str) else rfc3339(start)}" if start else ""
    return (
        f"{value:.3g} against {bound:.3g}{when}"
        if isinstance(value, float) and isinstance(bound, (int, float))
        else str(evidence)
    )
