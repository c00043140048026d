"""Alerts on a model whose runs fail: no window sees that, and a model that cannot be trained again decays unseen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mulle.core.declare.model import Model
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.run import Run
from mulle.core.records.window import Alert, AlertEvent
from mulle.lifecycle.monitoring.alerts import FAILING
from mulle.loop.monitoring.seen import Happening
from mulle.loop.parts import Parts

__all__ = ["watch_runs"]

_RECENT = 5
_ENDS = ("succeeded", "rejected", "failed")
"""What says whether a model can be trained; a run that was cancelled says nothing."""


def watch_runs(parts: Parts, model: Model, now: datetime) -> list[Happening]:
    """Open an alert when a model's last run failed, keep it up to date while more do, and close it when one ends otherwise.

    Parameters
    ----------
    parts : Parts
    model : Model
    now : datetime
        When what is opened or closed here happens.

    Returns
    -------
    list
        What happened: nothing while things stay as they are.
    """
    recent = parts.metadata.runs.list(model.name, limit=_RECENT)
    states = parts.metadata.runs.states([run.id for run in recent])
    ended = next((run for run in recent if states[run.id] in _ENDS), None)
    if ended is None:
        return []
    failed = states[ended.id] == "failed"
    known = next((a for a in parts.metadata.alerts.list(model.name, state="open") if a.signal == FAILING), None)
    if failed and known is None:
        return _open(parts, model, ended, now)
    if known is not None and not failed:
        why = {"reason": f"run {ended.id} {states[ended.id]}"}
        parts.metadata.alerts.add_event(_event(known, "close", ended, why, now))
        return [("alert", model.name, f"{FAILING} of {model.name}: closed")]
    if known is not None and parts.metadata.alerts.events(known.id)[-1].evidence.get("run") != ended.id:
        parts.metadata.alerts.add_event(_event(known, "update", ended, _evidence(parts, ended), now))
    return []


def _open(parts: Parts, model: Model, run: Run, now: datetime) -> list[Happening]:
    evidence = _evidence(parts, run)
    alert = Alert(
        id=derived_id(run.created_at, "alert", run.model, FAILING, run.id), created_at=now, model=run.model, signal=FAILING,
        causes=(Cause(type="run", id=run.id, why=f"it failed: {evidence['reason']}"),), feature="",
        severity=dict(model.monitor.severity).get(FAILING, "warning"),
        evidence=evidence, next=f"see `mulle runs show {run.id}`, then `mulle runs resume {run.id}`",
    )  # fmt: skip
    parts.metadata.alerts.add(alert, _event(alert, "open", run, evidence, now))
    return [("alert", run.model, f"{FAILING} of {run.model}: {evidence['reason']}")]


def _evidence(parts: Parts, run: Run) -> dict[str, str]:
    said: Sequence[str] = [e.detail.get("reason", "") for e in parts.metadata.runs.events(run.id) if e.name == "failed"]
    return {"run": run.id, "reason": said[-1] if said else ""}


def _event(alert: Alert, kind: str, run: Run, evidence: dict[str, str], now: datetime) -> AlertEvent:
    id = derived_id(run.created_at, "alert_event", alert.id, kind, run.id)
    return AlertEvent(id=id, alert=alert.id, at=now, kind=kind, evidence=evidence)
