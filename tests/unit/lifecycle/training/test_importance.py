"""Which parameters made the difference is read from plain trials."""

from __future__ import annotations

import numpy as np
import pytest

from mulle.lifecycle.training.importance import LEAST_TRIALS, parameter_importance


def trials(n, kind="lightgbm"):
    random = np.random.default_rng(0)
    made = []
    for _ in range(n):
        params = {
            "rate": float(random.uniform()), "leaves": int(random.integers(2, 60)), "loss": ["a", "b"][random.integers(2)],
            "fixed": 7,
        }  # fmt: skip
        score = 10 * (params["rate"] - 0.5) ** 2 + (0.5 if params["loss"] == "a" else 0)
        made.append({"candidate": kind, "params": params, "score": score})
    return made


def test_what_the_score_depends_on_comes_first_and_what_never_varied_is_absent():
    shares = parameter_importance(trials(60))["lightgbm"]
    assert next(iter(shares)) == "rate"
    assert shares["rate"] > 0.6 > shares["loss"] > shares["leaves"]
    assert "fixed" not in shares
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert shares == parameter_importance(trials(60))["lightgbm"]


def test_candidates_of_which_too_little_is_known_are_left_out():
    failed = [{**t, "score": None} for t in trials(30, "svm")]
    one = [{"candidate": "ridge", "params": {"alpha": i}, "score": float(i)} for i in range(30)]
    assert parameter_importance([*trials(LEAST_TRIALS - 1), *failed, *one]) == {}
    assert parameter_importance([]) == {}
