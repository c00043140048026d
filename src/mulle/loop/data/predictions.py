"""The prediction log as a table to ask: what was answered, joined with the labels that came, in the lake or still in the log."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from mulle.core.clock import duration, instant
from mulle.core.declare.fleet import fleet_of
from mulle.core.errors import NotFound, UsageError
from mulle.core.records.base import Json, to_json
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.kernel.dtypes import schema_text
from mulle.lifecycle.data.sql import answer
from mulle.lifecycle.monitoring.outcomes import with_outcomes
from mulle.lifecycle.serving.log import log_folder
from mulle.lifecycle.serving.undrained import undrained
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import rows_of
from mulle.loop.views.chain import model_names

__all__ = ["logged_predictions", "logged_rows", "predictions_view"]

_NEWEST = "select id, created_at, model, version, route, key, value, label, error from predictions order by created_at desc, id"
_FLEET = pl.col("model").str.split("/").list.first()


def predictions_view(
    parts: Parts, model: str | None = None, *, sql: str | None = None, since: str = "1d", limit: int = 50
) -> Json:
    """Answer a SELECT over the table ``predictions`` (DuckDB's SQL, without files, network or settings).

    Parameters
    ----------
    model : str, optional
        Only this model's, a fleet's with those of its members, or one member's. Of a regression ``value`` and ``label`` are
        then numbers; they are text where models of several kinds stand in one table.
    sql : str, optional
        The newest answers by default.
    since : str
        A duration back from now, or a time: rows logged from then on.
    limit : int
        Most rows given.

    Returns
    -------
    dict
        ``items``: a row each; ``columns`` with their types.

    Raises
    ------
    NotFound
        When there is no such model.
    UsageError
        When the query fails; names the columns that there are.
    """
    if model is not None and model not in model_names(parts):
        parts.project.model(model)
    rows = logged_predictions(parts, model, since=_since(since, parts.clock.now()))
    try:
        found = answer(sql or _NEWEST, {"predictions": rows.lazy()}, limit=limit)
    except UsageError as error:
        columns = f"the table is predictions, its columns: {', '.join(rows.columns)}"
        raise UsageError(error.detail, next=f"{error.next}; {columns}", **error.facts) from error
    return {"items": to_json(found.to_dicts()), "next": None, "columns": schema_text(found)}


def logged_predictions(parts: Parts, model: str | None, *, since: datetime) -> pl.DataFrame:
    """Read what was logged from an instant on, drained or not, each row with its ``label`` (null while there is none).

    Returns
    -------
    polars.DataFrame
        The table's columns, ``label``, and ``labelled`` (a label came, or word that none will).
    """
    now = parts.clock.now()
    mine = pl.lit(True) if model is None else rows_of(model)
    rows = logged_rows(parts, PREDICTIONS, mine & (pl.col("created_at") >= since))
    labels = logged_rows(parts, LABELS, pl.lit(True) if model is None else rows_of(fleet_of(model)) | (pl.col("model") == ""))
    joined = [_with_labels(part, labels, now) for _, part in sorted(rows.group_by(_FLEET), key=lambda pair: str(pair[0]))]
    table = pl.concat(joined) if joined else _with_labels(rows, labels, now)
    declared = parts.project.models.get((model or "").partition("/")[0])
    if declared is not None and declared.task == "regression":
        table = table.with_columns(pl.col("value", "label").cast(pl.Float64, strict=False))
    return table


def _with_labels(rows: pl.DataFrame, labels: pl.DataFrame, now: datetime) -> pl.DataFrame:
    # One that names a prediction may leave the model out; one by key may name a fleet for its member.
    name = fleet_of(rows["model"][0]) if rows.height else ""
    known = labels.filter(_FLEET.eq(name) | (pl.col("model") == ""))
    told = with_outcomes(rows, known, now)
    return told.with_columns(label="truth", labelled=pl.col("labelled") | pl.col("never")).drop("truth", "never")


def logged_rows(parts: Parts, table: str, wanted: pl.Expr) -> pl.DataFrame:
    """Read the rows of `PREDICTIONS` or `LABELS` that are wanted, those first that the lake has, then those still in the log."""
    waiting = undrained(log_folder(parts.settings.home), parts.lake, table)
    try:
        there = parts.lake.scan(table).filter(wanted).collect()
    except NotFound:
        return waiting.filter(wanted)
    # Rows of before have not every column of today.
    return pl.concat([there, waiting.filter(wanted)], how="diagonal_relaxed").unique("id", keep="first", maintain_order=True)


def _since(text: str, now: datetime) -> datetime:
    try:
        span: timedelta | None = duration(text)
    except UsageError:
        span = None
    return now - span if span is not None else instant(text)
