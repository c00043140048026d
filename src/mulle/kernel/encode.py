"""Features become numbers: the one encoding that training, evaluation and serving share (float32, NaN for null)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.errors import TransformError
from mulle.core.records.bundle import FeatureSpec

__all__ = ["VOCABULARY", "encode", "feature_specs", "unseen"]

VOCABULARY = 10_000
"""The most categories a feature keeps; rarer ones count as unseen, in training as in serving."""

UNSEEN = -1.0
_FEW = 64
_DAY_US = 86_400_000_000
_ANCHOR = pl.datetime(2000, 1, 1, time_unit="us")

Matrix = npt.NDArray[np.float32]


def feature_specs(features: pl.DataFrame) -> tuple[FeatureSpec, ...]:
    """Decide how each column of a transform's output becomes a number.

    Parameters
    ----------
    features : polars.DataFrame
        The transform's output on training rows.

    Returns
    -------
    tuple of FeatureSpec
        Numbers, booleans, dates and times (days since 2000-01-01), durations (seconds) are ``number``; text and
        categories are ``category`` with the sorted vocabulary seen here (its `VOCABULARY` most frequent).

    Raises
    ------
    TransformError
        On a column of another type; facts name the ``column``.

    Examples
    --------
    >>> [s.categories for s in feature_specs(pl.DataFrame({"c": ["b", "a", None], "x": [1, 2, 3]}))]
    [('a', 'b'), ()]
    """
    specs = []
    for name, dtype in features.schema.items():
        if dtype in (pl.String, pl.Categorical, pl.Enum):
            specs.append(FeatureSpec(name=name, kind="category", categories=_vocabulary(features[name])))
        elif dtype.is_numeric() or isinstance(dtype, (pl.Boolean, pl.Null, pl.Date, pl.Datetime, pl.Duration)):
            specs.append(FeatureSpec(name=name, kind="number"))
        else:
            raise TransformError(
                f"feature '{name}' is {dtype}, which no model takes",
                next="return numbers, booleans, text or times; unnest lists and structs into columns",
                column=name,
            )
    return tuple(specs)


def encode(features: pl.DataFrame, specs: Sequence[FeatureSpec]) -> Matrix:
    """Encode features as the matrix a model takes.

    Parameters
    ----------
    features : polars.DataFrame, shape (n, any)
    specs : sequence of FeatureSpec, length k

    Returns
    -------
    numpy.ndarray, shape (n, k), float32, C-contiguous
        Null and what is not finite in float32 become NaN; a category never seen in training becomes -1.

    Raises
    ------
    TransformError
        When a column is missing.

    Examples
    --------
    >>> spec = FeatureSpec(name="c", kind="category", categories=("a", "b"))
    >>> encode(pl.DataFrame({"c": ["b", "z", None]}), [spec]).ravel().tolist()
    [1.0, -1.0, nan]
    """
    height = features.height
    matrix = np.empty((height, len(specs)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for index, spec in enumerate(specs):
            try:
                series = features[spec.name]
            except pl.exceptions.ColumnNotFoundError:
                said = f"the transform gave no feature '{spec.name}'"
                raise TransformError(said, next="return every feature that was trained on", column=spec.name) from None
            if spec.kind == "category":
                matrix[:, index] = _codes(series, spec, height)
            else:
                matrix[:, index] = _numbers(series, height)
    np.copyto(matrix, np.nan, where=np.isinf(matrix))
    return matrix


def unseen(features: pl.DataFrame, specs: Sequence[FeatureSpec], matrix: Matrix) -> dict[int, tuple[str, ...]]:
    """Find the categories that training never saw.

    Parameters
    ----------
    features : polars.DataFrame, shape (n, any)
    specs : sequence of FeatureSpec, length k
    matrix : numpy.ndarray, shape (n, k)
        What `encode` gave.

    Returns
    -------
    dict
        Row to the names of its unseen features; rows without any are absent.
    """
    del features  # the matrix tells it all: a code is never negative but for this
    found: dict[int, tuple[str, ...]] = {}
    columns = [i for i, spec in enumerate(specs) if spec.kind == "category"]
    if not columns:
        return found
    hits = matrix[:, columns] == UNSEEN
    if hits.any():
        for row in np.flatnonzero(hits.any(axis=1)).tolist():
            found[row] = tuple(specs[c].name for c, hit in zip(columns, hits[row], strict=True) if hit)
    return found


def _vocabulary(series: pl.Series) -> tuple[str, ...]:
    counts = series.cast(pl.String).drop_nulls().alias("value").value_counts()
    if counts.height > VOCABULARY:
        counts = counts.sort(["count", "value"], descending=[True, False]).head(VOCABULARY)
    return tuple(counts["value"].sort().to_list())


def _numbers(series: pl.Series, height: int) -> npt.NDArray[np.float64] | list[float]:
    dtype = series.dtype
    if isinstance(dtype, (pl.Datetime, pl.Date, pl.Duration)):
        series = _temporal(series)
    elif height <= _FEW and (dtype.is_integer() or dtype.is_float() or isinstance(dtype, pl.Boolean)):
        return [np.nan if v is None else float(v) for v in series.to_list()]
    return series.cast(pl.Float64).to_numpy()


def _temporal(series: pl.Series) -> pl.Series:
    # float32 has 24 bits: an epoch in microseconds would be rounded to minutes, days since 2000 keep seconds.
    if isinstance(series.dtype, pl.Duration):
        return series.dt.total_microseconds() / 1e6
    moment = series.cast(pl.Datetime("us")).to_frame("t").select((pl.col("t") - _ANCHOR).dt.total_microseconds() / _DAY_US)
    return moment.to_series()


def _codes(series: pl.Series, spec: FeatureSpec, height: int) -> npt.NDArray[np.float64] | list[float]:
    if series.dtype != pl.String:
        series = series.cast(pl.String)
    book, kind = _books(spec)
    if height <= 8 * _FEW:
        return [np.nan if v is None else book.get(v, UNSEEN) for v in series.to_list()]
    codes = series.cast(kind, strict=False).to_physical().cast(pl.Float64)
    if codes.null_count() != series.null_count():
        codes = codes.fill_null(UNSEEN).zip_with(series.is_not_null(), pl.Series([None] * height, dtype=pl.Float64))
    return codes.to_numpy()


_BOOKS: dict[int, tuple[FeatureSpec, Mapping[str, float], pl.Enum]] = {}


def _books(spec: FeatureSpec) -> tuple[Mapping[str, float], pl.Enum]:
    # Kept by identity: hashing ten thousand categories for every request would cost more than looking one up.
    kept = _BOOKS.get(id(spec))
    if kept is None or kept[0] is not spec:
        if len(_BOOKS) >= 1024:
            _BOOKS.clear()
        kept = (spec, {c: float(i) for i, c in enumerate(spec.categories)}, pl.Enum(spec.categories))
        _BOOKS[id(spec)] = kept
    return kept[1], kept[2]
