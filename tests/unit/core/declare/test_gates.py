"""Gates are declared in words, and what cannot be a gate is refused where it is written."""

from __future__ import annotations

import pytest

import mulle as ml
from mulle.core.declare.gates import Gate
from mulle.core.errors import DeclarationError, UsageError


def cost(truth, prediction, rows):
    return 0.0


def test_an_own_metric_goes_wherever_a_built_in_one_does():
    own = ml.metric(cost, name="money", lower_is_better=True)
    gates = [
        ml.at_most(own, 3), ml.at_least(own, 3), ml.no_worse_than_champion(own), ml.generalisation_gap(own, most=3),
        ml.fairness("sex", own, most=3), ml.each_slice("sex", ml.at_most(own, 3)).gate,
    ]  # fmt: skip
    assert {g.metric for g in gates} == {"money"}
    assert all(g.own is own and isinstance(g, Gate) for g in gates)
    assert ml.at_most("mae", 3).own is None
    assert own.takes == ("rows",)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda truth, prediction: 0.0, ()),
        (lambda a, b, *, classes, probabilities: 0.0, ("classes", "probabilities")),
        (lambda truth, prediction, sample_weight=None: 0.0, ()),
        (lambda *both: 0.0, ()),
    ],
)
def test_a_metrics_function_gets_what_it_names(function, takes):
    assert ml.metric(function, name="x", lower_is_better=False).takes == takes


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: ml.metric("mae", lower_is_better=True), "no function"),
        (lambda: ml.metric(lambda truth, prediction: 0.0, lower_is_better=True), "without a name"),
        (lambda: ml.metric(lambda truth: 0.0, name="x", lower_is_better=True), "does not take truth and prediction"),
        (lambda: ml.metric(lambda a, b, c: 0.0, name="x", lower_is_better=True), "does not take truth and prediction"),
        (lambda: ml.calibration(most=0.1, bins=1), "bins=1"),
        (lambda: ml.peak_memory("much"), "is not a size"),
        (lambda: ml.bundle_size("5 XB"), "is not a size"),
        (lambda: ml.satisfies(True), "no function"),
        (lambda: ml.p50("soon"), "is not a duration"),
    ],
)
def test_what_cannot_be_a_gate_is_refused_in_words(declare, said):
    with pytest.raises(DeclarationError, match=said):
        declare()


def test_a_metrics_name_is_plain_because_trackers_keep_it():
    with pytest.raises(UsageError):
        ml.metric(cost, name="cost in €!", lower_is_better=True)


@pytest.mark.parametrize(("text", "size"), [("500MB", 500_000_000), ("1 GiB", 2**30), ("1.5kb", 1500), (77, 77), ("12B", 12)])
def test_sizes_are_read_as_people_write_them(text, size):
    assert ml.peak_memory(text).most == ml.bundle_size(text).most == size


def test_a_metric_of_ones_own_bounds_gates_and_not_what_is_watched():
    own = ml.at_most(ml.metric(cost, name="money", lower_is_better=True), 1.0)
    with pytest.raises(DeclarationError, match="'money', a metric of your own"):
        ml.Monitor(performance=own)
    assert ml.Monitor(performance=ml.at_most("mae", 1)).performance is not None
