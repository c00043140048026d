"""Rows of a model in service that stay as they are, or drift by a kind and a grade from their first window on; NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["GRADES", "Rows", "categories", "numbers", "reference", "windows"]

Rows = dict[str, np.ndarray]
"""Columns ``x0`` ... (numbers, NaN for null), ``c0`` ... (codes), ``y`` (the truth) and ``answer``."""

GRADES = {
    "mean": (0.05, 0.1, 0.2, 0.4),
    "variance": (1.05, 1.1, 1.2, 1.5),
    "category": (0.03, 0.06, 0.12, 0.24),
    "missing": (0.02, 0.05, 0.1, 0.2),
    "concept": (0.25, 0.5, 0.75, 1.0),
}
"""By kind of drift: standard deviations, times the standard deviation, share moved, further nulls, weight of a new cause."""

_NULLS = 0.02


def numbers(size: Mapping[str, int]) -> list[str]:
    """Name the numbers: four of five features."""
    return [f"x{i}" for i in range(size["features"] - size["features"] // 5)]


def categories(size: Mapping[str, int]) -> list[str]:
    """Name the categories."""
    return [f"c{i}" for i in range(size["features"] // 5)]


def reference(seed: int, size: Mapping[str, int]) -> Rows:
    """Give the rows that a model was trained on."""
    return _rows(np.random.default_rng([seed, 0]), size, size["reference"], "", 0.0)


def windows(seed: int, size: Mapping[str, int], count: int, kind: str = "", grade: float = 0.0) -> Iterator[Rows]:
    """Give one window of rows after the other; without a kind nothing changes."""
    random = np.random.default_rng([seed, 1, sum(map(ord, kind)), round(1000 * grade)])
    for _ in range(count):
        yield _rows(random, size, size["rows"], kind, grade)


def _rows(random: np.random.Generator, size: Mapping[str, int], rows: int, kind: str, grade: float) -> Rows:
    found: Rows = {name: random.standard_normal(rows) for name in numbers(size)}
    shares = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    for name in categories(size):
        moved = grade * np.array([-1, 0, 0, 0, 0, 0, 0, 1]) if kind == "category" and name == "c0" else 0.0
        found[name] = random.choice(8, rows, p=shares + moved)
    noise = random.standard_normal(rows)
    if kind == "mean":
        found["x0"] = found["x0"] + grade
    if kind == "variance":
        found["x0"] = found["x0"] * grade
    found["answer"] = found["x0"] + found["x1"] + found["x2"]
    found["y"] = found["answer"] + noise + (grade * found["x3"] if kind == "concept" else 0.0)
    nulls = _NULLS + (grade if kind == "missing" else 0.0)
    found["x3"] = np.where(random.random(rows) < nulls, np.nan, found["x3"])
    return found
