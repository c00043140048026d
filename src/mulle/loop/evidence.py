"""Reading the prediction log back: answered rows, labels, and paired losses of a canary."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import orjson
import polars as pl

from mulle.core.declare.fleet import key_of
from mulle.core.declare.model import Model
from mulle.core.errors import NotFound
from mulle.core.ports.lake import Lake
from mulle.core.records.bundle import Contract
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.kernel.metrics import losses
from mulle.lifecycle.monitoring.outcomes import with_outcomes

__all__ = ["labels_between", "paired", "paired_losses", "predictions_between"]


def predictions_between(lake: Lake, model: str, start: datetime, end: datetime, *, members: bool = False) -> pl.DataFrame:
    """Read a model's logged predictions by row time, shadow scores included; of a fleet, those of its members too.

    Returns
    -------
    DataFrame
        Empty, without columns, when nothing was logged yet.
    """
    rows = _between(lake, PREDICTIONS, model, "time", start, end, members)
    return rows.filter(pl.col("route") != "refused") if rows.width else rows


def labels_between(lake: Lake, model: str, start: datetime, end: datetime, *, members: bool = False) -> pl.DataFrame:
    """Read a model's labels by the time they became known; of a fleet, those of its members too.

    Labels that name a prediction and no model are among them, whosever they are.
    """
    return _between(lake, LABELS, model, "known_at", start, end, members)


def paired_losses(
    lake: Lake, model: Model, contract: Contract, *, champion: int, challenger: int, start: datetime, now: datetime
) -> pl.DataFrame:
    """Return the losses of champion and challenger on the rows that both scored and that have labels by now.

    Returns
    -------
    DataFrame
        ``cluster`` (key text), ``champion`` and ``challenger`` (float64 losses); one row per row scored.
    """
    scored = predictions_between(lake, model.name, start, now + timedelta(microseconds=1))
    known = labels_between(lake, model.name, start, now + timedelta(microseconds=1))
    return paired(scored, known, model, contract, champion=champion, challenger=challenger, now=now)


def paired(
    scored: pl.DataFrame, known: pl.DataFrame, model: Model, contract: Contract, *, champion: int, challenger: int, now: datetime
) -> pl.DataFrame:
    """Pair what was read already; see `paired_losses`."""
    empty = pl.DataFrame(schema={"cluster": pl.String, "champion": pl.Float64, "challenger": pl.Float64})
    if scored.is_empty() or known.is_empty():
        return empty
    rows = with_outcomes(scored, known, now).filter("labelled")
    a, b = (rows.filter(pl.col("version") == v).unique("request", keep="last") for v in (champion, challenger))
    pairs = a.join(b, on="request", suffix="_b").sort("time", "request")
    if pairs.is_empty():
        return empty
    truth = _truth(pairs["truth"], model)
    sides = {}
    for name, suffix in (("champion", ""), ("challenger", "_b")):
        shares = _shares(pairs["probabilities" + suffix], contract)
        sides[name] = losses(model.task, truth, _truth(pairs["value" + suffix], model), shares, contract.classes)
    cluster = pairs["key_text"].fill_null(pairs["request"])
    return pl.DataFrame({"cluster": cluster, **sides})


def rows_of(model: str) -> pl.Expr:
    """Tell rows of a model by their ``model``: those of a member alone, or of a fleet with all its members."""
    own = pl.col("model") == model
    return own if key_of(model) else own | pl.col("model").str.starts_with(f"{model}/")


def _truth(values: pl.Series, model: Model) -> np.ndarray:
    if model.task == "regression":
        return values.cast(pl.Float64, strict=False).to_numpy()
    return values.cast(pl.String).to_numpy()


def _shares(texts: pl.Series, contract: Contract) -> np.ndarray | None:
    if contract.task == "regression":
        return None
    decoded = [orjson.loads(t) if t else {} for t in texts.to_list()]
    return np.array([[d.get(c, 0.0) for c in contract.classes] for d in decoded])


def _between(lake: Lake, table: str, model: str, column: str, start: datetime, end: datetime, members: bool) -> pl.DataFrame:
    mine = rows_of(model) if members else pl.col("model") == model
    mine = mine | (pl.col("model") == "") if table == LABELS else mine
    first, last = start.strftime("%Y-%m-%d"), end.strftime("%Y-%m-%d")
    try:
        rows = lake.scan(table)
    except NotFound:
        return pl.DataFrame()
    rows = rows.filter(
        pl.col("day").is_between(pl.lit(first), pl.lit(last)),
        mine,
        pl.col(column) >= start,
        pl.col(column) < end,
    )
    # Several connections log in no fixed order; sums over rows must not depend on it.
    return rows.collect().sort(column, "id")
