"""Latency of one row inside the runtime: what the p99 gate is judged by."""

from __future__ import annotations

import time

import numpy as np
import polars as pl

from mulle.kernel.bundle import Predictor

__all__ = ["measure_p99"]

_WARM = 20


def measure_p99(predictor: Predictor, frame: pl.DataFrame, n: int = 200) -> float:
    """Measure the 99th percentile of one-row answers: transform, encoding and model, in this process.

    Parameters
    ----------
    predictor : Predictor
    frame : polars.DataFrame
        Joined rows to take from, at least one.
    n : int
        Answers that are measured, after a few that are not.

    Returns
    -------
    float
        Seconds.
    """
    taken = []
    for number in range(n + _WARM):
        row = frame[number % frame.height]
        began = time.perf_counter()
        predictor.score(predictor.transform(row))
        taken.append(time.perf_counter() - began)
    return float(np.quantile(taken[_WARM:], 0.99))
