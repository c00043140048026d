"""Stage 8, drift and quality: a window's histograms held against the training reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import polars as pl

from mulle.core.declare.monitor import Monitor
from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.window import Signal
from mulle.kernel.histograms import count, count_values, null_rate, psi, sampling_noise

__all__ = ["PREDICTION", "decode_features", "drift_signals", "judge_drift", "quality_signals"]

PREDICTION = "prediction"
"""What a signal on the answers themselves has for a feature."""


def decode_features(texts: pl.Series, specs: Sequence[FeatureSpec]) -> pl.DataFrame:
    """Read the prediction log's ``features`` column.

    Parameters
    ----------
    texts : polars.Series of String, shape (rows,)
        One JSON object a row; a member that is missing reads as null.
    specs : sequence of FeatureSpec

    Returns
    -------
    polars.DataFrame, shape (rows, features)
        Float64 for numbers, Datetime for times, String for categories and text, lists for lists.

    Raises
    ------
    DataError
        When a text is not JSON.

    Examples
    --------
    >>> specs = [FeatureSpec(name="x", kind="number"), FeatureSpec(name="c", kind="category")]
    >>> decode_features(pl.Series(['{"x": 1, "c": "a"}', '{"x": null}']), specs).rows()
    [(1.0, 'a'), (None, None)]
    """
    try:
        rows = [orjson.loads(text) if text else {} for text in texts.to_list()]
    except ValueError as error:
        raise DataError("a logged row's features are not JSON", next="see `mulle doctor`") from error
    kinds = {spec.column: spec.kind for spec in reversed(specs)}
    columns = {name: _read([row.get(name) for row in rows], kinds[name]) for name in dict.fromkeys(s.column for s in specs)}
    return pl.DataFrame(columns)


def judge_drift(expected: Json, actual: Json, bound: float, feature: str, rows_are_few: bool) -> Signal:
    """Hold one entry's PSI, less what sampling alone would give, against the bound.

    In a window of 200 rows and 30 cells sampling alone gives about 0.15, so the raw index would alarm on nothing:
    `sampling_noise` (with its source) is subtracted, and what would be below 0 is 0.

    Parameters
    ----------
    expected, actual : Json
        Entries of the reference and of the window.
    bound : float
    feature : str
    rows_are_few : bool
        The window is too small to be judged.

    Returns
    -------
    Signal
        ``psi``; value None when either side holds nothing but nulls.
    """
    n, m = (entry["rows"] - entry["nulls"] for entry in (expected, actual))
    if not n or not m:
        return Signal(feature=feature, signal="psi", value=None, bound=bound, verdict="too_few")
    value = max(0.0, psi(expected, actual) - sampling_noise(expected, actual))
    return Signal(feature=feature, signal="psi", value=value, bound=bound, verdict=_verdict(value, bound, rows_are_few))


def drift_signals(monitor: Monitor, features: pl.DataFrame, answers: pl.Series, reference: Json) -> tuple[Signal, ...]:
    """Judge the drift of every feature and of the answers.

    Parameters
    ----------
    monitor : Monitor
    features : polars.DataFrame, shape (rows, features)
    answers : polars.Series, shape (rows,)
    reference : Json
        What `build_reference` gave.
    """
    counted, bound = count(features, reference), monitor.drift.bound
    signals = []
    for name, expected in reference["features"].items():
        actual = counted["features"][name]
        few = actual["rows"] - actual["nulls"] < monitor.min_rows
        signals.append(judge_drift(expected, actual, bound, name, few))
    given = count_values(answers, reference["prediction"])
    signals.append(judge_drift(reference["prediction"], given, bound, PREDICTION, answers.len() < monitor.min_rows))
    return tuple(signals)


def quality_signals(monitor: Monitor, features: pl.DataFrame, unseen: pl.Series, reference: Json) -> tuple[Signal, ...]:
    """Judge nulls of every feature and categories never seen in training.

    ``null_rate`` is bounded by the reference's rate plus the declared bound; ``unseen`` is the share of rows that
    serving marked, bounded by the declared bound alone (training has none by definition).

    Parameters
    ----------
    monitor : Monitor
    features : polars.DataFrame, shape (rows, features)
    unseen : polars.Series of String, shape (rows,)
        JSON text: the names of the features whose category was never seen.
    reference : Json
    """
    counted, bound, few = count(features, reference), monitor.quality.bound, features.height < monitor.min_rows
    marked = _tally(unseen)
    signals = []
    for name, expected in reference["features"].items():
        actual = counted["features"][name]
        if not actual["rows"]:
            continue
        rate, most = null_rate(actual), min(1.0, null_rate(expected) + bound)
        signals.append(Signal(feature=name, signal="null_rate", value=rate, bound=most, verdict=_verdict(rate, most, few)))
        if expected["kind"] == "category":
            share = marked.get(name, 0) / actual["rows"]
            signals.append(Signal(feature=name, signal="unseen", value=share, bound=bound, verdict=_verdict(share, bound, few)))
    return tuple(signals)


def _verdict(value: float, bound: float, rows_are_few: bool) -> str:
    if rows_are_few:
        return "too_few"
    return "alarm" if value > bound else "pass"


def _read(values: list[Any], kind: str) -> pl.Series:
    if kind == "item" or any(isinstance(v, list) for v in values):
        inner = pl.Float64 if kind == "item" else pl.String
        return pl.Series([v if isinstance(v, list) else None for v in values], dtype=pl.List(inner), strict=False)
    if kind != "number":
        return pl.Series([_text(v) for v in values], dtype=pl.String)
    if any(isinstance(v, str) for v in values):  # a time is a number that is logged as text
        texts = pl.Series([v if isinstance(v, str) else None for v in values], dtype=pl.String)
        return texts.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    return pl.Series(values, dtype=pl.Float64, strict=False)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _tally(unseen: pl.Series) -> dict[str, int]:
    lists = unseen.to_list() if unseen.dtype != pl.String else [orjson.loads(t) if t else [] for t in unseen.to_list()]
    tally: dict[str, int] = {}
    for names in lists:
        for name in names or ():
            tally[name] = tally.get(name, 0) + 1
    return tally
