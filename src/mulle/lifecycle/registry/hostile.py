"""Hostile rows: what a served path does with nulls, unseen codes, extremes, empty and long text, and infinities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import polars as pl

from mulle.core.errors import ContractError
from mulle.core.records.base import Json, to_json
from mulle.core.records.bundle import Contract
from mulle.core.records.evaluation import Failures
from mulle.kernel.bundle import Predictor
from mulle.kernel.transform import frame_from_rows

__all__ = ["KINDS", "try_bad_input"]

_TEXT, _NUMBER, _WHOLE, _TIME = "String", "Float64", "Int64", "Datetime(us, UTC)"

KINDS: Mapping[str, Mapping[str, Sequence[object]]] = {
    "nulls": {_TEXT: [None], _NUMBER: [None, math.nan], _WHOLE: [None], _TIME: [None], "Boolean": [None]},
    "unseen codes": {_TEXT: ["\u2603 never seen"], _WHOLE: [987_654_321]},
    "extremes": {
        _NUMBER: [1.7e308, -1.7e308, 5e-324],
        _WHOLE: [2**63 - 1, -(2**63)],
        _TIME: ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"],
    },
    "empty text": {_TEXT: ["", " "]},
    "long text": {_TEXT: ["\U0001f6a9" * 10_000]},
    "infinities": {_NUMBER: [math.inf, -math.inf]},
}
"""Kind to the values it puts into columns of each type."""

_MOST_COLUMNS = 50
_SAID = 160
_LOOKED = 1_000


def try_bad_input(predictor: Predictor, joined: pl.DataFrame, *, now: datetime) -> Failures:
    """Send hostile rows through the served path: contract, transform, encoding and model.

    Parameters
    ----------
    predictor : Predictor
    joined : polars.DataFrame
        Joined rows; one with the fewest nulls is made hostile, in each of its first fifty columns alone and in all of them at
        once. A joined column becomes null, as when the online store knows nothing.
    now : datetime
        Stands in for a missing time.

    Returns
    -------
    Failures
        A row may be answered with a number or a class, or be refused by a ContractError; all else is a failure.
    """
    answered = refused = tried = 0
    failed: dict[str, str] = {}
    for kind, what, request, beside in _hostile(predictor.contract, joined):
        tried += 1
        try:
            problem = _answer(predictor, request, beside, now)
        except ContractError:
            refused += 1
            continue
        except (Exception, pl.exceptions.PanicException) as error:
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            answered += 1
        elif kind not in failed:
            failed[kind] = f"{what}: {' '.join(problem.split())[:_SAID]}"
    return Failures(rows=tried, answered=answered, refused=refused, failed=failed)


def _hostile(contract: Contract, joined: pl.DataFrame) -> Iterator[tuple[str, str, Json, pl.DataFrame]]:
    """Give kind, what was done, the request's row as JSON would carry it, and its joined columns."""
    # What is made hostile was whole before: else a null of its own would be blamed on every kind.
    few = joined.head(_LOOKED)
    first = few.sort(pl.sum_horizontal(pl.all().is_null()), maintain_order=True).head(1)
    inputs = {f.name: f.dtype for f in contract.inputs}
    good: Json = to_json(first.select(list(inputs)).row(0, named=True))
    beside = first.select(c for c in first.columns if c not in inputs)
    for kind, values in KINDS.items():
        for name in list(inputs)[:_MOST_COLUMNS]:
            for value in values.get(inputs[name], ()):
                yield kind, f"{name} is {_shown(value)}", {**good, name: value}, beside
        for turn in range(max(len(given) for given in values.values())):
            made = {n: values[t][turn % len(values[t])] for n, t in inputs.items() if t in values and n not in contract.key}
            yield kind, "in all columns at once", {**good, **made}, beside
    for name in beside.columns[:_MOST_COLUMNS]:
        yield "nulls", f"{name} is null", good, _emptied(beside, [name])
    if beside.width:
        yield "nulls", "no join has a value", good, _emptied(beside, beside.columns)


def _answer(predictor: Predictor, request: Json, beside: pl.DataFrame, now: datetime) -> str:
    """Answer one row; says what is wrong with the answer, or nothing."""
    contract = predictor.contract
    # JSON has no infinity, but Python's reader takes one, and so do Arrow and CSV.
    rows = [json.loads(json.dumps(request))]
    frame = frame_from_rows(rows, contract.inputs, model=contract.model, time=contract.time, now=now)
    said = predictor.score(predictor.transform(frame.hstack(beside)))
    told = said.values if said.probabilities is None else said.probabilities.ravel().tolist()
    wrong = [value for value in told if not math.isfinite(float(value))]
    return f"the answer is {wrong[0]}" if wrong else ""


def _emptied(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return frame.with_columns(pl.lit(None, dtype=frame.schema[name]).alias(name) for name in names)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
