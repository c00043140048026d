"""What the log says of two versions: who fails, who is slow, and whose answers differ; each said seldom by mistake."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

import mulle as ml
from mulle.core.clock import instant
from mulle.lifecycle.rollout.service import Service, fault_in, weigh_service
from mulle.lifecycle.serving.rows import PREDICTION_SCHEMA

START = instant("2013-03-01")
CANARY = ml.canary(5, 100, errors=0.01, slower=2.0)


def rows(version: int, route: str, count: int, *, seconds: float = 0.001, batch: int = 1, values: object = None) -> pl.DataFrame:
    """Give so many rows of the log, `batch` of them at once."""
    at = [START + timedelta(seconds=n // batch) for n in range(count)]
    told = {
        "request": [f"r{n}" for n in range(count)], "version": [version] * count, "route": [route] * count, "created_at": at,
        "time": at, "seconds": [seconds] * count, "value": [str(v) for v in (range(count) if values is None else values)],
    }  # fmt: skip
    return pl.DataFrame(told, schema_overrides={"created_at": PREDICTION_SCHEMA["created_at"]}).with_columns(
        pl.lit(None, pl.String).alias("error")
    )


def refused(version: int | None, count: int, kind: str, seconds: float) -> pl.DataFrame:
    told = rows(0, "refused", count, seconds=seconds)
    return told.with_columns(
        version=pl.lit(version, pl.Int64),
        error=pl.lit(kind),
        request=pl.lit("f") + pl.col("request"),
        value=pl.lit(None, pl.String),
    )


def weigh(*frames: pl.DataFrame, judged: int = 2, other: int = 1, leads: bool = False, numeric: bool = True) -> Service:
    return weigh_service(CANARY, pl.concat(frames), judged=judged, other=other, leads=leads, numeric=numeric)


def test_two_that_serve_alike_are_sound():
    found = weigh(rows(1, "champion", 300, batch=3), rows(2, "canary", 300, batch=3))
    assert (found.rows, found.batches, found.errors, found.timed, found.slow) == (300, 100, 0, 100, 0)
    assert found.answers == 0.0
    assert found.seconds["judged"] == found.seconds["other"] == {"p50": 0.001, "p99": 0.001}
    assert fault_in(CANARY, found) == ""


def test_a_challenger_that_fails_is_told_by_kind_and_a_trial_by_hand_is_not_its_fault():
    by_hand = refused(2, 50, "schema", seconds=0.002)  # somebody forced it with rows that break the contract
    found = weigh(rows(1, "champion", 100), rows(2, "shadow", 95), refused(2, 5, "transform", seconds=0.0), by_hand)
    assert (found.batches, found.errors, found.kinds) == (100, 5, {"transform": 5})
    assert fault_in(CANARY, found).startswith("errors: it failed 5 of 100 batches (5 transform)")


def test_what_callers_do_wrong_is_not_the_champions_fault():
    callers = refused(None, 50, "schema", seconds=0.001)
    found = weigh(rows(2, "champion", 100), rows(1, "shadow", 100), callers, leads=True)
    assert (found.errors, fault_in(CANARY, found)) == (0, "")
    own = weigh(rows(2, "champion", 100), rows(1, "shadow", 100), callers, refused(None, 9, "internal", 0.001), leads=True)
    assert own.kinds == {"internal": 9}
    assert fault_in(CANARY, own)


def test_slow_is_told_from_batches_and_not_from_rows():
    once = weigh(rows(1, "champion", 400, batch=400), rows(2, "canary", 400, batch=400, seconds=0.01))
    assert (once.timed, fault_in(CANARY, once)) == (1, "")
    often = weigh(rows(1, "champion", 40), rows(2, "canary", 40, seconds=0.01))
    assert fault_in(CANARY, often).startswith(
        "slower: 40 of 40 batches took it more than 2 times as long (middle 10 ms against 1 ms)"
    )


def test_a_few_times_nothing_is_not_slow():
    swift = weigh(rows(1, "champion", 400, seconds=0.0002), rows(2, "shadow", 400, seconds=0.0015))
    assert (swift.slow, fault_in(CANARY, swift)) == (0, "")


def test_answers_that_differ_are_measured_for_numbers_and_classes():
    assert weigh(rows(1, "champion", 300), rows(2, "canary", 300, values=range(150, 450))).answers > 0.5
    assert weigh(
        rows(1, "champion", 300, values=["a"] * 300), rows(2, "canary", 300, values=["b"] * 150 + ["a"] * 150), numeric=False
    ).answers > 0.5  # fmt: skip


@pytest.mark.parametrize(("errors", "slow"), [(0.01, 0.0), (0.0, 0.5)])
def test_looking_often_at_a_version_within_its_bounds_seldom_condemns_it(errors, slow):
    rng = np.random.default_rng(3)
    condemned = 0
    for _ in range(300):
        failed, late = (np.cumsum(rng.random(1500) < rate) for rate in (errors, slow))
        seconds = {side: {"p50": 0.1} for side in ("judged", "other")}
        looks = [(n, int(failed[n - 1]), int(late[n - 1])) for n in range(10, 1501, 10)]
        condemned += any(
            fault_in(CANARY, Service(batches=n, errors=bad, timed=n, slow=over, seconds=seconds)) for n, bad, over in looks
        )
    assert condemned / 300 <= CANARY.alpha


def test_an_empty_log_says_nothing():
    assert weigh_service(CANARY, pl.DataFrame(), judged=2, other=1, leads=False, numeric=True) == Service()
    assert fault_in(CANARY, Service()) == ""
