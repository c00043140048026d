"""A canary is promoted when it is shown to be no worse, held back when it is worse, and never by impatience."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

import mulle as ml
from mulle.core.clock import instant
from mulle.core.errors import UsageError
from mulle.core.records.deployment import Deployment, Route
from mulle.lifecycle.rollout.verdict import Verdict, canary_verdict

START = instant("2013-03-01")
CANARY = ml.canary(5, 25, 100, hold="10m", min_rows=200, max_wait="3d", margin=0.01)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def deployment(share: float = 0.05) -> Deployment:
    return Deployment(
        id="d", created_at=START, causes=(), model="trip", action="canary", effective_at=START, by="loop",
        from_version=1, to_version=2,
        routes=(Route(version=1, share=1 - share, mode="champion"), Route(version=2, share=share, mode="canary")),
    )  # fmt: skip


def pairs(rng: np.random.Generator, n: int, ratio: float, per_cluster: int = 1) -> pl.DataFrame:
    champion = rng.gamma(2.0, 4.0, n)
    challenger = np.maximum(0, champion * ratio + rng.normal(0, 2, n))
    return pl.DataFrame({"cluster": [str(i // per_cluster) for i in range(n)], "champion": champion, "challenger": challenger})


def verdict(losses: pl.DataFrame, waited: timedelta = HOUR, share: float = 0.05) -> Verdict:
    return canary_verdict(CANARY, deployment(share), step_started=START, losses=losses, now=START + waited)


def run(rng: np.random.Generator, ratio: float, days: int = 3) -> str:
    """Look every 50 labels, as the loop does, until the canary ends; return how."""
    losses = pairs(rng, 3000, ratio)
    for seen in range(0, losses.height + 1, 50):
        waited = days * DAY * seen / losses.height
        action = verdict(losses.head(seen), waited, share=0.25).action
        if action != "wait":
            return action
    return "wait"


def test_a_better_challenger_is_nearly_always_promoted():
    rng = np.random.default_rng(7)
    assert sum(run(rng, 0.9) == "promote" for _ in range(40)) >= 39


def test_a_worse_challenger_is_nearly_never_promoted():
    rng = np.random.default_rng(8)
    ends = [run(rng, 1.1) for _ in range(40)]
    assert ends.count("promote") <= 1
    assert ends.count("hold_back") >= 39


def test_two_alike_do_not_end_in_a_verdict_of_worse_by_looking_often():
    rng = np.random.default_rng(9)
    losses = [pairs(rng, 2000, 1.0) for _ in range(60)]
    unbiased = [f.with_columns(challenger=pl.col("champion") + pl.Series(rng.normal(0, 2, f.height))) for f in losses]
    worse = sum(any(verdict(f.head(n)).action == "hold_back" for n in range(200, 2001, 100)) for f in unbiased)
    assert worse <= 5


def test_a_good_canary_steps_and_after_the_last_share_is_promoted():
    losses = pairs(np.random.default_rng(1), 1000, 0.8)
    assert verdict(losses, share=0.05).action == "step"
    assert verdict(losses, share=0.25).action == "promote"


def test_the_hold_is_kept_even_with_all_the_evidence():
    losses = pairs(np.random.default_rng(1), 1000, 0.8)
    early = verdict(losses, waited=timedelta(minutes=9))
    assert early.action == "wait"
    assert "hold" in early.reason


def test_a_challenger_shown_to_be_worse_goes_before_the_hold_is_over():
    found = verdict(pairs(np.random.default_rng(1), 1000, 1.5), waited=timedelta(minutes=1))
    assert found.action == "hold_back"
    assert found.reason.startswith("trip@2 against @1: worse")
    assert found.evidence["low"] > 0


def test_too_few_rows_wait_and_in_the_end_the_champion_stays():
    losses = pairs(np.random.default_rng(1), 150, 0.5)
    assert verdict(losses).action == "wait"
    end = verdict(losses, waited=3 * DAY)
    assert end.action == "hold_back"
    assert "not enough evidence" in end.reason
    assert "150 of 200" in end.reason


def test_many_rows_of_few_keys_are_not_much_evidence():
    losses = pairs(np.random.default_rng(1), 1000, 0.5, per_cluster=100)
    found = verdict(losses)
    assert (found.action, found.evidence["clusters"]) == ("wait", 10)


def test_no_label_at_all_is_waited_for():
    empty = pairs(np.random.default_rng(1), 0, 1.0).cast({"cluster": pl.String})
    found = verdict(empty)
    assert found.action == "wait"
    assert json.loads(json.dumps(found.evidence, allow_nan=False))["rows"] == 0


def test_a_challenger_with_the_very_same_answers_is_no_worse():
    losses = pairs(np.random.default_rng(1), 400, 1.0).with_columns(challenger=pl.col("champion"))
    assert verdict(losses).action == "step"


def test_pairs_that_are_not_finite_are_left_out_and_counted():
    losses = pairs(np.random.default_rng(1), 300, 0.5)
    broken = losses.head(3).with_columns(challenger=pl.Series([float("nan"), float("inf"), None]))
    assert verdict(pl.concat([losses, broken])).evidence["left_out"] == 3


def test_without_a_canary_there_is_no_verdict():
    alone = Deployment(
        id="d", created_at=START, causes=(), model="trip", action="deploy", effective_at=START, by="loop",
        from_version=None, to_version=1, routes=(Route(version=1, share=1.0, mode="champion"),),
    )  # fmt: skip
    with pytest.raises(UsageError):
        canary_verdict(CANARY, alone, step_started=START, losses=pairs(np.random.default_rng(1), 5, 1.0), now=START)
