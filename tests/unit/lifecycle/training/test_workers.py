"""Trials in processes of their own: limits hold, the search goes on, and a seed gives the same search."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mulle.adapters.compute.local import LocalCompute
from mulle.core.declare.candidates import lightgbm, ridge
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.training.search import Plan, search

SPECS = tuple(FeatureSpec(name=f"x{i}", kind="number") for i in range(3))
WARM = ("disasters", "lightgbm")


def rows(n=300):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(n, 3)).astype(np.float32)
    return matrix, 3 * matrix[:, 0] + matrix[:, 1] ** 2 + random.normal(0, 0.1, n)


def run(candidates, folder, *, trials=4, timeout=None, **plan):
    plan = Plan(workers=lambda n: LocalCompute(n, warm=WARM), folder=folder, **{"parallel": 2} | plan)
    matrix, target = rows()
    return search(
        matrix, target, np.arange(len(matrix)), task="regression", candidates=candidates, specs=SPECS, trials=trials,
        timeout=timeout, seed=0, plan=plan,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _disasters_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.parametrize(
    ("disaster", "kind", "said"),
    [
        ("crash", "crash", "SIGSEGV"),
        ("hang", "timeout", "not done after 1.5 s"),
        ("greed", "memory", "more than it was given"),
        ("one large array", "memory", "not enough memory"),
        ("raise", "error", "ValueError: no"),
    ],
)
def test_what_a_trial_does_to_its_process_is_recorded_by_kind_and_the_search_goes_on(disaster, kind, said, tmp_path):
    limits = {"trial_timeout": 1.5} if disaster == "hang" else {"memory": 600_000_000} if kind == "memory" else {}
    began = time.monotonic()
    found = run((ridge(disaster=disaster), lightgbm(n_estimators=10)), tmp_path, **limits)
    assert time.monotonic() - began < 60
    broken = [t for t in found.trials if t["candidate"] == "ridge"]
    assert {(t["state"], t["failure"], t["score"]) for t in broken} == {("failed", kind, None)}
    assert all(t["memory"] > 50_000_000 for t in found.trials if t["state"] == "done")
    assert all(said in t["reason"] for t in broken)
    assert [t["number"] for t in found.trials] == [0, 1, 2, 3]
    assert found.settings["candidate"] == "lightgbm"
    assert list(tmp_path.iterdir()) == [], "the files of the workers are removed"


def test_the_same_seed_gives_the_same_search_at_the_same_parallelism_and_what_is_found_here_is_found_there(tmp_path):
    def told(found):
        return [{**t, "seconds": 0, "memory": 0} for t in found.trials], found.settings

    candidates = (ridge(), lightgbm(n_estimators=10))
    one, two = (run(candidates, tmp_path, trials=9, ensemble=3, prune=True) for _ in range(2))
    assert told(one) == told(two)
    assert told(run(candidates, tmp_path, trials=5, parallel=1)) == told(
        run(candidates, tmp_path, trials=5, parallel=1, memory=10**10)
    )


def test_the_search_ends_in_its_time_with_trials_under_way(tmp_path):
    began = time.monotonic()
    found = run((ridge(), lightgbm(n_estimators=10, disaster="overrun")), tmp_path, trials=50, timeout=2.0)
    assert time.monotonic() - began < 20
    assert found.settings["candidate"] == "ridge"
    assert {t["failure"] for t in found.trials if t["candidate"] == "lightgbm"} <= {"timeout"}
