"""Log records as rows of the lake: one row per prediction or label, JSON-valued fields as text, numbers as text in `value`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import polars as pl

from mulle.kernel.keys import key_text

__all__ = ["LABEL_SCHEMA", "PREDICTION_SCHEMA", "label_rows", "prediction_rows"]

_INSTANT = pl.Datetime("us", "UTC")

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(), "created_at": _INSTANT, "request": pl.String(), "model": pl.String(), "version": pl.Int64(),
    "route": pl.String(), "key": pl.String(), "time": _INSTANT, "row": pl.String(), "features": pl.String(),
    "value": pl.String(), "probabilities": pl.String(), "freshness": pl.String(), "unseen": pl.String(),
    "seconds": pl.Float64(), "error": pl.String(), "day": pl.String(), "key_text": pl.String(),
}  # fmt: skip
"""Columns of the table of predictions. `value` is text: a class's label, or a number that casts to Float64.

What was refused has route ``refused``, the kind of the error, in ``unseen`` the field that broke the contract, and neither row
nor value.
"""

_REFUSED = {
    "route": "refused",
    "key": "{}",
    "row": "{}",
    "features": "{}",
    "probabilities": "{}",
    "freshness": "{}",
    "unseen": "[]",
}

LABEL_SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(), "created_at": _INSTANT, "model": pl.String(), "prediction_id": pl.String(), "key": pl.String(),
    "time": _INSTANT, "value": pl.String(), "reason": pl.String(), "known_at": _INSTANT, "by": pl.String(),
    "day": pl.String(), "key_text": pl.String(),
}  # fmt: skip
"""Columns of the table of labels; `value` as in predictions, null when none will come."""


def prediction_rows(payloads: Sequence[bytes]) -> pl.DataFrame:
    """Turn logged batches into rows of the table of predictions.

    Parameters
    ----------
    payloads : sequence of bytes
        As `score` writes them: one JSON object per batch and version.

    Returns
    -------
    polars.DataFrame
        With `PREDICTION_SCHEMA`; ``day`` is the row time's.
    """
    columns: dict[str, list[Any]] = {name: [] for name in PREDICTION_SCHEMA if name != "day"}
    for payload in payloads:
        batch = orjson.loads(payload)
        _unroll_refused(batch, columns) if "refused" in batch else _unroll(batch, columns)
    schema = {n: pl.Int64() if t == _INSTANT else t for n, t in PREDICTION_SCHEMA.items() if n != "day"}
    frame = pl.DataFrame(columns, schema=schema)
    frame = frame.with_columns(pl.col("created_at", "time").cast(_INSTANT))
    return frame.with_columns(day=pl.col("time").dt.strftime("%Y-%m-%d")).select(list(PREDICTION_SCHEMA))


def _unroll_refused(batch: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    for told in batch["refused"]:
        row = {**_REFUSED, **told, "model": batch["model"], "created_at": batch["at"], "time": batch["at"]}
        for name, values in columns.items():
            values.append(row.get(name))


def _unroll(batch: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    count = len(batch["id"])
    names, unseen, classes = batch["key"], batch["unseen"], batch["classes"]
    features = batch["features"]
    rows = batch["row"]
    keys = [{name: row.get(name) for name in names} for row in rows]
    chances = batch["probabilities"]
    for name in ("id", "request", "route", "time", "seconds"):
        columns[name] += batch[name]
    columns["created_at"] += batch["time"] if batch["by_row"] else [batch["at"]] * count
    columns["model"] += [batch["model"]] * count
    columns["version"] += [batch["version"]] * count
    columns["key"] += [_text(key) for key in keys]
    columns["key_text"] += [key_text(list(key.values())) if key else None for key in keys]
    columns["row"] += [_text(row) for row in rows]
    columns["features"] += [_text(dict(zip(features, values, strict=True))) for values in zip(*features.values(), strict=True)]
    columns["value"] += [_value(value) for value in batch["value"]]
    columns["probabilities"] += (
        ["{}"] * count if chances is None else [_text(dict(zip(classes, p, strict=True))) for p in chances]
    )
    columns["freshness"] += [_text(f) for f in batch["freshness"]]
    columns["error"] += [None] * count
    columns["unseen"] += [_text(unseen[str(i)]) if str(i) in unseen else "[]" for i in range(count)]


def label_rows(payloads: Sequence[bytes]) -> pl.DataFrame:
    """Turn logged labels into rows of the table of labels.

    Parameters
    ----------
    payloads : sequence of bytes
        Each a JSON list of labels.

    Returns
    -------
    polars.DataFrame
        With `LABEL_SCHEMA`; ``day`` is that of ``known_at``.
    """
    labels = [item for payload in payloads for item in orjson.loads(payload)]
    instants = ("created_at", "time", "known_at")
    columns: dict[str, list[Any]] = {n: [label.get(n) for label in labels] for n in LABEL_SCHEMA if n not in ("day", "key_text")}
    keys = columns["key"]
    columns["key_text"] = [key_text(list(key.values())) if key else None for key in keys]
    columns["key"] = [_text(key) for key in keys]
    columns["value"] = [_value(value) for value in columns["value"]]
    schema = {n: pl.String() if n in instants else t for n, t in LABEL_SCHEMA.items() if n != "day"}
    # The log writes instants as RFC 3339, with or without a fraction: chrono's %+ reads both.
    read = [pl.col(n).str.to_datetime("%+", time_unit="us", time_zone="UTC") for n in instants]
    frame = pl.DataFrame(columns, schema=schema).with_columns(read)
    return frame.with_columns(day=pl.col("known_at").dt.strftime("%Y-%m-%d")).select(list(LABEL_SCHEMA))


def _value(value: float | str | None) -> str | None:
    return key_text([value])


def _text(value: object) -> str:
    return orjson.dumps(value).decode()
