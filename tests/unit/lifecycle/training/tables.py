"""A small table and a search of it, which the tests of the search share."""

from __future__ import annotations

import numpy as np

from mulle.core.declare.candidates import lightgbm, ridge
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.training.search import search

DAY = 86_400_000_000
SPECS = (
    FeatureSpec(name="carrier", kind="category", categories=("AA", "B6", "UA")),
    FeatureSpec(name="distance", kind="number"),
    FeatureSpec(name="wind", kind="number"),
)


def rows(n=400, seed=0):
    random = np.random.default_rng(seed)
    matrix = np.stack([random.integers(-1, 3, n), random.uniform(100, 2000, n), random.normal(0, 5, n)], axis=1).astype(
        np.float32
    )
    target = matrix[:, 1] / 8 + 3 * matrix[:, 2] + 10 * matrix[:, 0] + random.normal(0, 2, n)
    matrix[random.random(n) < 0.05, 2] = np.nan
    matrix[random.random(n) < 0.05, 0] = np.nan
    return matrix, target.astype(np.float64)


def labels(target, task):
    if task == "binary":
        return np.where(target > np.median(target), "late", "fine").astype(object)
    return np.array(["short", "middle", "long"], dtype=object)[np.digitize(target, np.quantile(target, [0.3, 0.6]))]


def run(matrix, target, task="regression", candidates=(ridge(), lightgbm()), **more):
    options = {"trials": 6, "timeout": None, "seed": 0, "order": np.arange(len(matrix))} | more
    order = options.pop("order")
    return search(matrix, target, order, task=task, candidates=candidates, specs=SPECS, **options)
