"""Texts become numbers: which terms of a text are kept, and how a row's terms are weighed (TF-IDF)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.text import words
from mulle.core.records.bundle import FeatureSpec

__all__ = ["TERMS", "Terms", "is_text", "term_specs"]

TERMS = 256
"""The most terms that a text keeps."""

_WORDS = 3
"""A column whose values have fewer words on average is no text but a category."""

_DISTINCT = 20
_SHARE = 0.2
_LOOKED_AT = 20_000
_LONG = 64
"""Letters of a term, at most."""

_MANY, _SHARED = 500, 5
"""Of so many rows a term must be on five at least: what fewer share tells little, and may tell of somebody."""

_CHUNK = 8_192
_FEW = 256

_IN_WORDS = words("text")

Floats = npt.NDArray[np.float64]


def is_text(values: pl.Series) -> bool:
    """Tell text from a category: it has several words, and its values differ.

    Parameters
    ----------
    values : polars.Series of String

    Returns
    -------
    bool
        True when more than a fifth of the values differ (twenty at least) and they have three words or more on average.

    Examples
    --------
    >>> is_text(pl.Series([f"the chair number {i}" for i in range(50)])), is_text(pl.Series(["New York City", "Rome"] * 50))
    (True, False)
    """
    known = values.drop_nulls()
    known = known if len(known) <= _LOOKED_AT else known.gather_every(-(-len(known) // _LOOKED_AT))
    distinct = known.n_unique() if len(known) else 0
    if distinct < _DISTINCT or distinct <= _SHARE * len(known):
        return False
    return bool((_split(known).list.len().mean() or 0) >= _WORDS)  # type: ignore[operator]


def term_specs(name: str, values: pl.Series) -> list[FeatureSpec]:
    """Choose the terms of a text, or of a list of terms, that a model sees.

    Parameters
    ----------
    name : str
    values : polars.Series of String or List(String)

    Returns
    -------
    list of FeatureSpec
        The `TERMS` terms that most rows have, in alphabetical order. The weight of a term is ``ln((1 + n) / (1 + d)) + 1``
        for d of n rows, as in scikit-learn's ``TfidfTransformer``. Empty when no term is on two rows.
    """
    lists = _split(values)
    rows = len(lists) - lists.null_count()
    found = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "term": lists}).explode("term").drop_nulls("term")
    found = found.filter(pl.col("term").str.len_chars().is_between(1, _LONG)).unique().group_by("term").len()
    least = _SHARED if rows >= _MANY else 2
    kept = found.filter(pl.col("len") >= least).sort(["len", "term"], descending=[True, False]).head(TERMS).sort("term")
    return [
        FeatureSpec(
            name=f"{name}: {term}", kind="term", source=name, part=term, weight=round(float(np.log((1 + rows) / (1 + n)) + 1), 9)
        )
        for term, n in kept.iter_rows()
    ]


class Terms:
    """The terms of one text column, ready to be counted in any rows."""

    def __init__(self, specs: Sequence[FeatureSpec]) -> None:
        self._places = {spec.part: i for i, spec in enumerate(specs)}
        self._vocabulary = pl.Enum([spec.part for spec in specs])
        self._weights = np.array([spec.weight for spec in specs])

    def weigh(self, values: pl.Series) -> Floats:
        """Weigh the terms of each row; shape (rows, terms)."""
        lists = _split(values)
        if len(lists) <= _CHUNK:
            return self._weigh(lists)
        return np.concatenate([self._weigh(lists.slice(start, _CHUNK)) for start in range(0, len(lists), _CHUNK)])

    def _weigh(self, lists: pl.Series) -> Floats:
        rows, width = len(lists), len(self._weights)
        row, place = self._found(lists)
        counts = np.bincount(row * width + place, minlength=rows * width).reshape(rows, width)
        weighed = np.asarray(counts * self._weights)
        length = np.sqrt((weighed * weighed).sum(axis=1, keepdims=True))
        np.divide(weighed, length, out=weighed, where=length > 0)
        weighed[lists.is_null().to_numpy()] = np.nan
        return weighed

    def _found(self, lists: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Give row and place of each term that is known."""
        if len(lists) <= _FEW:
            pairs = [(i, self._places[t]) for i, terms in enumerate(lists.to_list()) for t in terms or () if t in self._places]
            both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
            return both[:, 0], both[:, 1]
        exploded = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "term": lists}).explode("term")
        known = exploded.with_columns(pl.col("term").cast(self._vocabulary, strict=False).to_physical()).drop_nulls("term")
        return known["row"].to_numpy(), known["term"].cast(pl.Int64).to_numpy()


def _split(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, (pl.List, pl.Array)):
        return values.cast(pl.List(pl.String))
    return values.to_frame("text").select(_IN_WORDS).to_series()
