"""Moves of the pointer: what each serves, where it came from, and that there is a way back."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mulle as ml
from mulle.core.clock import instant
from mulle.core.errors import Refused, UsageError
from mulle.core.records.base import Cause
from mulle.core.records.deployment import Deployment, champion_of
from mulle.lifecycle.rollout.plan import Decision, first_deployment, hold_back, promote, roll_back, start_release, step_canary

NOW = instant("2013-03-01")
WHY = (Cause(type="run", id="r1", why="gates passed"),)
CANARY = ml.canary(5, 25, 100, watch="0s")


def declared() -> ml.Model:
    trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["y"])

    @ml.features(trips)
    def trip_features(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("x")

    return ml.Model("trip", features=trip_features, target="y", task="regression", rollout=CANARY)


def at(hours: float, **more) -> Decision:
    return Decision(by="loop", causes=WHY, now=NOW + timedelta(hours=hours), **more)


def first(version: int = 1) -> Deployment:
    return first_deployment(declared(), version, at(0))


def begun(version: int = 2, before: Deployment | None = None, hours: float = 1) -> Deployment:
    return start_release(CANARY, before or first(), version, at(hours), model=declared())


def shares(deployment: Deployment) -> dict[str, tuple[int, float]]:
    return {r.mode: (r.version, round(r.share, 6)) for r in deployment.routes}


def test_the_first_version_takes_all_traffic():
    assert shares(first()) == {"champion": (1, 1.0)}
    assert (first().action, first().from_version, first().to_version) == ("deploy", None, 1)


def test_a_canary_grows_and_becomes_champion():
    small = begun()
    middle = step_canary(CANARY, small, at(2))
    last = step_canary(CANARY, middle, at(3, evidence={"rows": 400}))
    assert shares(small) == {"champion": (1, 0.95), "canary": (2, 0.05)}
    assert shares(middle) == {"champion": (1, 0.75), "canary": (2, 0.25)}
    assert (shares(last), last.action, last.evidence) == ({"champion": (2, 1.0)}, "promote", {"rows": 400})
    assert (last.from_version, last.to_version) == (1, 2)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True))
def test_shares_sum_to_one_at_every_step(steps):
    rollout = ml.canary(*sorted(steps), 100, watch="0s")
    deployment = start_release(rollout, first(), 2, at(1, effective_at=NOW), model=declared())
    for _ in steps:
        assert sum(r.share for r in deployment.routes) == pytest.approx(1)
        deployment = step_canary(rollout, deployment, at(2))
    assert shares(deployment) == {"champion": (2, 1.0)}


def test_without_a_champion_or_with_immediate_a_version_is_deployed_at_once():
    alone = start_release(CANARY, None, 1, at(0, effective_at=NOW), model=declared())
    at_once = start_release(ml.immediate(), first(), 2, at(1, effective_at=NOW), model=declared())
    assert (alone.action, at_once.action) == ("deploy", "deploy")
    assert (shares(at_once), at_once.from_version) == ({"champion": (2, 1.0)}, 1)


def test_the_champion_cannot_be_its_own_canary():
    with pytest.raises(Refused):
        begun(version=1)


def test_a_new_challenger_takes_the_place_of_a_running_canary():
    assert shares(begun(3, before=begun(2))) == {"champion": (1, 0.95), "canary": (3, 0.05)}


def test_a_canary_held_back_leaves_the_champion_with_everything():
    held = hold_back(begun(), at(2, evidence={"low": 0.1}))
    assert (shares(held), held.action, held.to_version) == ({"champion": (1, 1.0)}, "hold_back", 2)


@pytest.mark.parametrize("move", [promote, hold_back])
def test_without_a_canary_there_is_nothing_to_end(move):
    with pytest.raises(UsageError, match="no canary"):
        move(first(), at(1))


def test_a_rollback_goes_to_the_champion_before_and_the_next_one_further():
    history = [first(1)]
    for number, version in enumerate((2, 3), start=1):
        history.append(begun(version, before=history[-1], hours=2 * number))
        history.append(promote(history[-1], at(2 * number + 1)))
    back = roll_back(history, at(9))
    further = roll_back([*history, back], at(10))
    assert (back.action, champion_of(back), back.from_version) == ("rollback", 2, 3)
    assert champion_of(further) == 1
    with pytest.raises(Refused, match="first champion"):
        roll_back([*history, back, further], at(11))


def test_a_rollback_during_a_canary_ends_it():
    history = [first(1), promote(begun(2), at(2))]
    history.append(begun(3, before=history[-1], hours=3))
    assert shares(roll_back(history, at(4))) == {"champion": (1, 1.0)}


def test_a_rollback_may_name_a_former_champion_and_no_other():
    history = [first(1), promote(begun(2), at(2))]
    history.append(promote(begun(3, before=history[-1], hours=3), at(4)))
    assert champion_of(roll_back(history, at(5), to=1)) == 1
    with pytest.raises(Refused, match="never champion"):
        roll_back(history, at(5), to=7)


@pytest.mark.parametrize("history", [[], [first()]])
def test_with_nothing_before_a_rollback_is_refused(history):
    with pytest.raises(Refused) as refused:
        roll_back(history, at(1))
    assert refused.value.next


def test_a_move_derived_again_is_the_same_record_and_another_move_is_not():
    assert begun() == begun()
    ids = {d.id for d in (first(), begun(), begun(3), step_canary(CANARY, begun(), at(2)), hold_back(begun(), at(2)))}
    assert len(ids) == 5


def test_on_a_replay_clock_the_effect_may_come_later_than_the_decision():
    later = NOW + timedelta(hours=5)
    deployment = start_release(CANARY, first(), 2, at(1, effective_at=later), model=declared())
    assert (deployment.created_at, deployment.effective_at) == (NOW + timedelta(hours=1), later)
