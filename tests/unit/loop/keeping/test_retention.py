"""The log is kept as long as its model says, and longer where a window or a canary still waits for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from mulle.core.clock import ReplayClock, instant
from mulle.core.declare.log import Log
from mulle.core.declare.project import Project
from mulle.core.errors import DeclarationError
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.loop.keeping.retention import gc_view, kept_from

LATER = instant("2014-06-01T00:00:00Z")


def with_log(home, log, now=LATER):
    """Give the home's parts with another declaration of the log, at another time."""
    models = dict(home.parts.project.models)
    declared = models["air-time"]
    model = object.__new__(type(declared))
    for name in type(declared).__slots__:
        object.__setattr__(model, name, log if name == "log" else getattr(declared, name))
    models["air-time"] = model
    fields = {n: getattr(home.parts.project, n) for n in Project.__slots__}
    return replace(home.parts, project=Project(**{**fields, "models": models}), clock=ReplayClock(now)), model


def rows(parts, table):
    return parts.lake.scan(table).select(pl.len()).collect().item()


def settled(parts):
    """End the canary, so that nobody compares its rows any more, and let its window be followed by one of today."""
    from mulle.core.records.deployment import Deployment, Route
    from mulle.core.records.window import Window

    at = instant("2013-04-01")
    parts.metadata.deployments.add(
        Deployment(
            id="deployment-3", created_at=at, causes=(), model="air-time", action="promote", effective_at=at, by="loop",
            from_version=1, to_version=2, routes=(Route(version=2, share=1.0, mode="champion"),),
        )
    )  # fmt: skip
    start = LATER - timedelta(days=2)
    parts.metadata.windows.add(
        Window(
            id="w2", created_at=LATER, causes=(), model="air-time", start=start, end=start + timedelta(days=1), rows=0,
            mature=True, versions={}, signals=(), performance=None,
        )
    )  # fmt: skip


def test_nothing_goes_where_nothing_is_declared(home):
    parts, model = with_log(home, Log())
    assert kept_from(parts, model, LATER) is None
    assert gc_view(parts, dry_run=False)["items"] == []
    assert rows(parts, PREDICTIONS) == 3


def test_a_dry_run_names_what_would_go_and_a_run_removes_it(home):
    parts, _ = with_log(home, Log(keep="400d"))
    settled(parts)
    planned = gc_view(parts, dry_run=True)
    assert [(i["kind"], i["rows"]) for i in planned["items"]] == [("predictions", 3), ("labels", 1)]
    assert all(i["bytes"] > 0 and "400 days" in i["why"] and i["address"].endswith("day=2013-03-02") for i in planned["items"])
    assert (planned["removed"], rows(parts, PREDICTIONS)) == (False, 3)
    done = gc_view(parts, dry_run=False)
    assert done["items"] == planned["items"]
    assert (rows(parts, PREDICTIONS), rows(parts, LABELS)) == (0, 0)
    assert gc_view(parts, dry_run=True)["items"] == []


def test_what_staging_logged_is_kept_no_longer(home):
    parts, _ = with_log(home, Log(keep="400d"))
    settled(parts)
    staged = f"{PREDICTIONS}_staging"
    parts.lake.append(staged, parts.lake.scan(PREDICTIONS).collect(), application="test", sequence=1, partition_by=["day"])
    assert [(i["kind"], i["rows"]) for i in gc_view(parts, dry_run=True)["items"] if i["kind"] == staged] == [(staged, 3)]
    gc_view(parts, dry_run=False)
    assert rows(parts, staged) == 0


def test_other_models_rows_stay(home):
    parts, _ = with_log(home, Log(keep="400d"))
    settled(parts)
    mine = parts.lake.scan(PREDICTIONS).collect()
    parts.lake.append(PREDICTIONS, mine.with_columns(model=pl.lit("idle"), id=pl.col("id") + "x"), application="o", sequence=1)
    gc_view(parts, dry_run=False)
    assert parts.lake.scan(PREDICTIONS).collect()["model"].unique().to_list() == ["idle"]


def test_labels_that_name_no_model_are_kept_as_long_as_any_model_keeps_its_own(home):
    parts, _ = with_log(home, Log(keep="400d"))
    settled(parts)
    told = parts.lake.scan(LABELS).collect().with_columns(model=pl.lit(""), id=pl.col("id") + "x")
    parts.lake.append(LABELS, told, application="o", sequence=1)
    gone = [(i["kind"], i["model"]) for i in gc_view(parts, dry_run=True)["items"]]
    others = [name for name in parts.project.models if name != "air-time"]
    assert (("labels", "") in gone) == (not others)
    only = replace(parts, project=Project(**{
        **{n: getattr(parts.project, n) for n in Project.__slots__}, "models": {"air-time": parts.project.models["air-time"]}
    }))  # fmt: skip
    assert ("labels", "") in [(i["kind"], i["model"]) for i in gc_view(only, dry_run=False)["items"]]
    assert rows(only, LABELS) == 0


def test_a_members_rows_go_with_the_declaration_also_when_it_is_a_fleet_no_more(home):
    parts, _ = with_log(home, Log(keep="400d"))
    settled(parts)
    mine = parts.lake.scan(PREDICTIONS).collect()
    member = mine.with_columns(model=pl.lit("air-time/UA"), id=pl.col("id") + "x")
    parts.lake.append(PREDICTIONS, member, application="o", sequence=1)
    gone = {i["model"] for i in gc_view(parts, dry_run=False)["items"] if i["kind"] == "predictions"}
    assert gone == {"air-time", "air-time/UA"}
    assert rows(parts, PREDICTIONS) == 0


def test_what_a_canary_compares_stays_however_old(home):
    parts, model = with_log(home, Log(keep="10d"))
    assert kept_from(parts, model, LATER) <= instant("2013-03-02T06:00:00Z")
    assert gc_view(parts, dry_run=True)["items"] == []


def test_rows_of_a_window_that_is_not_mature_stay(home):
    now = instant("2013-03-03T06:00:00Z")
    parts, model = with_log(home, Log(keep="1h"), now)
    since = kept_from(parts, model, now)
    assert since <= now - model.monitor.delay - model.monitor.window
    assert gc_view(parts, dry_run=True)["items"] == []


def test_what_cannot_be_declared_is_refused():
    for sample in (0.0, 1.5, -1.0):
        with pytest.raises(DeclarationError, match="is no share"):
            Log(sample=sample)
