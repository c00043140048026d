"""Alerts open once, follow what they watch, and close by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

import mulle as ml
from mulle.core.clock import instant
from mulle.core.records.window import Alert, Performance, Signal, Window
from mulle.lifecycle.monitoring.alerts import alert_changes, kind_of

DAY = timedelta(days=1)
START = instant("2013-03-01")


def declared() -> ml.Model:
    trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["y"])

    @ml.features(trips)
    def trip_features(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("x")

    return ml.Model("trip", features=trip_features, target="y", task="regression")


def window(day: int, *, psi: str = "pass", mae: str = "pass", mature: bool = True, value: float = 0.3) -> Window:
    start = START + day * DAY
    return Window(
        id=f"w{day}{'m' if mature else 'i'}",
        created_at=start + DAY,
        causes=(),
        model="trip",
        start=start,
        end=start + DAY,
        rows=500,
        mature=mature,
        versions={"1": 500},
        signals=(Signal(feature="x", signal="psi", value=value, bound=0.2, verdict=psi),),
        performance=Performance(
            metric="mae", value=4.0, labels_share=1.0, labelled=500, never=0, bound=3.0, verdict=mae if mature else "immature"
        ),
    )


def change(seen: Window, alerts: Sequence[Alert] = (), before: Window | None = None):
    return alert_changes(declared(), seen, alerts, seen.end, before=before)


def test_an_alarm_opens_one_alert_with_evidence_and_a_next_step():
    changes = change(window(0, psi="alarm"))
    ((alert, event),) = changes.opened
    assert (alert.signal, alert.feature, alert.severity, kind_of(alert)) == ("psi", "x", "warning", "drift")
    assert (alert.evidence["value"], alert.evidence["bound"]) == (0.3, 0.2)
    assert alert.next == "mulle monitor trip"
    assert (alert.causes[0].type, alert.causes[0].id) == ("window", "w0m")
    assert (event.kind, event.alert) == ("open", alert.id)


def test_the_same_window_again_derives_the_same_alert_and_nothing_new_once_it_is_open():
    changes = change(window(0, psi="alarm"))
    assert change(window(0, psi="alarm")) == changes
    again = change(window(0, psi="alarm"), [changes.opened[0][0]])
    assert (again.opened, again.events) == ((), ())


def test_an_alarm_that_goes_on_updates_and_one_that_ends_closes():
    alert = change(window(0, psi="alarm")).opened[0][0]
    on, off = change(window(1, psi="alarm", value=0.35), [alert]), change(window(1), [alert])
    assert (on.opened, [e.kind for e in on.events], on.events[0].evidence["value"]) == ((), ["update"], 0.35)
    assert (off.opened, [e.kind for e in off.events]) == ((), ["close"])


def test_what_cannot_be_judged_changes_nothing():
    alert = change(window(0, psi="alarm")).opened[0][0]
    assert change(window(1, psi="too_few"), [alert]).events == ()
    assert change(window(1, psi="too_few")).opened == ()


def test_bad_answers_are_critical_and_far_drift_too():
    changes = change(window(0, psi="alarm", value=0.9, mae="alarm"))
    assert {(a.signal, a.severity, kind_of(a)) for a, _ in changes.opened} == {
        ("psi", "critical", "drift"),
        ("performance", "critical", "performance"),
    }
    bad = next(a for a, _ in changes.opened if a.signal == "performance")
    assert bad.evidence["metric"] == "mae"


def test_an_immature_window_says_nothing_of_performance():
    alert = change(window(0, mae="alarm")).opened[0][0]
    assert change(window(1, mature=False), [alert]).events == ()
    assert change(window(1, mae="alarm", mature=False)).opened == ()


def test_late_maturity_brings_performance_and_leaves_drift_to_younger_windows():
    early = window(0, psi="alarm", mature=False)
    late = change(window(0, psi="alarm", mae="alarm"), before=early)
    assert [a.signal for a, _ in late.opened] == ["performance"]
    drift = change(window(1, psi="alarm")).opened[0][0]
    assert change(window(0, psi="pass"), [drift], before=window(0, mature=False)).events == ()


def test_an_alert_on_a_feature_that_is_gone_closes():
    alert = change(window(0, psi="alarm")).opened[0][0]
    other = Alert(
        id="old", created_at=START, causes=(), model="trip", signal="psi", feature="gone", severity="warning"
    )  # fmt: skip
    events = change(window(1, psi="alarm"), [alert, other]).events
    assert {(e.alert, e.kind) for e in events} == {(alert.id, "update"), ("old", "close")}


def test_what_is_measured_and_not_judged_opens_nothing_and_ends_what_an_earlier_bundle_opened():
    alert = change(window(0, psi="alarm")).opened[0][0]
    changes = change(window(1, psi="calendar"), [alert])
    assert ([e.kind for e in changes.events], changes.opened) == (["close"], ())


def test_alerts_of_another_model_are_left_alone():
    other = Alert(id="o", created_at=START, causes=(), model="other", signal="psi", feature="x", severity="warning")
    assert change(window(0), [other]).events == ()
