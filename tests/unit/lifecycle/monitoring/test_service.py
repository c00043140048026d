"""Failed requests and slow answers of a window against their bounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

import mulle as ml
from mulle.core.clock import instant
from mulle.core.errors import DeclarationError
from mulle.core.records.window import Signal, Window
from mulle.lifecycle.monitoring.alerts import alert_changes, kind_of
from mulle.lifecycle.monitoring.service import service_signals

START = instant("2013-03-01")


def rows(count: int, *, seconds: float = 0.01, per: int = 1) -> list[dict[str, object]]:
    """Answered rows, `per` of them in a request."""
    return [
        {
            "id": f"p{n}",
            "request": f"r{n // per}{f'.{n % per}' if n % per else ''}",
            "route": "champion",
            "seconds": seconds,
            "error": None,
        }
        for n in range(count)
    ]


def refused(count: int, kind: str, seconds: float = 0.5) -> list[dict[str, object]]:
    named = f"{kind}{seconds}"
    return [
        {"id": f"{named}-{n}", "request": f"{named}-{n}", "route": "refused", "seconds": seconds, "error": kind}
        for n in range(count)
    ]


def judged(logged: list[dict[str, object]], **bounds: object) -> dict[str, tuple[float | None, str]]:
    monitor = ml.Monitor(service=ml.service(**bounds), min_rows=100)
    frame = pl.DataFrame(logged, infer_schema_length=None)
    return {s.signal: (s.value, s.verdict) for s in service_signals(monitor, frame)}


def test_without_bounds_nothing_is_judged():
    assert service_signals(ml.Monitor(), pl.DataFrame(rows(10))) == []
    assert service_signals(ml.Monitor(service=ml.service()), pl.DataFrame()) == []


def test_what_callers_and_challengers_do_wrong_is_no_failure_of_the_service():
    logged = [*rows(198), *refused(500, "schema"), *refused(50, "transform", 0.0), *refused(2, "unavailable")]
    assert judged(logged, errors=0.01) == {"errors": (0.01, "pass")}
    assert judged([*logged, *refused(1, "internal")], errors=0.01)["errors"][1] == "alarm"


def test_a_request_of_several_rows_fails_as_a_whole():
    assert judged([*rows(900, per=10), *refused(10, "internal")], errors=0.05) == {"errors": (0.1, "alarm")}


def test_slow_answers_alarm_and_few_rows_say_nothing():
    slow = rows(1000)
    for row in slow[:11]:
        row["seconds"] = 0.9
    assert judged(slow, errors=None, p99="500ms") == {"p99": (0.9, "alarm")}
    assert judged(slow, errors=None, p99="1s") == {"p99": (0.9, "pass")}
    assert judged(slow[:50], errors=0.01, p99="1ms") == {"errors": (0.0, "too_few"), "p99": (0.9, "too_few")}
    assert judged(refused(3, "schema"), errors=0.01, p99="1s") == {"errors": (None, "too_few"), "p99": (None, "too_few")}


def declared(**monitor: object) -> ml.Model:
    trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["y"])

    @ml.features(trips)
    def trip_features(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("x")

    return ml.Model("trip", features=trip_features, target="y", task="regression", monitor=ml.Monitor(**monitor))


def window(day: int, *signals: Signal) -> Window:
    start = START + timedelta(days=day)
    return Window(
        id=f"w{day}", created_at=start, causes=(), model="trip", start=start, end=start + timedelta(days=1), rows=500,
        mature=False, versions={}, signals=signals, performance=None,
    )  # fmt: skip


def signal(value: float, verdict: str = "alarm", name: str = "errors") -> Signal:
    return Signal(feature="", signal=name, value=value, bound=0.01, verdict=verdict)


def test_a_service_alert_opens_gets_worse_once_and_closes():
    model = declared()
    ((alert, opened),) = alert_changes(model, window(0, signal(0.015)), (), START).opened
    assert (alert.signal, alert.severity, kind_of(alert), opened.tell) == ("errors", "warning", "service", True)
    assert alert.causes[0].why == "errors is 0.015, bound 0.01"
    same = alert_changes(model, window(1, signal(0.016)), (alert,), START).events
    assert [(e.kind, e.tell, e.severity) for e in same] == [("update", False, "")]
    worse = alert_changes(model, window(2, signal(0.05)), (alert,), START).events
    assert [(e.kind, e.tell, e.severity) for e in worse] == [("update", False, ""), ("update", True, "critical")]
    again = alert_changes(model, window(3, signal(0.06)), (alert,), START).events
    assert again[1].id == worse[1].id, "that it rose is told once"
    assert again[0].id != worse[0].id
    (closed,) = alert_changes(model, window(4, signal(0.0, "pass")), (alert,), START).events
    assert (closed.kind, closed.tell) == ("close", True)


def test_how_much_an_alert_matters_may_be_declared():
    model = declared(severity={"errors": "info", "p99": "critical"})
    changes = alert_changes(model, window(0, signal(0.9), signal(0.011, name="p99")), (), START)
    assert {a.signal: a.severity for a, _ in changes.opened} == {"errors": "info", "p99": "critical"}
    alert = replace(changes.opened[0][0], severity="info")
    assert len(alert_changes(model, window(1, signal(0.9)), (alert,), START).events) == 1
    with pytest.raises(DeclarationError, match="severity of psi"):
        ml.Monitor(severity={"psi": "loud"})
    with pytest.raises(DeclarationError, match="share of errors"):
        ml.service(errors=2)
