"""Stage 8, last: a window's alarms become alerts, each opened once, kept up to date, and closed when all is well again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mulle.core.clock import rfc3339
from mulle.core.declare.model import Model
from mulle.core.declare.service import SEVERITIES
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.window import Alert, AlertEvent, Signal, Window
from mulle.lifecycle.monitoring.drift import CALENDAR

__all__ = ["FAILING", "KINDS", "PERFORMANCE", "STUCK", "AlertChanges", "alert_changes", "kind_of"]

PERFORMANCE = "performance"
"""The signal of a performance alert; its feature is empty and the metric stands in its evidence."""

STUCK, FAILING = "rollback", "failed_run"
"""The signals of alerts that no window opens or closes: there is nothing whole to go back to; the last run failed."""

KINDS = {
    **dict.fromkeys(("psi", "js", "wasserstein"), "drift"),
    **dict.fromkeys(("null_rate", "unseen"), "quality"),
    **dict.fromkeys(("errors", "p99"), "service"),
    "skew": "skew",
    PERFORMANCE: PERFORMANCE,
    STUCK: STUCK,
    FAILING: FAILING,
}
"""Signal to what it means for `Retrain(on=...)`."""


@dataclass(frozen=True, slots=True)
class AlertChanges:
    """What one window changes.

    Attributes
    ----------
    opened : tuple of (Alert, AlertEvent)
        New alerts with their opening event.
    events : tuple of AlertEvent
        ``update`` and ``close`` of alerts that were open.
    """

    opened: tuple[tuple[Alert, AlertEvent], ...] = ()
    events: tuple[AlertEvent, ...] = ()


def kind_of(alert: Alert) -> str:
    """Tell what an alert means to retraining: ``drift``, ``quality``, ``service``, ``skew`` or ``performance``."""
    return KINDS.get(alert.signal, "quality")


def alert_changes(
    model: Model, window: Window, open_alerts: Sequence[Alert], now: datetime, *, before: Window | None = None
) -> AlertChanges:
    """Derive what a judged window opens, updates and closes.

    At most one alert is open per signal and feature. A signal that alarms opens it or adds an ``update``; one that
    passes, or is no longer watched, closes it; one that cannot be judged (``too_few``, ``immature``) leaves it as it is.

    Parameters
    ----------
    model : Model
    window : Window
    open_alerts : sequence of Alert
        The model's open ones.
    now : datetime
    before : Window, optional
        The earlier, immature judgement of the same span: then only performance is news, and a late maturity does not
        turn back what younger windows have since said of drift.

    Returns
    -------
    AlertChanges
        Ids derive from model, signal and window, so that deriving them again doubles nothing.
    """
    opened: list[tuple[Alert, AlertEvent]] = []
    events: list[AlertEvent] = []
    mine = [alert for alert in open_alerts if alert.model == model.name and alert.signal not in (STUCK, FAILING)]
    known = {(alert.signal, alert.feature): alert for alert in mine}
    for signal in _news(window, before):
        alert = known.pop((signal.signal, signal.feature), None)
        evidence = _evidence(window, signal)
        if signal.verdict == "alarm" and alert is None:
            opened.append(_open(model, window, signal, evidence, now))
        elif alert is not None and signal.verdict in ("alarm", "pass") and not _opened_by(alert, window):
            events += _further(model, alert, window, signal, evidence, now)
    if before is None and window.signals:
        watched = {(s.signal, s.feature) for s in _news(window, None)} | {(PERFORMANCE, "")}
        for place, alert in known.items():
            if place not in watched:
                events.append(_event(alert, window, "close", {"reason": "no longer watched", **_span(window)}, now))
    return AlertChanges(tuple(opened), tuple(events))


def _news(window: Window, before: Window | None) -> Iterator[Signal]:
    if before is None:
        # What only tells the time is measured and not watched.
        yield from (s for s in window.signals if s.verdict != CALENDAR)
    found = window.performance
    if found is not None and window.mature:
        yield Signal(feature="", signal=PERFORMANCE, value=found.value, bound=found.bound, verdict=found.verdict)


def _opened_by(alert: Alert, window: Window) -> bool:
    # Judged again, the window that opened an alert has nothing to add to it.
    return bool(alert.evidence.get("window", {}).get("id") == window.id)


def _open(model: Model, window: Window, signal: Signal, evidence: Json, now: datetime) -> tuple[Alert, AlertEvent]:
    what = f"{signal.signal} of {signal.feature}" if signal.feature else evidence.get("metric", signal.signal)
    alert = Alert(
        id=derived_id(window.end, "alert", model.name, signal.signal, signal.feature, rfc3339(window.start)),
        created_at=now,
        causes=(Cause(type="window", id=window.id, why=f"{what} is {_figure(signal.value)}, bound {_figure(signal.bound)}"),),
        model=model.name,
        signal=signal.signal,
        feature=signal.feature,
        severity=_severity(model, signal),
        evidence=evidence,
        next=f"mulle monitor {model.name}",
    )
    return alert, _event(alert, window, "open", evidence, now)


def _further(model: Model, alert: Alert, window: Window, signal: Signal, evidence: Json, now: datetime) -> list[AlertEvent]:
    if signal.verdict != "alarm":
        return [_event(alert, window, "close", evidence, now)]
    # That it goes on is written down and told nobody; that it matters more than before is told, once.
    events = [replace(_event(alert, window, "update", evidence, now), tell=False)]
    severity = _severity(model, signal)
    if SEVERITIES.index(severity) > SEVERITIES.index(alert.severity):
        id = derived_id(alert.created_at, "alert_event", alert.id, "rose", severity)
        events.append(AlertEvent(id=id, alert=alert.id, at=now, kind="update", evidence=evidence, severity=severity))
    return events


def _event(alert: Alert, window: Window, kind: str, evidence: Json, now: datetime) -> AlertEvent:
    id = derived_id(window.end, "alert_event", alert.id, kind, window.id)
    return AlertEvent(id=id, alert=alert.id, at=now, kind=kind, evidence=evidence)


def _severity(model: Model, signal: Signal) -> str:
    declared = dict(model.monitor.severity).get(signal.signal)
    if declared is not None:
        return declared
    # Answers that are measured to be bad, or inputs far beyond their bound, cannot wait; the rest asks for a look.
    far = signal.value is not None and signal.bound is not None and signal.value > 2 * signal.bound
    return "critical" if signal.signal == PERFORMANCE or far else "warning"


def _evidence(window: Window, signal: Signal) -> Json:
    evidence: Json = {"value": signal.value, "bound": signal.bound, "rows": window.rows, **_span(window)}
    if signal.signal == PERFORMANCE and window.performance is not None:
        found = window.performance
        evidence |= {"metric": found.metric, "labelled": found.labelled, "labels_share": found.labels_share}
    return evidence


def _span(window: Window) -> Json:
    return {"window": {"id": window.id, "start": rfc3339(window.start), "end": rfc3339(window.end)}}


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
