"""Evidently's side: its default tests of each column, thresholds moved until 1 model in 20 alarms for nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
from evidently.legacy.core import ColumnType

from benchmarks.drifting import GRADES, Rows, categories, numbers, reference, windows
from benchmarks.side import Work

__all__ = ["watch"]

_RATE = 0.05


def watch(folder: Path) -> Work:
    """Watch models that stay as they are, tune by them, then watch drifting ones.

    Numbers, the truth and the answers by normed Wasserstein distance, categories by Jensen-Shannon distance: what its preset
    takes with more than 1,000 rows of reference. Nulls are left out, as there.
    """
    size = json.loads((folder / "size.json").read_text())

    def run() -> dict:
        found = np.array([[_largest(values) for values in _told(seed, size, size["windows"])] for seed in range(size["seeds"])])
        highest = found.max(axis=1)
        # Each of both kinds of tests has half of the alarms.
        bounds = np.quantile(highest, 1 - _RATE / 2, axis=0, method="higher")
        alarmed = [bool(np.any(row > bounds)) for row in highest]
        delays = {
            kind: {str(g): [_delay(seed, size, kind, g, bounds) for seed in range(size["drifting"])] for g in grades}
            for kind, grades in GRADES.items()
        }
        return {"alarmed": alarmed, "delays": delays, "note": f"thresholds {bounds[0]:.3f} and {bounds[1]:.3f} for 0.1 and 0.1"}

    return Work(run=run, keep=lambda told, path: path.with_suffix(".json").write_text(json.dumps(told)))


def _told(seed: int, size: dict, count: int, kind: str = "", grade: float = 0.0) -> Iterator[tuple[list[float], list[float]]]:
    known = _series(reference(seed, size))
    for rows in windows(seed, size, count, kind, grade):
        now = _series(rows)
        wide = [
            wasserstein_stat_test.func(known[n], now[n], ColumnType.Numerical, 0.1)[0] for n in (*numbers(size), "y", "answer")
        ]
        coded = [jensenshannon_stat_test.func(known[n], now[n], ColumnType.Categorical, 0.1)[0] for n in categories(size)]
        yield wide, coded


def _largest(values: tuple[list[float], list[float]]) -> tuple[float, float]:
    return max(values[0]), max(values[1])


def _delay(seed: int, size: dict, kind: str, grade: float, bounds: np.ndarray) -> int | None:
    told = _told(1_000 + seed, size, size["horizon"], kind, grade)
    hits = (number for number, values in enumerate(told, 1) if any(v > b for v, b in zip(_largest(values), bounds, strict=True)))
    return next(hits, None)


def _series(rows: Rows) -> dict[str, pd.Series]:
    return {name: pd.Series(values).dropna() for name, values in rows.items()}
