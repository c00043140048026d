"""Stage 8, first: late labels meet the predictions they belong to, by prediction id or by key and time."""

from __future__ import annotations

from datetime import datetime

import orjson
import polars as pl

from mulle.core.errors import DataError
from mulle.core.records.prediction import ASIDE
from mulle.kernel.keys import key_text

__all__ = ["answered", "plain_key", "with_outcomes"]

_INSTANT = pl.Datetime("us", "UTC")
_PREDICTIONS: dict[str, pl.DataType] = {
    "id": pl.String(), "version": pl.Int64(), "route": pl.String(), "key": pl.String(), "time": _INSTANT,
    "features": pl.String(), "value": pl.String(),
}  # fmt: skip
_LABELS: dict[str, pl.DataType] = {
    "prediction_id": pl.String(), "key": pl.String(), "time": _INSTANT, "value": pl.String(), "known_at": _INSTANT,
}  # fmt: skip


def answered(predictions: pl.DataFrame) -> pl.DataFrame:
    """Keep the rows that the deployment's routes answered: no shadow scores, no trials, and each prediction once.

    Parameters
    ----------
    predictions : polars.DataFrame
        Rows of the lake's table of predictions; a frame without columns (nothing was ever logged) gets the least of them.

    Returns
    -------
    polars.DataFrame
        The same columns, in the same order of rows.
    """
    predictions = predictions if predictions.width else pl.DataFrame(schema=_PREDICTIONS)
    return predictions.filter(~pl.col("route").is_in(ASIDE)).unique("id", keep="first", maintain_order=True)


def plain_key(texts: pl.Series) -> pl.Series:
    """Write keys that are JSON text in one form: members sorted, each as `key_text` writes it (1 and 1.0 are one key).

    Parameters
    ----------
    texts : polars.Series of String

    Returns
    -------
    polars.Series of String
        Null where there is no member at all, or a member is null.

    Examples
    --------
    >>> plain_key(pl.Series(['{"b": 1.0, "a": "x"}', "{}", None])).to_list()
    ['{"a":"x","b":"1"}', None, None]
    """
    unique = texts.cast(pl.String).drop_nulls().unique().to_list()
    plain = pl.Series([_plain_key(text) for text in unique], dtype=pl.String)
    return texts.cast(pl.String).replace_strict(unique, plain, default=None, return_dtype=pl.String)


def with_outcomes(predictions: pl.DataFrame, labels: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Join each prediction with the latest label that was known by `now`.

    A label that names the prediction goes first, then one that names key and time, then one that names the key alone;
    among equals the one known last (a correction) counts. The same key asked twice gets its label twice. A label of one
    prediction is also the label of every other score of the same row (same ``request``): champion and canary pair up.

    Parameters
    ----------
    predictions : polars.DataFrame
        At least ``id``, ``key`` (JSON text) and ``time``; ``request`` where one row has several scores.
    labels : polars.DataFrame
        Rows of the lake's table of labels, of one model: ``prediction_id``, ``key`` (JSON text), ``time``, ``value`` and
        ``known_at``; without columns when there never was one.
    now : datetime
        Labels known later are not looked at.

    Returns
    -------
    polars.DataFrame
        The predictions in their order, with ``truth`` (String; null without a label, and where none will come),
        ``labelled`` and ``never`` (Boolean).

    Raises
    ------
    DataError
        When a key is not JSON.
    """
    row = pl.col("request") if "request" in predictions.columns else pl.col("id")
    known = (labels if labels.width else pl.DataFrame(schema=_LABELS)).filter(pl.col("known_at") <= now)
    known = known.with_columns(plain_key(known["key"]).alias("_key"), pl.col("value").cast(pl.String).alias("_value"))
    by_key = known.filter(pl.col("prediction_id").is_null() & pl.col("_key").is_not_null())
    # To read every key takes longer than all else, and most labels name their prediction.
    key = pl.lit(plain_key(predictions["key"]) if by_key.height else None, dtype=pl.String)
    left = predictions.with_columns(key.alias("_key"), row.alias("_row"))
    rows = left.select(pl.col("id").alias("prediction_id"), "_row").unique("prediction_id")
    ways = (
        (known.join(rows, on="prediction_id", maintain_order="left"), ["_row"]),
        (by_key.filter(pl.col("time").is_not_null()), ["_key", "time"]),
        (by_key.filter(pl.col("time").is_null()), ["_key"]),
    )
    for number, (found, on) in enumerate(ways):
        if not found.height:
            nothing = (pl.lit(None, dtype=pl.String).alias(f"_value{number}"), pl.lit(False).alias(f"_hit{number}"))
            left = left.with_columns(*nothing)
            continue
        latest = found.sort("known_at", maintain_order=True).unique(on, keep="last", maintain_order=True)
        right = latest.select(*on, pl.col("_value").alias(f"_value{number}"), pl.lit(True).alias(f"_hit{number}"))
        left = left.join(right, on=on, how="left", maintain_order="left")
    return _decided(left)


def _decided(joined: pl.DataFrame) -> pl.DataFrame:
    # A label that says "none will come" is a hit with a null value, so values alone cannot be coalesced.
    first, second, third = (pl.col(f"_hit{n}").fill_null(False) for n in range(3))
    truth = pl.when(first).then("_value0").when(second).then("_value1").when(third).then("_value2")
    hit = first | second | third
    return joined.with_columns(
        truth.alias("truth"),
        (hit & truth.is_not_null()).alias("labelled"),
        (hit & truth.is_null()).alias("never"),
    ).drop("_key", "_row", *(f"_{kind}{n}" for kind in ("value", "hit") for n in range(3)))


def _plain_key(text: str) -> str | None:
    try:
        members = {name: key_text([value]) for name, value in orjson.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"the key {text[:80]!r} is not a JSON object", next="log keys as JSON text") from error
    if not members or None in members.values():
        return None
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS).decode()
