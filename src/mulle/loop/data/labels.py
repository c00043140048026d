"""Labels told by hand or by file: what people found out, by prediction id or by key and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
import polars as pl

from mulle.core.declare.fleet import fleet_of
from mulle.core.declare.model import Model
from mulle.core.errors import ContractError, NotFound
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json, to_json
from mulle.core.records.prediction import LABELS, PREDICTIONS, Label
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.labels import Remembered, read_labels
from mulle.lifecycle.serving.log import log_folder
from mulle.lifecycle.serving.rows import label_rows
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import rows_of

__all__ = ["import_labels", "unsaid"]

_NAMED = pl.col("prediction_id").is_not_null()
_WHOSE = {
    "_model": pl.when(~_NAMED).then("model"),  # who names a prediction may leave its model out
    "_prediction": pl.col("prediction_id"),
    "_key": pl.when(~_NAMED).then("key_text"),
    "_time": pl.when(~_NAMED).then("time"),
}
_SAME = [*_WHOSE, "value", "reason"]
_PORTION = 10_000


def import_labels(parts: Parts, model: str, rows: Sequence[Json], *, by: str, untyped: bool = False) -> Json:
    """Take labels into the log, beside those that come over HTTP.

    Parameters
    ----------
    model : str
    rows : sequence of dict
        Members: ``prediction_id``, or the dataset's key columns (also as one object ``key``) and its time (also as
        ``time``); ``value`` or the target's name; optionally ``known_at`` (default now) and ``reason`` (beside an empty
        value: none will come, and why).
    by : str
        Who says so; kept with each label.
    untyped : bool
        Values are text, as a CSV has them; they are read by the dataset's types.

    Returns
    -------
    dict
        ``accepted``, ``duplicates`` (the last word on that row already), ``unknown`` (labels whose prediction id is not
        in the log), ``by``, ``id`` and ``created_at``. A correction is a new record; the last one known counts.

    Raises
    ------
    ContractError
        When a label cannot be understood; names its row. None is taken then.
    """
    declared, now = parts.project.model(model), parts.clock.now()
    dataset = declared.features.dataset
    items = _items(parts, declared, rows, untyped)
    labels: list[Label] = []
    impossible: list[Json] = []
    for first in range(0, len(items), _PORTION):
        receipt = read_labels(
            {"model": model, "labels": items[first : first + _PORTION]},
            now=now,
            known=lambda name: name == model,
            columns=lambda _: dataset.key,
            remembered=Remembered(),
            most=_PORTION,
            by=by,
            hidden=lambda _: declared.log.redact,
        )
        labels += receipt.labels
        impossible += [{**items[first + int(str(u["index"]))], "why": u["why"]} for u in receipt.unknown]
    # A prediction that was given a moment ago can be labelled.
    drain(log_folder(parts.settings.home), parts.lake, now=now)
    told = label_rows([orjson.dumps(to_json(labels))]) if labels else pl.DataFrame()
    fresh, lost = _known(parts, unsaid(parts, told))
    unknown = [{"prediction_id": u["prediction_id"], "why": u["why"]} for u in (*impossible, *lost)]
    batch = hash_json([to_json(now), model, fresh["id"].to_list() if fresh.height else []])[:16]
    if fresh.height:
        parts.lake.append(LABELS, fresh, application=f"labels-{batch}", sequence=1, partition_by=["day"])
    counts = {"accepted": fresh.height, "duplicates": len(items) - fresh.height - len(unknown), "unknown": unknown}
    return {"id": batch, "created_at": to_json(now), "model": model, "by": by, **counts}


def _items(parts: Parts, model: Model, rows: Sequence[Json], untyped: bool) -> list[Json]:
    dataset = model.features.dataset
    version = parts.metadata.datasets.get(dataset.name)
    types = version.schema if version is not None and untyped else {}
    items = []
    for index, row in enumerate(rows):
        member = "value" if "value" in row else model.target
        # Without the member the label has no value either, and is refused by name where labels are read.
        item: Json = {"value": _value(row[member], index, model, untyped)} if member in row else {}
        key = row.get("key") or {name: row[name] for name in dataset.key if row.get(name) not in (None, "")}
        if row.get("prediction_id"):
            item["prediction_id"] = row["prediction_id"]
        elif key:
            item["key"] = {name: _typed(given, types.get(name, "")) for name, given in key.items()}
            time = row.get("time") or (row.get(dataset.time) if dataset.time else None)
            item |= {"time": time} if time else {}
        item |= {name: row[name] for name in ("known_at", "reason") if row.get(name)}
        items.append(item)
    return items


def _value(value: Any, index: int, model: Model, untyped: bool) -> Any:
    if value == "" or value is None:
        return None
    if model.task != "regression" or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    try:
        number = float(value) if untyped else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise ContractError(
        f"label {index}: value is {value!r}, and {model.target} of {model.name} is a number",
        next="send a number, or null where none will come",
        row=index,
        field="value",
    )


def _typed(value: Any, kind: str) -> Any:
    try:
        return int(value) if "Int" in kind else float(value) if kind.startswith("Float") else value
    except (TypeError, ValueError):
        return value


def unsaid(parts: Parts, rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out the labels, all of one model, that the table has word for word as its last, whoever told them and how."""
    if rows.is_empty():
        return rows
    rows = rows.with_columns(**_WHOSE).unique(_SAME, keep="first", maintain_order=True)
    mine = (pl.col("model") == rows["model"][0]) | (_NAMED & (pl.col("model") == ""))
    try:
        known = parts.lake.scan(LABELS).filter(mine).select("value", "reason", "known_at", **_WHOSE).collect()
    except NotFound:
        return rows.drop(list(_WHOSE))
    # Only the last word of a label is compared: going back to an earlier value is a correction as well.
    last = known.sort("known_at", maintain_order=True).unique(list(_WHOSE), keep="last")
    return rows.join(last, on=_SAME, how="anti", nulls_equal=True, maintain_order="left").drop(list(_WHOSE))


def _known(parts: Parts, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[Json]]:
    """Part labels whose prediction is in the log from those that name one that is not."""
    if rows.is_empty() or rows["prediction_id"].null_count() == rows.height:
        return rows, []
    try:
        known = parts.lake.scan(PREDICTIONS).filter(rows_of(fleet_of(rows["model"][0]))).select("id").collect()["id"]
    except NotFound:
        known = pl.Series("id", [], dtype=pl.String)
    lost = rows.filter(pl.col("prediction_id").is_not_null() & ~pl.col("prediction_id").is_in(known.implode()))
    told = [{"prediction_id": id, "why": "no such prediction in the log"} for id in lost["prediction_id"].to_list()]
    return rows.filter(~pl.col("id").is_in(lost["id"].implode())), told
