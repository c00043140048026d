"""Which parameters made the difference in a search: read from its trials, whenever somebody asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mulle.core.records.base import Json

__all__ = ["LEAST_TRIALS", "parameter_importance"]

LEAST_TRIALS = 12
"""Fewer done trials of a candidate say nothing of its parameters."""


def parameter_importance(trials: Sequence[Mapping[str, Any]], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Tell, per candidate, which share of the scores' spread each parameter explains.

    By functional ANOVA over a random forest of the trials (Hutter, Hoos and Leyton-Brown 2014, An Efficient Approach for
    Assessing Hyperparameter Importance).

    Parameters
    ----------
    trials : sequence of mapping
        With ``candidate``, ``params`` and ``score``; those without a score do not count.
    seed : int

    Returns
    -------
    dict
        Candidate to parameter to share, adding up to 1, largest first. Candidates with fewer than `LEAST_TRIALS` done
        trials, or with fewer than two parameters that varied, are absent.

    Examples
    --------
    >>> made = [{"candidate": "ridge", "params": {"a": i % 5, "b": i // 5}, "score": float(i % 5)} for i in range(25)]
    >>> list(parameter_importance(made)["ridge"])
    ['a', 'b']
    """
    found = {}
    for kind in dict.fromkeys(t["candidate"] for t in trials):
        done = [t for t in trials if t["candidate"] == kind and t["score"] is not None]
        ranges = _ranges([t["params"] for t in done])
        if len(done) >= LEAST_TRIALS and len(ranges) > 1 and len({t["score"] for t in done}) > 1:
            found[kind] = _shares(done, ranges, seed)
    return found


def _shares(done: Sequence[Mapping[str, Any]], ranges: Json, seed: int) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for trial in done:
        params = {name: trial["params"][name] for name in ranges}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=trial["score"]))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, max_depth=16, seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: round(float(share), 4) for name, share in found.items()}


def _ranges(params: Sequence[Mapping[str, Any]]) -> Json:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    ranges: Json = {}
    names = set.intersection(*(set(p) for p in params)) if params else set()
    for name in sorted(names):
        values = [p[name] for p in params]
        if len({str(v) for v in values}) < 2:
            continue
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            ranges[name] = FloatDistribution(min(values), max(values))
        elif all(isinstance(v, (str, int, float, bool)) or v is None for v in values):
            ranges[name] = CategoricalDistribution(tuple(dict.fromkeys(values)))
    return ranges
