"""The parity proof: the whole served path (JSON in, transform, compiled model) against the fitted pipeline."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import polars as pl

from mulle.core.errors import BundleError
from mulle.core.records.base import to_json
from mulle.core.records.model import Parity
from mulle.kernel.bundle import Predictor
from mulle.kernel.fitted import Estimator, answers
from mulle.kernel.transform import encode, frame_from_rows

__all__ = ["PROOF_ROWS", "prove"]

PROOF_ROWS = 5_000
"""Rows compared, at most; evenly spaced over what is given."""


def prove(
    fitted: Estimator, predictor: Predictor, joined: pl.DataFrame, *, tolerance: float, now: datetime, limit: int = PROOF_ROWS
) -> Parity:
    """Prove that the served path answers like the fitted pipeline.

    Offline, the rows are transformed and encoded as training does and the fitted pipeline answers. As served, the raw
    inputs are written as JSON, read back, checked and cast by the contract, given the same joined columns, and the
    predictor answers.

    Parameters
    ----------
    fitted : Estimator
        What was fitted, or refitted.
    predictor : Predictor
        The model that will be served; `Predictor.assemble` makes one before there is a bundle.
    joined : polars.DataFrame
        Holdout rows: the contract's inputs and the joined columns (``join.column``).
    tolerance : float
        A row agrees when ``|a - b| <= tolerance * scale``.
    now : datetime
        Stands in for a missing time.
    limit : int

    Returns
    -------
    Parity
        Scale is the contract's for regression, 1 for probabilities.

    Raises
    ------
    BundleError
        When there are no rows that a request can carry, or an input is missing.
    """
    contract = predictor.contract
    missing = [f.name for f in contract.inputs if f.name not in joined.columns]
    if missing or not joined.height:
        found = f"the columns {', '.join(missing)} are missing" if missing else "there are no rows"
        raise BundleError(f"{contract.model}: parity cannot be proved, {found}", next="give joined rows of the holdout")
    joined = _askable(joined, [f.name for f in contract.inputs])
    rows = joined if joined.height <= limit else joined.gather_every(-(-joined.height // limit))
    offline = answers(fitted, encode(predictor.transform(rows), contract.features), contract.task)
    served = predictor.run(encode(predictor.transform(_through_json(rows, predictor, now)), contract.features))
    scale = contract.scale if contract.task == "regression" and contract.scale > 0 else 1.0
    distance = np.abs(offline - served).max(axis=1) / scale
    distance = np.where(np.isfinite(distance), distance, np.inf)
    return Parity(
        tolerance=tolerance,
        scale=scale,
        rows=rows.height,
        worst=float(distance.max()),
        outside=float(np.mean(distance > tolerance)),
    )


def _askable(joined: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Leave out rows with an infinite number among the inputs: a table can hold them, and a request is refused for them."""
    numbers = [pl.col(name).is_finite().fill_null(True) for name in names if joined.schema[name].is_float()]
    rows = joined.filter(*numbers) if numbers else joined
    if not rows.height:
        raise BundleError("parity cannot be proved, every holdout row has an infinite input", next="clean the numbers")
    return rows


def _through_json(rows: pl.DataFrame, predictor: Predictor, now: datetime) -> pl.DataFrame:
    contract = predictor.contract
    names = [f.name for f in contract.inputs]
    asked = json.loads(json.dumps([to_json(row) for row in rows.select(names).iter_rows(named=True)]))
    read = frame_from_rows(asked, contract.inputs, model=contract.model, time=contract.time, now=now)
    prefixes = tuple(f"{join.name}." for join in contract.joins)
    return read.hstack(rows.select(c for c in rows.columns if prefixes and c.startswith(prefixes)))
