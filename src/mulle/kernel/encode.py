"""Features become numbers: the one encoding that training, evaluation and serving share (float32, NaN for null)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.errors import TransformError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.terms import Terms, is_text, term_specs

__all__ = [
    "FEW", "ITEMS", "PARTS", "VOCABULARY", "Columns", "are_plain", "encode", "encode_columns", "feature_specs", "plain_columns",
    "unseen",
]  # fmt: skip

VOCABULARY = 10_000
"""The most categories a feature keeps; rarer ones count as unseen, in training as in serving."""

ITEMS = 4_096
"""The most items an array or a list of numbers may have."""

UNSEEN = -1.0
_INFINITE = 2.0**128 - 2.0**103  # from here on a number is rounded to float32's infinity

FEW = 64
"""Up to so many rows plain Python costs less than frames do."""

_DAY_US = 86_400_000_000
_ANCHOR = pl.datetime(2000, 1, 1, time_unit="us")

PARTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "year": lambda t: t.dt.year(),
    "month": lambda t: t.dt.month(),
    "day": lambda t: t.dt.day(),
    "weekday": lambda t: t.dt.weekday(),
    "hour": lambda t: t.dt.hour(),
}
"""The parts of a time, by name; Monday is weekday 1."""

Matrix = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64] | list[float]

Columns = Mapping[str, Sequence[Any]]
"""Values of a few rows by column, as Python has them: numbers, truths and text, null as None."""


def feature_specs(features: pl.DataFrame) -> tuple[FeatureSpec, ...]:
    """Decide how each column of a transform's output becomes numbers.

    Parameters
    ----------
    features : polars.DataFrame
        The transform's output on training rows.

    Returns
    -------
    tuple of FeatureSpec
        One a column of the matrix. Numbers, booleans, durations (seconds), dates and times (days since 2000-01-01) are
        ``number``; of dates and times those ``part`` s follow that vary here. Categories, and text of few words or few
        values, are ``category`` with the sorted vocabulary seen here (its `VOCABULARY` most frequent). Other text, and lists
        of text, become ``term`` s (see `kernel.terms`), arrays and lists of numbers ``item`` s, as many as the longest has.

    Raises
    ------
    TransformError
        On a column of another type, lists of more than `ITEMS` numbers, or two columns of one name; facts name the
        ``column``.

    Examples
    --------
    >>> [s.categories for s in feature_specs(pl.DataFrame({"c": ["b", "a", None], "x": [1, 2, 3]}))]
    [('a', 'b'), ()]
    >>> [s.name for s in feature_specs(pl.DataFrame({"pixels": [[0.5, 1.0], [0.0, 0.5]]}))]
    ['pixels: 0', 'pixels: 1']
    """
    specs = [spec for name in features.columns for spec in _specs(features[name])]
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TransformError(f"two features are named '{twice}'", next="rename the one you made", column=twice)
    return tuple(specs)


def _specs(values: pl.Series) -> list[FeatureSpec]:
    name, dtype = values.name, values.dtype
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return [FeatureSpec(name=name, kind="number"), *_part_specs(values)]
    if dtype.is_numeric() or isinstance(dtype, (pl.Boolean, pl.Null, pl.Duration)):
        return [FeatureSpec(name=name, kind="number")]
    texts = isinstance(dtype, (pl.List, pl.Array)) and isinstance(dtype.inner, (pl.String, pl.Categorical, pl.Enum))
    if texts or (isinstance(dtype, pl.String) and is_text(values)):
        found = term_specs(name, values)
        if found or texts:
            return found
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return [FeatureSpec(name=name, kind="category", categories=_vocabulary(values))]
    if isinstance(dtype, (pl.List, pl.Array)) and _is_number(dtype.inner):
        return _item_specs(values)
    raise TransformError(
        f"feature '{name}' is {dtype}, which no model takes",
        next="return numbers, booleans, text, times, or lists of numbers or text; unnest structs into columns",
        column=name,
    )


def _is_number(dtype: object) -> bool:
    return isinstance(dtype, pl.DataType) and (dtype.is_numeric() or isinstance(dtype, pl.Boolean))


def _part_specs(values: pl.Series) -> list[FeatureSpec]:
    names = [part for part in PARTS if part != "hour" or isinstance(values.dtype, pl.Datetime)]
    seen = values.to_frame("t").select(PARTS[part](pl.col("t")).drop_nulls().n_unique().alias(part) for part in names)
    return [
        FeatureSpec(name=f"{values.name}: {part}", kind="part", source=values.name, part=part)
        for part in names
        if seen[part].item() > 1
    ]


def _item_specs(values: pl.Series) -> list[FeatureSpec]:
    longest = values.cast(pl.List(pl.Float64)).list.len().max()
    width = longest if isinstance(longest, int) else 0
    if width > ITEMS:
        raise TransformError(
            f"feature '{values.name}' has lists of {width} numbers, at most {ITEMS} are taken",
            next="shrink what they show, or take statistics of them",
            column=values.name,
        )
    return [FeatureSpec(name=f"{values.name}: {i}", kind="item", source=values.name, position=i) for i in range(width)]


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
        When a column is missing, or is of a type that its feature was not in training.

    Examples
    --------
    >>> spec = FeatureSpec(name="c", kind="category", categories=("a", "b"))
    >>> encode(pl.DataFrame({"c": ["b", "z", None]}), [spec]).ravel().tolist()
    [1.0, -1.0, nan]
    """
    height = features.height
    if height <= FEW and (plain := plain_columns(features, specs)) is not None:
        return encode_columns(plain, specs, height)[0]
    matrix = np.empty((height, len(specs)), dtype=np.float32)
    columns = {series.name: series for series in features.get_columns()}
    lists: list[list[float]] = []
    places: list[int] = []
    with np.errstate(over="ignore"):
        for block in _blocks(specs):
            values = _filled(_column(columns, block.column), block, height)
            if isinstance(values, list) and isinstance(block.places, int):
                lists.append(values)
                places.append(block.places)
            else:
                matrix[:, block.places] = values
        if lists:  # one conversion for all of them; of a few rows each of its own would cost more than the numbers
            matrix[:, places] = np.array(lists, dtype=np.float32).T
    np.copyto(matrix, np.nan, where=np.isinf(matrix))
    return matrix


_PLAIN = {
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Boolean, pl.String),
}
_PLAIN_OF: Mapping[str, set[type[pl.DataType]]] = {"number": _PLAIN - {pl.String}, "category": {pl.String}}


def are_plain(schema: Mapping[str, pl.DataType], specs: Sequence[FeatureSpec]) -> bool:
    """Tell whether a model takes numbers and words alone, and features of these types are such."""
    return all(b.kind in _PLAIN_OF and type(schema.get(b.column)) in _PLAIN_OF[b.kind] for b in _blocks(specs))


def plain_columns(features: pl.DataFrame, specs: Sequence[FeatureSpec]) -> Columns | None:
    """Give features as plain columns when their model takes numbers and words alone, else None.

    Examples
    --------
    >>> plain_columns(pl.DataFrame({"x": [1.5, None]}), (FeatureSpec(name="x", kind="number"),))
    {'x': (1.5, None)}
    """
    schema = features.collect_schema()
    if not are_plain(schema, specs):
        return None
    # All at once: taken out one by one, each column costs as much as all of them here.
    return dict(zip(schema, zip(*features.rows(), strict=True), strict=True)) if features.height else dict.fromkeys(schema, ())


def encode_columns(columns: Columns, specs: Sequence[FeatureSpec], count: int) -> tuple[Matrix, dict[int, tuple[str, ...]]]:
    """Encode `count` rows of plain columns: what `encode` and `unseen` give, for a fraction of their fixed cost.

    Returns
    -------
    matrix : numpy.ndarray, shape (count, k), float32, C-contiguous
    unseen : dict
        Row to the names of its features whose category was never seen; rows without any are absent.

    Examples
    --------
    >>> encode_columns({"c": ["b", "z", None]}, [FeatureSpec(name="c", kind="category", categories=("a", "b"))], 3)[1]
    {1: ('c',)}
    """
    values: list[Sequence[Any]] = []
    found: dict[int, tuple[str, ...]] = {}
    for block in _blocks(specs):
        column = columns[block.column]
        if block.book is not None:
            codes = list(map(block.book.get, column))
            if None in codes:
                for row, value in enumerate(column):
                    if value is not None and codes[row] is None:
                        codes[row] = UNSEEN
                        found[row] = (*found.get(row, ()), block.column)
            column = codes
        values.append(column)
    if not values:
        return np.empty((count, 0), dtype=np.float32), found
    wide = np.array(values, dtype=np.float64).T  # blocks are in the columns' order; None is NaN
    wide[abs(wide) >= _INFINITE] = np.nan
    return wide.astype(np.float32, order="C"), found


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Columns of the matrix that are made of one column in one way; `places` is an int where there is one."""

    column: str
    kind: str
    specs: tuple[FeatureSpec, ...]
    places: int | list[int]
    terms: Terms | None
    book: Mapping[str, float] | None
    words: pl.Enum | None


_PLANS: dict[int, tuple[Sequence[FeatureSpec], tuple[_Block, ...]]] = {}


def _blocks(specs: Sequence[FeatureSpec]) -> tuple[_Block, ...]:
    # Kept by identity: a bundle's specs are planned once, however many requests follow.
    kept = _PLANS.get(id(specs))
    if kept is not None and kept[0] is specs:
        return kept[1]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, spec in enumerate(specs):
        alone = spec.name if spec.kind in ("number", "category", "part") else ""
        groups.setdefault((spec.column, spec.kind, alone), []).append(place)
    blocks = tuple(_block(specs, places) for places in groups.values())
    if isinstance(specs, tuple):  # a list may change under its identity
        if len(_PLANS) >= 1024:
            _PLANS.clear()
        _PLANS[id(specs)] = (specs, blocks)
    return blocks


def _block(specs: Sequence[FeatureSpec], places: list[int]) -> _Block:
    own = tuple(specs[i] for i in places)
    first = own[0]
    single = first.kind in ("number", "category", "part")
    terms = Terms(own) if first.kind == "term" else None
    book, words = None, None
    if first.kind == "category":
        book, words = {c: float(i) for i, c in enumerate(first.categories)}, pl.Enum(first.categories)
    return _Block(first.column, first.kind, own, places[0] if single else places, terms, book, words)


def _column(columns: Mapping[str, pl.Series], name: str) -> pl.Series:
    try:
        return columns[name]
    except KeyError:
        said = f"the transform gave no feature '{name}'"
        raise TransformError(said, next="return every feature that was trained on", column=name) from None


def _filled(series: pl.Series, block: _Block, height: int) -> Values:
    try:
        if block.kind == "number":
            return _numbers(series, height)
        if block.book is not None and block.words is not None:
            return _codes(series, block.book, block.words, height)
        if isinstance(series.dtype, pl.Null):
            return np.full((height, len(block.specs)) if isinstance(block.places, list) else height, np.nan)
        if block.terms is not None:
            return block.terms.weigh(series)
        return _part(series, block.specs[0].part) if block.kind == "part" else _items(series, block.specs)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise TransformError(
            f"feature '{block.column}' is {series.dtype}, and was something else in training: {str(error).splitlines()[0]}",
            next="return the same type on all rows",
            column=block.column,
        ) from error


def _part(series: pl.Series, part: str) -> npt.NDArray[np.float64]:
    return series.to_frame("t").select(PARTS[part](pl.col("t")).cast(pl.Float64)).to_series().to_numpy()


def _items(series: pl.Series, specs: Sequence[FeatureSpec]) -> npt.NDArray[np.float64]:
    positions = [spec.position for spec in specs]
    lists = series.cast(pl.List(pl.Float64))
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    numbers = lists.filter(pl.Series(lengths > 0)).explode().to_numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = place <= max(positions)
    table = np.full((len(lengths), max(positions) + 1), np.nan)
    table[row[kept], place[kept]] = numbers[kept]
    return table[:, positions]


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
    elif height <= FEW and (dtype.is_integer() or dtype.is_float() or isinstance(dtype, pl.Boolean)):
        values = series.to_list()
        return [np.nan if v is None else v for v in values] if None in values else values
    return series.cast(pl.Float64).to_numpy()


def _temporal(series: pl.Series) -> pl.Series:
    # float32 has 24 bits: an epoch in microseconds would be rounded to minutes, days since 2000 keep seconds.
    if isinstance(series.dtype, pl.Duration):
        return series.dt.total_microseconds() / 1e6
    moment = series.cast(pl.Datetime("us")).to_frame("t").select((pl.col("t") - _ANCHOR).dt.total_microseconds() / _DAY_US)
    return moment.to_series()


def _codes(series: pl.Series, book: Mapping[str, float], words: pl.Enum, height: int) -> npt.NDArray[np.float64] | list[float]:
    if series.dtype != pl.String:
        series = series.cast(pl.String)
    if height <= 8 * FEW:
        return [np.nan if v is None else book.get(v, UNSEEN) for v in series.to_list()]
    codes = series.cast(words, strict=False).to_physical().cast(pl.Float64)
    if codes.null_count() != series.null_count():
        codes = codes.fill_null(UNSEEN).zip_with(series.is_not_null(), pl.Series([None] * height, dtype=pl.Float64))
    return codes.to_numpy()
