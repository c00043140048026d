"""Outcomes that came with a dataset become labels of the answers that were given for their rows."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from mulle.core.declare.model import Model
from mulle.core.errors import NotFound
from mulle.core.hashing import derived_id
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.kernel.keys import key_expr
from mulle.kernel.redact import hide
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.serving.rows import LABEL_SCHEMA
from mulle.loop.data.labels import unsaid
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import rows_of

__all__ = ["label_from_datasets"]


def label_from_datasets(parts: Parts, *, now: datetime, looked: dict[str, tuple[int, datetime]]) -> int:
    """Write a label for each answered row whose outcome a dataset holds by now; what is said already is left out.

    Answers and outcomes meet by key and time, where the dataset declares a time, else by key.

    Parameters
    ----------
    now : datetime
    looked : dict
        By model: the dataset's version and the hour that were looked at last, kept by the caller between calls. A version is
        looked at when it is new, and once an hour for the answers that were logged after it was published.

    Returns
    -------
    int
        Labels written. A call that was cut off is made up for by the next: each label is written once.
    """
    written = 0
    for model in parts.project.models.values():
        dataset = model.features.dataset
        version = parts.metadata.datasets.get(dataset.name)
        if version is None or not dataset.key or model.target not in version.schema:
            continue
        state = (version.version, now.replace(minute=0, second=0, microsecond=0))
        if looked.get(model.name) == state:
            continue
        rows = _labels(parts, model, version, now)
        if rows.height:
            batch = derived_id(now, f"{model.name}@{version.version}:{','.join(rows['id'])}")
            parts.lake.append(LABELS, rows, application=f"outcomes-{batch}", sequence=1, partition_by=["day"])
            written += rows.height
        looked[model.name] = state
    return written


def _labels(parts: Parts, model: Model, version: DatasetVersion, now: datetime) -> pl.DataFrame:
    dataset = model.features.dataset
    asked = _answered(parts, model, now)
    if asked.is_empty():
        return pl.DataFrame(schema=LABEL_SCHEMA)
    on = ["key_text", "time"] if dataset.time else ["key_text"]
    known = read_version(parts.lake, dataset, version).filter(pl.col(model.target).is_not_null())
    if dataset.time:
        known = known.filter(pl.col(dataset.time) >= asked["time"].min())
    known = known.with_columns(hide(dataset.key, model.log.redact))
    available = pl.col(dataset.available) if dataset.available else pl.lit(version.created_at)
    outcomes = known.select(
        key_expr(dataset.key).alias("key_text"),
        key_expr([model.target]).alias("value"),
        available.fill_null(pl.lit(version.created_at)).cast(pl.Datetime("us", "UTC")).alias("known_at"),
        *([pl.col(dataset.time).cast(pl.Datetime("us", "UTC")).alias("time")] if dataset.time else []),
    )
    found = asked.join(outcomes.filter(pl.col("known_at") <= now).collect(), on=on, maintain_order="left")
    found = found.unique(["model", *on], keep="last", maintain_order=True)
    names = zip(found["model"], found["key_text"], found["value"], found["known_at"], strict=True)
    table = found.with_columns(
        id=pl.Series([derived_id(at, f"{name}|{key}|{value}") for name, key, value, at in names], dtype=pl.String),
        created_at=pl.lit(now).cast(pl.Datetime("us", "UTC")),
        prediction_id=pl.lit(None, dtype=pl.String),
        reason=pl.lit(""),
        by=pl.lit(f"dataset {dataset.name}@{version.version}"),
        day=pl.col("known_at").dt.strftime("%Y-%m-%d"),
    ).select(list(LABEL_SCHEMA))
    parted = [unsaid(parts, part) for _, part in sorted(table.group_by("model"), key=lambda pair: str(pair[0]))]
    return pl.concat(parted) if parted else table


def _answered(parts: Parts, model: Model, now: datetime) -> pl.DataFrame:
    """Read what was answered for this model or its members in the time that windows still look at."""
    since = now - 2 * (model.monitor.delay + model.monitor.longest)
    try:
        rows = parts.lake.scan(PREDICTIONS).filter(
            rows_of(model.name), ~pl.col("route").is_in(["shadow", "refused"]), pl.col("time") >= since
        )
    except NotFound:
        return pl.DataFrame()
    wanted = rows.filter(pl.col("key_text").is_not_null()).select("model", "key", "key_text", "time")
    return wanted.unique(maintain_order=True).collect()
