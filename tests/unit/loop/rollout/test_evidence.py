"""What is read back of the log for those who judge a model."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from mulle.core.clock import instant
from mulle.core.records.prediction import ASIDE, LABELS, PREDICTIONS
from mulle.lifecycle.monitoring.outcomes import answered, with_outcomes
from mulle.loop.rollout.evidence import labels_between, predictions_between
from mulle.loop.views.status import traffic

START, END = instant("2013-01-01T00:00:00Z"), instant("2014-01-01T00:00:00Z")


def test_a_label_that_names_a_prediction_counts_though_it_names_no_model(home):
    lake = home.parts.lake
    rows = predictions_between(lake, "air-time", START, END)
    told = lake.scan(LABELS).collect().head(1)
    id = rows["id"][-1]
    lake.append(LABELS, told.with_columns(
        id=pl.lit("by-id"), model=pl.lit(""), prediction_id=pl.lit(id),
        key=pl.lit(None, pl.String), key_text=pl.lit(None, pl.String), value=pl.lit("77.5"),
    ), application="later", sequence=1)  # fmt: skip
    known = labels_between(lake, "air-time", START, END)
    judged = with_outcomes(rows, known, END)
    assert judged.filter(pl.col("id") == id)["truth"].to_list() == ["77.5"]


def test_trials_and_shadows_are_no_part_of_how_a_model_stands(home):
    lake = home.parts.lake
    rows = predictions_between(lake, "air-time", START, END).head(1)
    counted = traffic(home.parts, span=timedelta(days=10_000))["air-time"]
    kept = answered(predictions_between(lake, "air-time", START, END)).height
    for route in ASIDE:
        extra = rows.with_columns(id=pl.lit(f"extra-{route}"), route=pl.lit(route))
        lake.append(PREDICTIONS, extra, application=f"later-{route}", sequence=1)
    assert traffic(home.parts, span=timedelta(days=10_000))["air-time"] == counted
    every = predictions_between(lake, "air-time", START, END)
    assert answered(every).height == kept
    assert {"extra-forced", "extra-pinned", "extra-shadow"} <= set(every["id"])
