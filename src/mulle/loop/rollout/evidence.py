"""Reading the prediction log back: answered rows, labels, and paired losses of a canary."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import orjson
import polars as pl

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.errors import ContractError, NotFound
from mulle.core.ports.lake import Lake
from mulle.core.records.bundle import Contract
from mulle.core.records.prediction import ASIDE, LABELS, PREDICTIONS
from mulle.kernel.metrics import losses
from mulle.lifecycle.monitoring.decode import tally
from mulle.lifecycle.monitoring.outcomes import answered, with_outcomes

__all__ = [
    "answered_times", "answered_with_truth", "labels_between", "paired", "predictions_between", "refused_fields", "rows_of",
    "shares_of", "truth_of",
]  # fmt: skip


_PAIRS = pl.Schema(
    [("cluster", pl.String), ("time", pl.Datetime("us", "UTC")), ("champion", pl.Float64), ("challenger", pl.Float64)]
)


def predictions_between(
    lake: Lake, model: str, start: datetime, end: datetime, *, members: bool = False, refused: bool = False
) -> pl.DataFrame:
    """Read a model's logged predictions by row time, shadow scores included, and what was `refused` where it is asked for; of
    a fleet, those of its members too.

    Returns
    -------
    DataFrame
        Empty, without columns, when nothing was logged yet.
    """
    rows = _between(lake, PREDICTIONS, model, "time", start, end, members)
    return rows.filter(pl.col("route") != "refused") if rows.width and not refused else rows


def answered_times(lake: Lake, model: str, start: datetime, end: datetime, *, members: bool = False) -> pl.Series:
    """Give the row times of what the deployment's routes answered in a span."""
    try:
        rows = lake.scan(PREDICTIONS)
    except NotFound:
        return pl.Series("time", [], dtype=pl.Datetime("us", "UTC"))
    mine = _of_span(rows, PREDICTIONS, model, "time", start, end, members).filter(~pl.col("route").is_in(ASIDE))
    return mine.select("id", "time").unique("id").collect()["time"]


def refused_fields(lake: Lake, model: str, start: datetime, end: datetime) -> dict[str, int]:
    """Count the rows that were refused in a span by the field that broke the contract, where the log names it."""
    rows = predictions_between(lake, model, start, end, refused=True)
    if not rows.width:
        return {}
    return tally(rows.filter((pl.col("route") == "refused") & (pl.col("error") == ContractError.slug))["unseen"])


def labels_between(lake: Lake, model: str, start: datetime, end: datetime, *, members: bool = False) -> pl.DataFrame:
    """Read a model's labels by the time they became known; of a fleet, those of its members too.

    Labels that name a prediction and no model are among them, whosever they are.
    """
    return _between(lake, LABELS, model, "known_at", start, end, members)


def paired(
    scored: pl.DataFrame, known: pl.DataFrame, model: Model, contract: Contract, *, champion: int, challenger: int, now: datetime
) -> pl.DataFrame:
    """Return the losses of champion and challenger on the rows that both scored and that have labels by now.

    Parameters
    ----------
    scored, known : DataFrame
        Rows of the log and labels, as `predictions_between` and `labels_between` give them.

    Returns
    -------
    DataFrame
        ``cluster`` (key text), ``time``, ``champion`` and ``challenger`` (float64 losses); one row per row scored by both.
    """
    empty = pl.DataFrame(schema=_PAIRS)
    if scored.is_empty() or known.is_empty():
        return empty
    rows = with_outcomes(scored, known, now).filter("labelled")
    a, b = (rows.filter(pl.col("version") == v).unique("request", keep="last") for v in (champion, challenger))
    pairs = a.join(b, on="request", suffix="_b").sort("time", "request")
    if pairs.is_empty():
        return empty
    truth = truth_of(pairs["truth"], model)
    sides = {}
    for name, suffix in (("champion", ""), ("challenger", "_b")):
        shares = shares_of(pairs["probabilities" + suffix], contract)
        sides[name] = losses(model.task, truth, truth_of(pairs["value" + suffix], model), shares, contract.classes)
    cluster = pairs["key_text"].fill_null(pairs["request"])
    return pl.DataFrame({"cluster": cluster, "time": pairs["time"], **sides})


def rows_of(model: str) -> pl.Expr:
    """Tell rows of a model by their ``model``: those of a member alone, or of a fleet with all its members."""
    own = pl.col("model") == model
    return own if key_of(model) else own | pl.col("model").str.starts_with(f"{model}/")


def answered_with_truth(lake: Lake, model: str, version: int, start: datetime, now: datetime) -> pl.DataFrame:
    """Read what a version answered as the deployment's routes wanted, of rows after `start`, with the truth known by `now`.

    Returns
    -------
    DataFrame
        Rows of the log with ``truth`` (text), the last of each row; empty when there is none.
    """
    scored = predictions_between(lake, model, start + timedelta(microseconds=1), now)
    known = labels_between(lake, fleet_of(model), start, now + timedelta(microseconds=1), members=True)
    if scored.is_empty() or known.is_empty():
        return pl.DataFrame()
    mine = answered(scored).filter(pl.col("version") == version).unique("request", keep="last", maintain_order=True)
    return with_outcomes(mine, known, now).filter("labelled")


def truth_of(values: pl.Series, model: Model) -> np.ndarray:
    """Give answers or labels of the log as a task's metrics take them: float64, or classes as text."""
    if model.task == "regression":
        return values.cast(pl.Float64, strict=False).to_numpy()
    return values.cast(pl.String).to_numpy()


def shares_of(texts: pl.Series, contract: Contract) -> np.ndarray | None:
    """Give logged probabilities as an array of shape (n, classes), in the contract's order; None for regression."""
    if contract.task == "regression":
        return None
    decoded = [orjson.loads(t) if t else {} for t in texts.to_list()]
    return np.array([[d.get(c, 0.0) for c in contract.classes] for d in decoded])


def _between(lake: Lake, table: str, model: str, column: str, start: datetime, end: datetime, members: bool) -> pl.DataFrame:
    try:
        rows = _of_span(lake.scan(table), table, model, column, start, end, members)
    except NotFound:
        return pl.DataFrame()
    # Several connections log in no fixed order; sums over rows must not depend on it.
    return rows.collect().sort(column, "id")


def _of_span(
    rows: pl.LazyFrame, table: str, model: str, column: str, start: datetime, end: datetime, members: bool
) -> pl.LazyFrame:
    mine = rows_of(model) if members else pl.col("model") == model
    mine = mine | (pl.col("model") == "") if table == LABELS else mine
    first, last = start.strftime("%Y-%m-%d"), end.strftime("%Y-%m-%d")
    return rows.filter(
        pl.col("day").is_between(pl.lit(first), pl.lit(last)),
        mine,
        pl.col(column) >= start,
        pl.col(column) < end,
    )
