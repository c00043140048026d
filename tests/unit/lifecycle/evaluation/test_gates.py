"""Gates say yes and no for the right reason, in words."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.declare.gates import at_least, at_most, each_slice, no_worse_than_champion, p99, parity
from mulle.core.records.model import Parity
from mulle.lifecycle.evaluation.compare import Side, compare
from mulle.lifecycle.evaluation.evaluate import by_slice, evaluate
from mulle.lifecycle.evaluation.gates import Evidence, accepted, judge


def one(gate, **more):
    return judge([gate], Evidence(**{"metrics": {"mae": 7.91, "r2": 0.9}, "rows": 500} | more))[0]


def versus(champion, challenger, n=200, metric="mae"):
    truth = np.zeros(n)
    return compare("regression", metric, truth, Side(np.full(n, champion)), Side(np.full(n, challenger)))


def test_bounds():
    assert one(at_most("mae", 12)).verdict == "pass"
    assert one(at_most("mae", 12)).reason == "mae 7.91 <= 12 on 500 rows"
    assert one(at_most("mae", 5)).reason == "mae 7.91 > 5 on 500 rows"
    assert one(at_least("r2", 0.95)).verdict == "fail"
    assert one(at_most("auc", 1)).verdict == "not_enough_evidence"
    assert one(at_most("mae", 12), metrics={"mae": float("nan")}).verdict == "fail"


def test_a_first_model_needs_no_champion():
    found = one(no_worse_than_champion("mae"))
    assert (found.verdict, found.reason) == ("pass", "no champion yet")


@pytest.mark.parametrize(
    ("champion", "challenger", "margin", "verdict"),
    [(8, 7, 0, "pass"), (8, 8, 0, "pass"), (8, 8.1, 0, "fail"), (8, 8.1, 0.05, "pass"), (8, 9, 0.05, "fail")],
)
def test_a_worse_challenger_is_held_back(champion, challenger, margin, verdict):
    gate = no_worse_than_champion("mae", margin=margin)
    found = one(gate, has_champion=True, comparison=versus(champion, challenger))
    assert found.verdict == verdict
    assert found.value == pytest.approx(challenger)
    assert "champion's 8" in found.reason


def test_a_champion_is_not_replaced_without_evidence():
    gate = no_worse_than_champion("mae", min_rows=100)
    for comparison in (None, versus(8, 1, n=99), versus(8, 1, metric="rmse")):
        found = one(gate, has_champion=True, comparison=comparison)
        assert found.verdict == "not_enough_evidence"
        assert not accepted([found])


def test_slices_name_the_worst():
    slices = {"origin": {"EWR": (100, {"mae": 5.0}), "JFK": (50, {"mae": 20.0}), "LGA": (3, {"mae": 99.0})}}
    found = one(each_slice("origin", at_most("mae", 15)), slices=slices)
    assert found.verdict == "fail"
    assert found.reason == "1 of 2 slices fail: origin JFK: mae 20 > 15 on 50 rows"
    assert one(each_slice("origin", at_most("mae", 25)), slices=slices).verdict == "pass"
    assert one(each_slice("origin", at_most("mae", 25), min_rows=1000), slices=slices).verdict == "not_enough_evidence"
    assert one(each_slice("dest", at_most("mae", 25)), slices=slices).verdict == "not_enough_evidence"


def test_parity():
    proof = Parity(tolerance=1e-4, scale=70.0, rows=100, worst=2e-5, outside=0.0)
    assert one(parity(1e-4), parity=proof).verdict == "pass"
    broken = Parity(tolerance=1e-4, scale=70.0, rows=100, worst=0.2, outside=0.013)
    found = one(parity(1e-4), parity=broken)
    assert found.verdict == "fail"
    assert "1.30% of the rows" in found.reason
    assert one(parity(1e-4)).verdict == "not_enough_evidence"


def test_latency_decides_live_and_is_recorded_on_replay():
    slow = Evidence(metrics={}, rows=1, p99_seconds=0.02)
    assert judge([p99("5ms")], slow)[0].reason == "p99 20 ms > 5 ms"
    replayed = judge([p99("5ms")], slow, replay=True)
    assert replayed[0].verdict == "recorded"
    assert accepted(replayed)
    assert not accepted(judge([p99("5ms")], slow))


def test_slices_add_up_to_the_whole():
    random = np.random.default_rng(0)
    truth, values = random.normal(size=300), random.normal(size=300)
    origin = pl.Series("origin", [["EWR", "JFK", None][i % 3] for i in range(300)])
    found = by_slice(origin, "regression", truth, values)
    assert set(found) == {"EWR", "JFK", "null"}
    whole = sum(rows * metrics["mae"] for rows, metrics in found.values()) / 300
    assert whole == pytest.approx(evaluate("regression", truth, values)["mae"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mae", "rmse"]))
def test_the_interval_tells_a_real_difference_from_none(seed, metric):
    random = np.random.default_rng(seed)
    truth = random.normal(0, 10, 400)
    champion = truth + random.normal(0, 2, 400)
    found = compare("regression", metric, truth, Side(champion), Side(truth + random.normal(0, 1, 400)))
    assert found.low < found.difference < found.high < 0
    same = compare("regression", metric, truth, Side(champion), Side(champion))
    assert same.difference == same.low == same.high == 0


def test_classes_are_compared_even_when_each_side_has_its_own():
    truth = np.array(["a", "b", "c"] * 50, dtype=object)
    sure = np.eye(3)[[0, 1, 2] * 50] * 0.94 + 0.02
    narrow = np.tile([0.5, 0.5], (150, 1))
    champion = Side(np.array(["a"] * 150, dtype=object), narrow, ("a", "b"))
    found = compare("multiclass", "log_loss", truth, champion, Side(truth, sure, ("a", "b", "c")))
    assert found.challenger < 0.1 < 1 < found.champion
    assert found.high < 0
