"""Causes of a run, and what holds one back; on records and tables of a real home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest

import mulle as ml
from mulle.core.clock import ReplayClock, instant
from mulle.core.errors import DeclarationError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.model import ModelVersion
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.run import GateResult, Run, RunEvent
from mulle.core.records.window import Alert, AlertEvent
from mulle.kernel.project import release_of
from mulle.loop.monitoring.triggers import Rest, due_cause, longest_search, rest_of
from mulle.loop.parts import Parts
from mulle.loop.views.status import status_view

T0 = instant("2013-03-01T00:00:00Z")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SOURCE = """
rows = ml.Dataset("rows", ml.Files("rows.parquet"), key="id", time="at", outcome=["y"])


@ml.features(rows)
def shape(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("x")


up = ml.Model("up", features=shape, target="y", task="regression")
m = ml.Model("m", features=shape, target="y", task="regression", retrain=ml.Retrain({retrain}))
"""

World = Callable[[str], "Home"]


class Home:
    """A project with one model, and words to make its past."""

    def __init__(self, parts: Parts) -> None:
        self.clock = ReplayClock(T0)
        self.parts = replace(parts, clock=self.clock)
        self.runs = 0

    def run(
        self, at: datetime, state: str = "succeeded", cause: str = "schedule", *, gate: str | None = None,
        read: int | None = None, version: bool = False, code: str | None = None, release: str = "", model: str = "m",
    ) -> str:  # fmt: skip
        self.runs += 1
        id, store = f"run-{self.runs:03}", self.parts.metadata
        store.runs.add(
            Run(id=id, created_at=at, causes=(Cause(type=cause, id="c", why="w"),), model=model, cutoff=at,
                code=code or self.parts.project.code, release=release)
        )  # fmt: skip
        store.runs.add_events(RunEvent(id=derived_id(at, id, state), run=id, at=at, kind="state", name=state))
        if read is not None:
            data = RunEvent(
                id=derived_id(at, id, "data"), run=id, at=at, kind="data", name="publish", detail={"data": {"rows": read}}
            )
            store.runs.add_events(data)
        if gate:
            name = "no_worse_than_champion(mae)"
            store.runs.add_gates(id, [GateResult(gate=name, metric="mae", value=1.0, bound=1.0, verdict=gate, reason="")])
        if version:
            store.models.add(
                ModelVersion(id=id, created_at=at, causes=(), model=model, version=0, run=id, bundle="b", address="/b",
                             compiled="onnx", parity=None, metrics={}, size_bytes=1, features=("x",), data={}, data_cutoff=at,
                             refit_cutoff=at)
            )  # fmt: skip
        return id

    def data(self, version: int, at: datetime, added: int = 10) -> None:
        self.parts.metadata.datasets.add(
            DatasetVersion(id=f"d{version}", created_at=at, causes=(), dataset="rows", version=version, rows=100, added=added,
                           hash="h", schema={}, table="data/rows", lake_version=version, positions={}, checks=())
        )  # fmt: skip

    def deployed(self, model: str, version: int, at: datetime, action: str = "deploy", champion: int | None = None) -> None:
        self.parts.metadata.deployments.add(
            Deployment(id=f"{model}{version}{action}", created_at=at, causes=(), model=model, environment="production",
                       action=action, effective_at=at, by="ada", from_version=None, to_version=version,
                       routes=(Route(version=champion or version, share=1.0, mode="champion"),))
        )  # fmt: skip

    def due(self, at: datetime, *signals: str) -> Cause | None:
        self.clock.advance(at)
        alerts = [
            Alert(id=f"a-{s}", created_at=at, causes=(), model="m", signal=s, feature="x", severity="warning") for s in signals
        ]
        return due_cause(self.parts, self.parts.project.models["m"], alerts, at)

    def cause(self, at: datetime, *signals: str) -> str | None:
        found = self.due(at, *signals)
        return None if found is None else found.type


@pytest.fixture
def world(opened: Callable[..., Parts]) -> World:
    return lambda retrain: Home(opened(SOURCE.format(retrain=retrain)))


def test_alerts_cause_a_run_when_they_are_declared_to(world):
    home = world('on=["skew", "drift", "performance", "service"], cooldown="1d"')
    home.run(T0)
    at = T0 + DAY
    assert home.cause(at, "null_rate") is None
    assert home.due(at, "psi", "skew", "performance").why == "performance alarm: performance of x"
    assert home.due(at, "psi", "skew", "p99").why == "service alarm: p99 of x"
    assert home.due(at, "js", "skew").why == "skew alarm: skew of x"
    assert home.due(at, "wasserstein").why == "drift alarm: wasserstein of x"
    assert home.cause(at - HOUR, "psi") is None, "inside the cool-down"
    assert world('on=["performance"]').cause(T0, "skew", "psi") is None


def test_rows_that_the_last_run_has_read_are_not_new(world):
    home = world('on=["new_data"], cooldown="0s"')
    home.data(1, T0)
    home.run(T0 - HOUR, read=1)
    # The run itself brought version 1, after it had begun.
    assert home.cause(T0 + DAY) is None
    home.data(2, T0 + DAY)
    assert home.due(T0 + DAY).why == "rows@2 brought 10 rows"
    home.run(T0 + DAY, "rejected")
    assert home.cause(T0 + 2 * DAY) is None, "a run that came to no data counts from its beginning"


def test_new_data_wait_for_enough_rows_or_for_the_last_run_to_be_old(world):
    home = world('on=[], new_rows=100, max_age="30d", cooldown="0s"')
    home.data(1, T0)
    home.run(T0, read=1)
    assert home.cause(T0 + 31 * DAY) is None, "nothing is new, old as the model is"
    home.data(2, T0 + DAY, 60)
    assert home.cause(T0 + 29 * DAY) is None
    assert "older than 30 days" in home.due(T0 + 30 * DAY).why
    home.data(3, T0 + 2 * DAY, 40)
    assert home.due(T0 + 29 * DAY).why == "rows@3 brought 100 rows"


def test_labels_are_counted_since_the_last_run(world):
    home = world('on=[], new_labels=3, cooldown="0s"')
    home.run(T0)
    assert home.cause(T0 + DAY) is None, "no label was ever told"
    at = T0 + HOUR

    def label(model: str, named: str, value: str | None = "1.0", when: datetime = at) -> dict[str, object]:
        by_id, by_key = (named, None) if named.startswith("p") else (None, named)
        return {
            "model": model, "prediction_id": by_id, "key_text": by_key, "time": None if by_id else T0, "value": value,
            "created_at": when,
        }  # fmt: skip

    told = [label("m", "a"), label("m/x", "b"), label("other", "c"), label("", "p1"), label("", "p9"), label("m", "d", None)]
    kept = pl.DataFrame([*told, label("m", "e", when=T0 - HOUR)], infer_schema_length=None)
    home.parts.lake.append(LABELS, kept.head(3), application="t", sequence=1)
    asked = {"id": ["p1", "p9"], "model": ["m", "else"], "key_text": ["f", "f"], "time": [T0, T0]}
    home.parts.lake.append(PREDICTIONS, pl.DataFrame(asked), application="t", sequence=1)
    assert home.cause(T0 + DAY) is None
    again = pl.DataFrame([label("m", "a", "2.0"), label("m", "a")], infer_schema_length=None)
    home.parts.lake.append(LABELS, again.cast(kept.schema), application="t", sequence=2)
    assert home.cause(T0 + DAY) is None, "what is told again, or corrected, is one label"
    home.parts.lake.append(LABELS, kept.tail(4), application="t", sequence=3)
    twice = pl.DataFrame([label("m", "p1"), label("m", "f")], infer_schema_length=None)
    home.parts.lake.append(LABELS, twice.cast(kept.schema), application="t", sequence=4)
    assert home.due(T0 + DAY).why == "3 labels came since the last run, 3 are waited for", "by prediction and by key it is one"


def test_a_new_champion_upstream_causes_a_run(world):
    home = world('on=[], after="up", cooldown="0s"')
    home.deployed("up", 1, T0 - DAY)
    home.run(T0)
    assert home.cause(T0 + HOUR) is None
    home.deployed("up", 2, T0 + HOUR, "canary", champion=1)
    assert home.cause(T0 + 2 * HOUR) is None, "a canary is no champion yet"
    home.deployed("up", 2, T0 + 3 * HOUR, "promote")
    assert home.due(T0 + 3 * HOUR).why == "upstream model up@2 answers now"
    home.run(T0 + 4 * HOUR)
    assert home.cause(T0 + 5 * HOUR) is None


def test_a_release_of_code_or_of_what_it_runs_on_causes_a_run(world):
    home = world('on=["release"], cooldown="0s"')
    folder = home.parts.settings.project
    home.run(T0, release=release_of(folder))
    assert home.cause(T0 + HOUR) is None
    (folder / "requirements.lock").write_text("polars==2.0")
    assert home.cause(T0 + HOUR) == "release"
    home.run(T0 + HOUR, code="0ther", release=release_of(folder))
    assert "was 0ther" in home.due(T0 + 2 * HOUR).why


def test_a_day_has_its_most_runs_and_those_of_people_do_not_count(world):
    home = world('on=["drift"], cooldown="0s", per_day=2')
    for hours, cause in ((1, "alert"), (2, "person"), (3, "api"), (4, "alert")):
        home.run(T0 + hours * HOUR, cause=cause)
    assert home.cause(T0 + 5 * HOUR, "psi") is None
    assert home.cause(T0 + 25 * HOUR, "psi") == "alert"


def test_a_daily_schedule_runs_daily_also_where_a_day_is_short(world):
    home = world('cron="0 4 * * *", timezone="Europe/Berlin", on=[], cooldown="1d"')
    home.run(instant("2026-03-28T03:00:09Z"))
    assert home.cause(instant("2026-03-29T01:59:59Z")) is None
    assert home.cause(instant("2026-03-29T02:00:05Z")) == "schedule", "23 hours later it is 4 o'clock again"
    home.run(instant("2026-03-29T02:00:05Z"))
    assert home.cause(instant("2026-03-29T02:00:06Z")) is None
    assert home.cause(instant("2026-03-30T02:00:01Z")) == "schedule"


def test_after_downtime_a_schedule_is_caught_up_once(world):
    home = world('cron="*/10 * * * *", on=[], cooldown="0s"')
    home.run(T0)
    at = T0 + 90 * DAY + timedelta(seconds=1)
    assert home.cause(at) == "schedule"
    home.run(at)
    assert home.cause(at + timedelta(minutes=9)) is None
    assert home.cause(at + timedelta(minutes=10)) == "schedule"


def test_what_a_clock_that_was_ahead_has_dated_holds_nothing_back(world):
    home = world('on=["performance", "new_data"], cron="0 4 * * *", cooldown="1d", per_day=1')
    home.data(1, T0)
    home.run(T0 - DAY, read=1)
    home.data(2, T0 + 40 * DAY)
    home.run(T0 + 40 * DAY, read=2)
    # The clock is right again, 40 days before the last run.
    at = T0 + 2 * HOUR
    assert home.cause(at, "performance") == "alert"
    assert home.cause(at + DAY) == "schedule"
    home.run(at + DAY, read=2)
    assert home.cause(at + DAY + HOUR, "performance") is None, "runs of now count from now"


def test_what_a_run_of_the_future_has_read_is_not_new(world):
    home = world('on=["new_data"], cooldown="1d"')
    home.data(1, T0)
    home.run(T0 - 2 * DAY, read=1)
    home.data(2, T0 + 40 * DAY)
    home.run(T0 + 40 * DAY, read=2)
    assert home.cause(T0) is None


def test_runs_in_vain_widen_the_cooldown_and_a_better_one_resets_it(world):
    home = world('on=["drift"], cooldown="1d"')
    model = home.parts.project.models["m"]
    home.run(T0 - 9 * DAY, version=True)
    spans = []
    for number in range(8):
        home.run(T0 - 8 * DAY + number * DAY, "rejected", gate="fail")
        spans.append(rest_of(home.parts, model).span.days)
    assert spans == [1, 1, 2, 4, 8, 16, 16, 16]
    assert rest_of(home.parts, model).in_vain == 8
    last = T0 - DAY
    assert home.cause(last + 15 * DAY, "psi") is None
    assert home.cause(last + 16 * DAY, "psi") == "alert"
    home.run(last + 16 * DAY, "failed")
    assert rest_of(home.parts, model).in_vain == 8, "a run that fell over says nothing"
    home.run(last + 17 * DAY, version=True)
    assert rest_of(home.parts, model) == type(rest_of(home.parts, model))(DAY, 0)
    assert home.cause(last + 18 * DAY, "psi") == "alert"


def test_a_version_that_its_canary_held_back_was_no_better(world):
    home = world('on=["drift"], cooldown="1d"')
    home.deployed("m", 1, T0 - DAY)
    for number in range(2, 5):
        home.run(T0 + number * DAY, version=True)
        home.deployed("m", number - 1, T0 + number * DAY + HOUR, "hold_back", champion=9)
    assert rest_of(home.parts, home.parts.project.models["m"]).in_vain == 3


def test_a_version_that_is_the_champion_once_more_was_no_better(world):
    home = world('on=["drift"], cooldown="1d"')
    for number in range(3):
        home.run(T0 + number * DAY, version=True, gate="pass")
    assert rest_of(home.parts, home.parts.project.models["m"]) == Rest(2 * DAY, 3)
    home.run(T0 + 3 * DAY, version=True)
    assert rest_of(home.parts, home.parts.project.models["m"]).in_vain == 0


def test_the_widened_cooldown_holds_a_schedule_too(world):
    home = world('cron="0 4 * * *", on=[], cooldown="1d"')
    for number in range(4):
        home.run(T0 + number * DAY + 4 * HOUR, "rejected", gate="fail")
    last = T0 + 3 * DAY + 4 * HOUR
    assert [home.cause(last + n * DAY + timedelta(seconds=1)) for n in (1, 3, 4)] == [None, None, "schedule"]


def test_a_budget_bounds_the_search_of_what_the_loop_causes_alone(world):
    home = world('budget="10s"')
    model = home.parts.project.models["m"]
    runs = home.parts.metadata.runs
    for cause, seconds in (("alert", 10), ("schedule", 10), ("person", 60), ("api", 60)):
        assert longest_search(model, runs.get(home.run(T0, cause=cause))).total_seconds() == seconds
    assert longest_search(home.parts.project.models["up"], runs.get(home.run(T0, model="up"))).total_seconds() == 60


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timezone": "Europe/Nowhere"}, "timezone"),
        ({"new_rows": 0}, "new_rows"),
        ({"per_day": -1}, "per_day"),
        ({"after": ["x"]}, ""),
    ],
)
def test_what_cannot_be_is_refused(given, said, opened):
    if said:
        with pytest.raises(DeclarationError, match=said):
            ml.Retrain(**given)
        return
    with pytest.raises(DeclarationError, match="'nobody'"):
        opened(SOURCE.format(retrain='after="nobody"'))
    with pytest.raises(DeclarationError, match="m after m"):
        opened(SOURCE.format(retrain='after="m"'), "circle")


def test_status_says_that_the_cooldown_is_wider_and_when_the_schedule_is_next(world):
    home = world('cron="30 2 * * *", timezone="Europe/Berlin", cooldown="1d"')
    for number in range(4):
        home.run(T0 + number * DAY, "rejected", gate="fail")
    home.clock.advance(instant("2013-03-31T00:00:00Z"))
    told = next(m for m in status_view(home.parts)["models"] if m["model"] == "m")
    assert "the last 4 runs were no better, so the cool-down is 4 days" in told["says"]
    assert (told["cooldown"], told["next_run"]) == (4 * 86400, "2013-03-31T01:00:00Z")
    home.run(home.clock.now(), version=True)
    told = next(m for m in status_view(home.parts)["models"] if m["model"] == "m")
    assert "no better" not in told["says"]
    assert told["cooldown"] == 86400


def test_status_says_until_when_an_open_alert_causes_no_run(world):
    home = world('on=["drift"], cooldown="6h", per_day=2')
    window = Cause(type="window", id="w", why="psi of x is 0.3")
    alert = Alert(id="a", created_at=T0, causes=(window,), model="m", signal="psi", feature="x", severity="warning")

    def told(at):
        home.clock.advance(at)
        return next(m for m in status_view(home.parts)["models"] if m["model"] == "m")

    home.run(T0)
    assert told(T0 + HOUR)["rests_until"] == "2013-03-01T06:00:00Z"
    assert "cause no run" not in told(T0 + HOUR)["says"], "nothing would"
    opened = AlertEvent(id="e", alert="a", at=T0, kind="open")
    home.parts.metadata.alerts.add(alert, opened)
    assert "alerts cause no run before 2013-03-01 06:00:00, for the cool-down of 6:00:00" in told(T0 + HOUR)["says"]
    assert told(T0 + 7 * HOUR)["rests_until"] is None
    home.run(T0 + 7 * HOUR)
    assert "alerts cause no run before 2013-03-02 00:00:00, for per_day=2" in told(T0 + 8 * HOUR)["says"]
