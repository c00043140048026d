"""A replay's policies: as they are asked for, and what they change of a declaration."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import features
from mulle.core.declare.model import Model
from mulle.core.declare.project import Project, collect
from mulle.core.declare.retrain import Retrain
from mulle.core.declare.sources import Files
from mulle.core.errors import UsageError
from mulle.loop.replay.policy import DECLARED, EVERY_WINDOW, FROZEN, Policy, read_policies, unhurried, varied


def declared() -> Project:
    rides = Dataset("rides", Files("rides.csv"), key="id", time="at", outcome=["y"])
    shape = features(rides)(lambda rows: rows)
    model = Model(
        "m",
        features=shape,
        target="y",
        task="regression",
        retrain=Retrain(on=["drift"], cron="0 4 * * *", new_rows=9, search="9d"),
    )
    return collect({"m": model}, Path("."), "code")


def test_known_policies_and_variants_are_read() -> None:
    found = read_policies(["declared", "frozen", "every-window", "slow:cron=0 4 * * 1,3,cooldown=7d"])
    assert found[:3] == (DECLARED, FROZEN, EVERY_WINDOW)
    assert found[3] == Policy("slow", changes=(("cron", "0 4 * * 1,3"), ("cooldown", "7d")))


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["sometimes"], "no policy 'sometimes'"),
        (["frozen", "frozen"], "named alike"),
        (["declared:cooldown=7d"], "a policy already"),
        (["slow:magic=1"], "'magic' cannot be varied"),
        (["slow:cooldown"], "'cooldown' cannot be varied"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_can(texts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read_policies(texts)
    assert caught.value.next


def test_a_frozen_model_listens_to_nothing() -> None:
    retrain = varied(declared(), "m", FROZEN).model("m").retrain
    assert (retrain.on, retrain.cron, retrain.new_rows, retrain.max_age, retrain.after) == ((), None, None, None, ())


def test_one_that_trains_every_window_searches_each_time_and_listens_to_nothing_else() -> None:
    retrain = varied(declared(), "m", EVERY_WINDOW).model("m").retrain
    assert (retrain.search, retrain.on, retrain.cron) == (None, (), None)
    assert varied(declared(), "m", FROZEN).model("m").retrain.search == timedelta(days=9)


def test_what_is_declared_stays_as_it_is() -> None:
    project = declared()
    assert varied(project, "m", DECLARED) is project


def test_a_variant_changes_what_it_names_and_nothing_else() -> None:
    project = declared()
    (policy,) = read_policies(["v:cooldown=3d,on=drift+performance,window=2d,min_rows=7,rollout=immediate"])
    model, before = varied(project, "m", policy).model("m"), project.model("m")
    assert model.retrain.cooldown == timedelta(days=3)
    assert model.retrain.on == ("drift", "performance", "new_data"), "new_rows stays"
    assert model.retrain.cron == before.retrain.cron
    assert (model.monitor.window, model.monitor.min_rows) == (timedelta(days=2), 7)
    assert model.monitor.delay == before.monitor.delay
    assert (model.rollout.mode, before.rollout.mode) == ("immediate", "canary")
    assert (model.search, model.gates, model.features) == (before.search, before.gates, before.features)


@pytest.mark.parametrize("text", ["v:cooldown=soon", "v:on=luck", "v:rollout=perhaps", "v:cron=never"])
def test_a_value_that_cannot_be_is_told_with_the_policy(text: str) -> None:
    with pytest.raises(UsageError, match="policy v: "):
        varied(declared(), "m", read_policies([text])[0])


def test_latency_decides_no_release_on_history() -> None:
    project = declared()
    assert unhurried(project, "m").model("m").rollout.slower == math.inf
    assert project.model("m").rollout.slower < math.inf
