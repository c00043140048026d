"""Stage 8, before all: the prediction log's JSON texts as columns."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import orjson
import polars as pl

from mulle.core.errors import DataError
from mulle.core.records.bundle import FeatureSpec

__all__ = ["decode_features", "decode_rows", "tally"]

_ROWS = 2_000
"""Rows that are read at once: as many as stay near the processor."""


def decode_features(texts: pl.Series, specs: Sequence[FeatureSpec]) -> pl.DataFrame:
    """Read the prediction log's ``features`` column.

    Parameters
    ----------
    texts : polars.Series of String, shape (rows,)
        One JSON object a row; a member that is missing reads as null.
    specs : sequence of FeatureSpec

    Returns
    -------
    polars.DataFrame, shape (rows, features)
        Float64 for numbers, Datetime for times, String for categories and text, lists for lists.

    Raises
    ------
    DataError
        When a text is not JSON.

    Examples
    --------
    >>> specs = [FeatureSpec(name="x", kind="number"), FeatureSpec(name="c", kind="category")]
    >>> decode_features(pl.Series(['{"x": 1, "c": "a"}', '{"x": null}']), specs).rows()
    [(1.0, 'a'), (None, None)]
    """
    kinds = {spec.column: spec.kind for spec in reversed(specs)}
    names = list(dict.fromkeys(spec.column for spec in specs))
    found = _columnar(texts, names, kinds)
    return _one_by_one(texts, names, kinds) if found is None else found


def decode_rows(texts: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
    """Read some members of JSON objects as text, null where there is none.

    Examples
    --------
    >>> decode_rows(pl.Series(['{"a": 1, "b": "x"}', "{}"]), ["a"])["a"].to_list()
    ['1', None]
    """
    rows = _loaded(texts)
    return pl.DataFrame({name: pl.Series([_text(row.get(name)) for row in rows], dtype=pl.String) for name in columns})


def tally(texts: pl.Series) -> dict[str, int]:
    """Count how often each name is in the lists of a column, JSON texts or lists.

    Examples
    --------
    >>> tally(pl.Series(['["c"]', "[]", None, '["c", "d"]']))
    {'c': 2, 'd': 1}
    """
    some = texts.drop_nulls()
    some = some.filter(some != "[]") if some.dtype == pl.String else some
    counted: dict[str, int] = {}
    for names in some.to_list():
        for name in orjson.loads(names) if isinstance(names, str) and names else names or ():
            counted[name] = counted.get(name, 0) + 1
    return counted


def _columnar(texts: pl.Series, names: Sequence[str], kinds: dict[str, str]) -> pl.DataFrame | None:
    """Read plain objects of numbers and texts in one pass; None where they are something else."""
    types = {"number": pl.Float64(), "item": pl.List(pl.Float64)}
    schema = {name: types.get(kinds[name], pl.String()) for name in names}
    if not names or not texts.len():
        return None
    plain = texts.cast(pl.String).fill_null("{}").replace("", "{}")
    slices = (plain.slice(start, _ROWS).str.join("\n").cast(pl.Binary).item() for start in range(0, plain.len(), _ROWS))
    try:
        read = pl.concat([pl.read_ndjson(BytesIO(lines), schema=schema) for lines in slices])
    except pl.exceptions.PolarsError:
        return None
    words = [name for name, dtype in schema.items() if dtype == pl.String]
    lists = bool(words) and read.select(pl.any_horizontal(pl.col(words).str.starts_with("[").any())).item()
    return None if lists or read.height != texts.len() else read


def _one_by_one(texts: pl.Series, names: Sequence[str], kinds: dict[str, str]) -> pl.DataFrame:
    rows = _loaded(texts)
    return pl.DataFrame({name: _read([row.get(name) for row in rows], kinds[name]) for name in names})


def _loaded(texts: pl.Series) -> list[dict[str, Any]]:
    try:
        return [orjson.loads(text) if text else {} for text in texts.to_list()]
    except ValueError as error:
        raise DataError("a logged row's features are not JSON", next="see `mulle doctor`") from error


def _read(values: list[Any], kind: str) -> pl.Series:
    if kind == "item" or any(isinstance(v, list) for v in values):
        inner = pl.Float64 if kind == "item" else pl.String
        return pl.Series([v if isinstance(v, list) else None for v in values], dtype=pl.List(inner), strict=False)
    if kind != "number":
        return pl.Series([_text(v) for v in values], dtype=pl.String)
    if any(isinstance(v, str) for v in values):  # a time is a number that is logged as text
        texts = pl.Series([v if isinstance(v, str) else None for v in values], dtype=pl.String)
        return texts.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    return pl.Series(values, dtype=pl.Float64, strict=False)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
