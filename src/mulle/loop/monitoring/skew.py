"""Training-serving skew: what models were given online, against what training would have joined for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from mulle.core.declare.model import Model
from mulle.core.errors import MulleError
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.model import ModelVersion
from mulle.core.records.window import Signal
from mulle.kernel.bundle import Predictor
from mulle.kernel.encode import encode
from mulle.kernel.rows import frame_from_rows
from mulle.lifecycle.features.join import join_offline
from mulle.lifecycle.monitoring.decode import decode_features
from mulle.lifecycle.monitoring.outcomes import answered
from mulle.loop.data.online import published_tables
from mulle.loop.parts import Parts

__all__ = ["differing", "skew_signals"]

_SAMPLE, _LEAST = 200, 50
"""Rows of a window that are joined again, evenly spaced; with fewer than the least nothing is said."""

_CLOSE = 1e-4
"""Two numbers are one when they differ by less, relative to the larger."""


def skew_signals(parts: Parts, model: Model, version: ModelVersion, predictions: pl.DataFrame) -> tuple[Signal, ...]:
    """Join a sample of a window's rows offline and compare each feature with what was logged.

    Parameters
    ----------
    parts : Parts
    model : Model
    version : ModelVersion
        Only rows that it answered are looked at: its features are what they were made by.
    predictions : polars.DataFrame
        The window's rows of the log.

    Returns
    -------
    tuple of Signal
        ``skew`` of each feature: the share of sampled rows where both differ. Empty for a model without joins, and where
        rows cannot be made again (a redacted column).
    """
    if not model.features.joins or not predictions.height:
        return ()
    rows = answered(predictions).filter((pl.col("version") == version.version) & (pl.col("row") != "{}")).sort("time", "id")
    if not rows.height:
        return ()
    rows = rows.gather_every(-(-rows.height // _SAMPLE))
    predictor = _opened(version.address, version.bundle)
    contract = predictor.contract
    try:
        raw = frame_from_rows(
            [orjson.loads(text) for text in rows["row"]], contract.inputs, model=model.name, time=contract.time,
            now=parts.clock.now(),
        )  # fmt: skip
        tables = {name: table.rows for name, table in published_tables(parts, predictor.features).items()}
        joined = predictor.transform(join_offline(raw, predictor.features, tables))
    except MulleError:  # a table that is gone or changed, a column that is not logged: nothing to compare with
        return ()
    specs = tuple(s for s in contract.features if s.column not in model.log.redact)
    shares = differing(decode_features(rows["features"], specs), joined, specs)
    return tuple(_signal(name, share, model.monitor.skew, rows.height) for name, share in shares.items())


def differing(online: pl.DataFrame, offline: pl.DataFrame, specs: Sequence[FeatureSpec]) -> dict[str, float]:
    """Give for each feature the share of rows in which the model would see another value.

    Parameters
    ----------
    online, offline : polars.DataFrame, shape (rows, features)
        The same rows in the same order.
    specs : sequence of FeatureSpec

    Examples
    --------
    >>> a, b = pl.DataFrame({"x": [1.0, 2.0, None]}), pl.DataFrame({"x": [1.0, 3.0, None]})
    >>> round(differing(a, b, [FeatureSpec(name="x", kind="number")])["x"], 3)
    0.333
    """
    one, other = (np.asarray(encode(frame, specs), dtype=np.float64) for frame in (online, offline))
    with np.errstate(invalid="ignore"):
        same = np.isclose(one, other, rtol=_CLOSE, atol=1e-6, equal_nan=True)
    found: dict[str, float] = {}
    for place, spec in enumerate(specs):
        found[spec.column] = max(found.get(spec.column, 0.0), float(1 - same[:, place].mean()))
    return found


def _signal(name: str, share: float, bound: float, rows: int) -> Signal:
    verdict = "too_few" if rows < _LEAST else "alarm" if share > bound else "pass"
    return Signal(feature=name, signal="skew", value=share, bound=bound, verdict=verdict)


@lru_cache(maxsize=8)
def _opened(address: str, bundle: str) -> Predictor:
    return Predictor.open(Path(address), expected=bundle)
