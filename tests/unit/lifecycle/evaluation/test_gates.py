"""Gates say yes and no for the right reason, in words."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.declare.gates import (
    at_least,
    at_most,
    bad_input,
    bundle_size,
    calibration,
    each_slice,
    fairness,
    generalisation_gap,
    no_worse_than_champion,
    p50,
    p99,
    parity,
    peak_memory,
    satisfies,
    throughput,
)
from mulle.core.declare.metric import metric
from mulle.core.errors import DataError
from mulle.core.records.evaluation import Calibration, CalibrationBin, Failures, Measured, Service
from mulle.core.records.model import Parity
from mulle.kernel.answered import answered
from mulle.lifecycle.evaluation.compare import Side, compare
from mulle.lifecycle.evaluation.evaluate import by_slice, evaluate, measured
from mulle.lifecycle.evaluation.gates import Evidence, accepted, judge
from mulle.lifecycle.evaluation.own import call_metric, own_metrics


def one(gate, **more):
    return judge([gate], Evidence(**{"metrics": {"mae": 7.91, "r2": 0.9}, "rows": 500} | more))[0]


def part(rows, **metrics):
    return Measured(rows=rows, metrics=metrics)


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
    slices = {"origin": {"EWR": part(100, mae=5.0), "JFK": part(50, mae=20.0), "LGA": part(3, mae=99.0)}}
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
    slow = Evidence(metrics={}, rows=1, service=Service(p99_seconds=0.02, answers=200))
    assert judge([p99("5ms")], slow)[0].reason == "p99 20 ms > 5 ms"
    replayed = judge([p99("5ms")], slow, replay=True)
    assert replayed[0].verdict == "recorded"
    assert accepted(replayed)
    assert not accepted(judge([p99("5ms")], slow))


def test_slices_add_up_to_the_whole():
    random = np.random.default_rng(0)
    truth, values = random.normal(size=300), random.normal(size=300)
    origin = pl.Series("origin", [["EWR", "JFK", None][i % 3] for i in range(300)])
    found = by_slice(origin, answered("regression", truth, values))
    assert set(found) == {"EWR", "JFK", "null"}
    whole = sum(part.rows * part.metrics["mae"] for part in found.values()) / 300
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


def lost(truth, prediction):
    return float(np.sum(np.abs(truth - prediction)))


COST = metric(lost, lower_is_better=True)


def test_an_own_metric_is_held_like_any_other():
    answers = answered("regression", np.zeros(50), np.arange(50.0))
    found = measured(answers, own=[COST])
    assert found.metrics["lost"] == 1225
    low, high = found.intervals["lost"]
    assert low < 1225 < high
    result = one(at_most(COST, 1000), metrics=found.metrics, intervals=found.intervals, rows=50)
    assert (result.gate, result.verdict, result.low, result.high) == ("at_most(lost, 1000)", "fail", low, high)
    assert result.reason.startswith("lost 1225 > 1000 on 50 rows (95% ")


def test_an_own_metric_that_fails_is_told_and_stops_nothing():
    def broken(truth, prediction):
        return "much"

    own = metric(broken, lower_is_better=True)
    found = measured(answered("regression", np.zeros(5), np.ones(5)), own=[own])
    assert found.metrics["mae"] == 1
    result = one(at_most(own, 1), metrics=found.metrics, failed=found.failed)
    assert result.verdict == "not_enough_evidence"
    assert "metric broken failed: ValueError" in result.reason


def test_an_own_metric_may_ask_for_probabilities_classes_and_rows_and_spoils_nobodys_data():
    def cost(truth, prediction, rows, probabilities, classes):
        truth[:] = "gone"
        assert probabilities.shape == (len(rows), len(classes))
        return rows["amount"].sum() * probabilities[:, classes.index("b")].mean()

    truth = np.array(["a", "b"] * 20, dtype=object)
    answers = answered("binary", truth, truth, np.tile([0.75, 0.25], (40, 1)), ("a", "b"))
    own, rows = metric(cost, lower_is_better=True), pl.DataFrame({"amount": [1.0, 3.0] * 20, "group": ["x", "y"] * 20})
    assert call_metric(own, answers, rows) == 20
    assert truth[0] == "a"
    parts = by_slice(rows["group"], answers, rows=rows, own=[own], sure_of=["cost"])
    assert (parts["x"].metrics["cost"], parts["y"].metrics["cost"]) == (5, 15)
    assert parts["x"].intervals["cost"] == (5, 5)


def test_an_own_metric_cannot_change_what_others_measure():
    def greedy(truth, prediction):
        truth[:], prediction[:] = 7.0, 7.0
        return 0.0

    truth, values = np.zeros(20), np.ones(20)
    measured(answered("regression", truth, values), own=[metric(greedy, lower_is_better=True)])
    assert (truth == 0).all()
    assert (values == 1).all()


def test_challenger_and_champion_are_compared_by_an_own_metric_in_its_direction():
    random = np.random.default_rng(0)
    truth = random.normal(size=300)
    near, far = Side(truth + random.normal(0, 1, 300)), Side(truth + random.normal(0, 3, 300))
    sold = metric(lambda truth, prediction: -lost(truth, prediction), name="sold", lower_is_better=False)
    for own, verdicts in ((COST, ("pass", "fail")), (sold, ("pass", "fail"))):
        found = [
            one(
                no_worse_than_champion(own, proven=True), has_champion=True,
                comparison=compare("regression", own.name, truth, *sides, own=own),
            ).verdict
            for sides in ((far, near), (near, far))
        ]  # fmt: skip
        assert tuple(found) == verdicts, own.name


def test_two_metrics_of_one_name_are_refused():
    other = metric(lambda truth, prediction: 0.0, name="lost", lower_is_better=True)
    with pytest.raises(DataError, match="two metrics called 'lost'"):
        own_metrics([at_most(COST, 1), each_slice("origin", at_most(other, 1))])
    with pytest.raises(DataError, match="two metrics called 'mae'"):
        own_metrics([at_most(metric(lost, name="mae", lower_is_better=True), 1)])
    assert list(own_metrics([at_most(COST, 1), fairness("origin", COST, most=1), parity()])) == ["lost"]


@pytest.mark.parametrize(("spread", "away", "verdict"), [(0.5, -1, "pass"), (0.5, 1, "fail"), (2, -0.05, "not_enough_evidence")])
def test_proven_wants_more_than_luck(spread, away, verdict):
    random = np.random.default_rng(0)
    truth, error = np.zeros(200), random.normal(10, 1, 200)
    comparison = compare("regression", "mae", truth, Side(error), Side(error + away + random.normal(0, spread, 200)))
    found = one(no_worse_than_champion("mae", proven=True), has_champion=True, comparison=comparison)
    assert found.verdict == verdict, found.reason
    middle = one(no_worse_than_champion("mae"), has_champion=True, comparison=comparison)
    assert middle.verdict == ("pass" if comparison.difference <= 0 else "fail"), "by default the middle decides"
    assert one(no_worse_than_champion("mae", proven=True)).verdict == "pass", "a first model has nobody to beat"


@pytest.mark.parametrize(("name", "train", "verdict"), [("mae", 5.0, "fail"), ("mae", 7.0, "pass"), ("r2", 0.95, "pass")])
def test_the_gap_is_how_much_worse_the_holdout_is(name, train, verdict):
    found = one(generalisation_gap(name, most=1), train=part(400, **{name: train}))
    assert found.verdict == verdict
    assert found.value == pytest.approx(abs(train - {"mae": 7.91, "r2": 0.9}[name]))
    assert "400 rows it was fitted on" in found.reason
    assert one(generalisation_gap(name, most=1)).verdict == "not_enough_evidence"


def test_fairness_names_both_ends():
    slices = {"sex": {"f": part(100, recall=0.5), "m": part(90, recall=0.8), "x": part(5, recall=0.0)}}
    found = one(fairness("sex", "recall", most=0.2), slices=slices)
    assert found.verdict == "fail"
    assert found.value == pytest.approx(0.3)
    assert found.reason == "recall differs by 0.3 > 0.2: 0.5 for sex f on 100 rows and 0.8 for sex m on 90 rows"
    assert found.rows == 190
    assert one(fairness("sex", "recall", most=0.4), slices=slices).verdict == "pass"
    assert one(fairness("sex", "recall", most=0.4, min_rows=95), slices=slices).verdict == "not_enough_evidence"
    assert one(fairness("age", "recall", most=0.4), slices=slices).verdict == "not_enough_evidence"


def test_calibration_is_judged_by_its_own_bins():
    bins = (
        CalibrationBin(low=0.0, high=0.5, rows=80, said=0.2, observed=0.25),
        CalibrationBin(low=0.5, high=1, rows=20, said=0.9, observed=0.5),
    )
    found = Calibration(rows=100, error=0.12, brier=0.2, bins=bins)
    told = one(calibration(most=0.1, bins=2), calibrations={2: found})
    assert told.verdict == "fail"
    assert "from 0.5 to 1: said 0.900, came true 0.500 on 20 rows" in told.reason
    assert one(calibration(most=0.1), calibrations={2: found}).verdict == "not_enough_evidence"
    off = one(calibration(most=0.1), calibrations={10: Calibration(rows=50, error=0.3, bias=-6.0)})
    assert off.reason == "mean error -6, 0.3 standard deviations of the target, > 0.1 on 50 rows"


@pytest.mark.parametrize(
    ("gate", "measured", "verdict"),
    [
        (p50("1ms"), {"p50_seconds": 0.0005, "answers": 200}, "pass"),
        (p50("1ms"), {"p50_seconds": 0.005, "answers": 200}, "fail"),
        (throughput(1000), {"rows_per_second": 5e4, "batch_rows": 10_000}, "pass"),
        (throughput(1000), {"rows_per_second": 500.0, "batch_rows": 10_000}, "fail"),
        (peak_memory("200MB"), {"peak_bytes": 150_000_000, "batch_rows": 10_000}, "pass"),
        (peak_memory("100MB"), {"peak_bytes": 150_000_000, "batch_rows": 10_000}, "fail"),
        (bundle_size("1MB"), {"bundle_bytes": 500_000}, "pass"),
        (bundle_size("1KB"), {"bundle_bytes": 500_000}, "fail"),
    ],
)
def test_what_serving_costs_is_held_to_its_bound(gate, measured, verdict):
    found = one(gate, service=Service(**measured))
    assert found.verdict == verdict
    assert found.rows in measured.values() or "bundle" in found.gate
    assert one(gate).verdict == "not_enough_evidence"
    replayed = judge([gate], Evidence(metrics={}, rows=1, service=Service(**measured)), replay=True)[0]
    assert replayed.verdict == (verdict if "bundle" in found.gate else "recorded")
    assert replayed.value == found.value


def test_a_kind_of_hostile_row_that_fails_is_told():
    bad = Failures(rows=40, answered=30, refused=8, failed={"nulls": "income is None: TypeError: no"})
    found = one(bad_input(), bad_input=bad)
    assert (found.verdict, found.value, found.bound, found.rows) == ("fail", 1, 0, 40)
    assert "2 failed. nulls: income is None: TypeError: no" in found.reason
    assert one(bad_input(), bad_input=Failures(rows=40, answered=32, refused=8, failed={})).verdict == "pass"
    assert one(bad_input()).verdict == "not_enough_evidence"


@pytest.mark.parametrize(
    ("said", "verdict", "reason"),
    [
        (None, "pass", "asked found nothing wrong"),
        (True, "pass", "asked found nothing wrong"),
        (False, "fail", "asked gave False"),
        ([], "pass", "asked found nothing wrong"),
        (["too slow", "too dear"], "fail", "too slow; too dear"),
        ("no", "fail", "no"),
        (np.bool_(False), "fail", "asked gave False"),
    ],
)
def test_a_function_says_yes_or_no_in_many_ways(said, verdict, reason):
    found = one(satisfies(lambda evidence: said, name="asked"))
    assert (found.gate, found.verdict, found.reason) == ("satisfies(asked)", verdict, reason)


def test_what_a_function_raises_is_its_no():
    def asked(evidence):
        raise ValueError(f"mae {evidence.metrics['mae']} is too high")

    assert one(satisfies(asked)).reason == "ValueError: mae 7.91 is too high"


def test_two_gates_of_one_name_keep_a_verdict_each():
    found = judge(
        [at_most("mae", 9), at_most("mae", 9.0001), at_most("mae", 9), at_most("mae", 5)], Evidence(metrics={"mae": 7}, rows=3)
    )
    assert [g.gate for g in found] == ["at_most(mae, 9)", "at_most(mae, 9) #2", "at_most(mae, 9) #3", "at_most(mae, 5)"]


def test_an_own_metric_that_some_draws_cannot_answer_has_a_value_and_no_interval():
    def rare(truth, prediction):
        assert truth.max() == 49
        return 1.0

    own = metric(rare, lower_is_better=True)
    found = measured(answered("regression", np.arange(50.0), np.zeros(50)), own=[own])
    assert found.metrics["rare"] == 1
    assert "rare" not in found.intervals
    side = Side(np.zeros(50))
    comparison = compare("regression", "rare", np.arange(50.0), side, side, own=own)
    assert one(no_worse_than_champion(own), has_champion=True, comparison=comparison, rows=50).verdict == "not_enough_evidence"
    proven = one(no_worse_than_champion(own, min_rows=5, proven=True), has_champion=True, comparison=comparison)
    assert proven.verdict == "not_enough_evidence"
    assert (proven.low, proven.high) == (None, None)
