"""A model whose runs fail is an alert: opened once, kept up to date, closed by a run that ends otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from mulle.core.clock import ReplayClock, instant
from mulle.core.records.base import Cause
from mulle.core.records.run import Run, RunEvent
from mulle.loop.parts import Parts
from mulle.loop.tick import tick
from mulle.loop.views.status import status_view

T0 = instant("2013-03-01T00:00:00Z")
SOURCE = """
rows = ml.Dataset("rows", ml.Files("rows.csv"), key="id")

@ml.features(rows)
def shape(rows):
    return rows.select("x")

m = ml.Model("m", features=shape, target="y", task="regression", retrain=ml.Retrain(on=["drift", "performance"], cooldown="1d"),
    monitor=ml.Monitor(severity={"failed_run": "critical"}))
"""


@pytest.fixture
def parts(opened: Callable[[str], Parts]) -> Parts:
    return replace(opened(SOURCE), clock=ReplayClock(T0))


def ended(parts: Parts, id: str, state: str, reason: str = "") -> None:
    """Record a run an hour after the last one, and how it ended; then let the loop look, twice."""
    assert isinstance(parts.clock, ReplayClock)
    parts.clock.advance(parts.clock.now() + timedelta(hours=1))
    now, why = parts.clock.now(), (Cause(type="person", id="ada", why="asked"),)
    parts.metadata.runs.add(Run(id=id, created_at=now, causes=why, model="m", cutoff=now, code="c"))
    detail = {"reason": reason} if reason else {}
    parts.metadata.runs.add_events(RunEvent(id=id, run=id, at=now, kind="state", name=state, detail=detail))
    for _ in range(2):
        assert tick(parts, drain=lambda: None).wanted == (), "it causes no run"


def told(parts: Parts) -> list[tuple[str, str]]:
    """Each word of the one alert there is: its kind, and the run that it is about."""
    (alert,) = parts.metadata.alerts.list("m")
    return [(event.kind, event.evidence.get("run", "")) for event in parts.metadata.alerts.events(alert.id)]


def test_failed_runs_are_one_alert_until_a_run_ends_otherwise(parts: Parts) -> None:
    ended(parts, "r1", "succeeded")
    assert parts.metadata.alerts.list("m") == []
    ended(parts, "r2", "failed", "search: no trial ended")
    (alert,) = parts.metadata.alerts.list("m", state="open")
    assert (alert.signal, alert.severity, alert.evidence["reason"]) == ("failed_run", "critical", "search: no trial ended")
    assert alert.next == "see `mulle runs show r2`, then `mulle runs resume r2`"
    assert [(cause.type, cause.id) for cause in alert.causes] == [("run", "r2")]
    assert [a["signal"] for a in status_view(parts)["models"][0]["alerts"]] == ["failed_run"]
    ended(parts, "r3", "failed", "ingest: the lake is away")
    ended(parts, "r4", "cancelled")
    assert told(parts) == [("open", "r2"), ("update", "r3")]
    ended(parts, "r5", "rejected", "the champion is better")
    assert told(parts) == [("open", "r2"), ("update", "r3"), ("close", "")]
    assert parts.metadata.alerts.list("m", state="open") == []
    ended(parts, "r6", "failed", "search: no trial ended")
    assert [a.evidence["run"] for a in parts.metadata.alerts.list("m", state="open")] == ["r6"]
