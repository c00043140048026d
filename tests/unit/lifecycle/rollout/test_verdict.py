"""A canary is promoted when it is shown to be no worse, held back when it is worse, and never by impatience."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

import mulle as ml
from mulle.core.clock import instant
from mulle.core.declare.rollout import Rollout
from mulle.core.errors import DeclarationError, UsageError
from mulle.core.records.deployment import Deployment, Route
from mulle.kernel.sequential import confidence_sequence
from mulle.lifecycle.rollout.service import Service
from mulle.lifecycle.rollout.verdict import Verdict, canary_verdict, watch_verdict

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


def test_declared_so_a_version_without_enough_evidence_is_released_unless_something_speaks_against_it():
    def asked(losses: pl.DataFrame, service: Service | None = None, waited: timedelta = 3 * DAY) -> Verdict:
        rollout = dataclasses.replace(CANARY, lacking="promote")
        return canary_verdict(rollout, deployment(), step_started=START, losses=losses, now=START + waited, service=service)

    rng = np.random.default_rng(1)
    for few in (pairs(rng, 0, 1.0).cast({"cluster": pl.String}), pairs(rng, 12, 1.0)):
        assert asked(few, waited=HOUR).action == "wait"
        end = asked(few)
        assert end.action == "promote"
        assert end.reason.endswith("it is released all the same, for its gates held and nothing speaks against it")
        assert end.evidence["verdict"].startswith("not enough evidence after 259200 s")
    assert asked(pairs(rng, 150, 3.0)).action == "hold_back"
    assert asked(few, Service(rows=50, batches=50, errors=25)).action == "hold_back"
    with pytest.raises(DeclarationError, match="lacking is 'perhaps'"):
        ml.canary(lacking="perhaps")


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


WATCHED = Deployment(
    id="d", created_at=START, causes=(), model="trip", action="promote", effective_at=START, by="loop",
    from_version=1, to_version=2,
    routes=(Route(version=2, share=1.0, mode="champion"), Route(version=1, share=0.0, mode="shadow")),
)  # fmt: skip


def days(rng: np.random.Generator, count: int, weather: float, ratio: float = 1.0) -> pl.DataFrame:
    """Losses of days that each have a weather of their own, which only one of the versions minds."""
    losses = pairs(rng, 50 * count, ratio)
    times = START + pl.Series(np.arange(losses.height) * 1728).cast(pl.Duration("ms")) * 1000
    moved = np.repeat(rng.normal(0, weather, count), 50)
    return losses.with_columns(time=times.cast(pl.Datetime("us", "UTC")), challenger=pl.col("challenger") + moved)


def judged(rollout: Rollout, losses: pl.DataFrame) -> Verdict:
    return canary_verdict(rollout, deployment(), step_started=START, losses=losses, now=START + HOUR)


def test_rows_of_one_day_are_not_taken_for_as_many_observations():
    rng = np.random.default_rng(5)
    by_stretch, by_day = ml.canary(50, 100, margin=0.0), ml.canary(50, 100, margin=0.0, cluster="1d")
    wrong = {"row": 0, "stretch": 0, "day": 0}
    for _ in range(100):
        losses = days(rng, 20, weather=1.0)
        low, _, high = confidence_sequence((losses["challenger"] - losses["champion"]).to_numpy(), by_day.alpha)
        wrong["row"] += not low <= 0 <= high
        wrong["stretch"] += judged(by_stretch, losses).action != "wait"
        wrong["day"] += judged(by_day, losses).action != "wait"
    assert wrong["row"] > 30
    assert wrong["stretch"] <= 10
    assert wrong["day"] <= 10


def test_too_few_days_are_no_evidence_however_many_rows():
    found = judged(ml.canary(50, 100, cluster="1d"), days(np.random.default_rng(1), 9, 0.0, ratio=0.5))
    assert (found.action, found.evidence["spans"]) == ("wait", 9)
    assert "9 of 10 spans of 1 day" in found.reason
    assert judged(ml.canary(50, 100, cluster="1d"), days(np.random.default_rng(1), 12, 0.0, ratio=0.5)).action == "step"


def test_an_equal_one_is_promoted_with_enough_rows_for_the_margin():
    losses = pairs(np.random.default_rng(2), 20_000, 1.0).with_columns(challenger=pl.col("champion"))
    noisy = losses.with_columns(challenger=pl.col("champion") + np.random.default_rng(3).normal(0, 2, 20_000))
    assert verdict(noisy.head(500)).action == "wait"
    assert verdict(noisy).action == "step"


def test_errors_hold_back_before_any_label_and_before_the_hold():
    found = canary_verdict(
        CANARY, deployment(), step_started=START, losses=pairs(np.random.default_rng(1), 0, 1.0).cast({"cluster": pl.String}),
        now=START, service=Service(batches=40, errors=12, kinds={"transform": 12}),
    )  # fmt: skip
    assert (found.action, found.evidence["verdict"], found.evidence["service"]["errors"]) == ("hold_back", "errors", 12)


def test_other_answers_need_a_better_loss_and_not_only_no_worse():
    apart = Service(rows=400, answers=0.9)
    alike = pairs(np.random.default_rng(1), 400, 1.0).with_columns(challenger=pl.col("champion") * 1.001)

    def with_answers(losses: pl.DataFrame, service: Service) -> Verdict:
        return canary_verdict(CANARY, deployment(), step_started=START, losses=losses, now=START + HOUR, service=service)

    assert with_answers(alike, Service(rows=400, answers=0.1)).action == "step"
    assert (with_answers(alike, apart).action, with_answers(alike, apart).evidence["verdict"]) == ("hold_back", "worse")
    unsure = pairs(np.random.default_rng(1), 400, 1.0)
    assert with_answers(unsure, apart).action == "hold"
    assert with_answers(pairs(np.random.default_rng(1), 1000, 0.8), apart).action == "step"


def test_blue_green_goes_by_the_service_alone():
    rollout = ml.blue_green(min_rows=50, max_wait="1d")
    empty = pairs(np.random.default_rng(1), 0, 1.0).cast({"cluster": pl.String})

    def asked(service: Service, waited: timedelta = HOUR) -> str:
        found = canary_verdict(rollout, deployment(), step_started=START, losses=empty, now=START + waited, service=service)
        return found.action

    assert asked(Service(rows=49, batches=49)) == "wait"
    assert asked(Service(rows=50, batches=50)) == "promote"
    assert asked(Service(rows=50, batches=60, errors=10)) == "hold_back"
    assert asked(Service(rows=49, batches=49), 2 * DAY) == "hold_back"


def test_a_watch_ends_in_a_rollback_with_its_cause_or_settles():
    def watched(losses: pl.DataFrame, service: Service, waited: timedelta = HOUR) -> Verdict:
        return watch_verdict(CANARY, WATCHED, started=START, losses=losses, service=service, now=START + waited)

    rng = np.random.default_rng(4)
    assert watched(pairs(rng, 1000, 1.5), Service()).action == "rollback"
    assert watched(pairs(rng, 1000, 0.9), Service()).action == "wait"
    assert watched(pairs(rng, 1000, 0.9), Service(batches=30, errors=9)).evidence["verdict"] == "errors"
    assert watched(pairs(rng, 1000, 0.9), Service(), 2 * DAY).action == "settle"
    with pytest.raises(UsageError):
        watch_verdict(CANARY, deployment(), started=START, losses=pairs(rng, 5, 1.0), service=Service(), now=START)
