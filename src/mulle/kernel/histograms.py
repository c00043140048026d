"""Fixed-bin histograms: made once from the training data, counted over any rows, added exactly; stages 5 and 8 share them.

A histogram (an *entry*) is a JSON object, one of

``{"kind": "number", "edges": [...], "counts": [...], "nulls": 0, "rows": 0, "low": null, "high": null}``
    ``len(counts) == len(edges) + 1``; bin i holds ``edges[i-1] < x <= edges[i]``, the first and the last bin are open.
``{"kind": "category", "counts": {"UA": 3}, "other": 0, "nulls": 0, "rows": 0}``
    ``other`` counts every value that the reference does not list.

A set of histograms is ``{"rows": n, "features": {name: entry}, "prediction": entry}``. A bundle's reference also names, as
``calendar``, the features that tell nothing but the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec

__all__ = [
    "CELLS",
    "LISTED",
    "add_parts",
    "build_reference",
    "compared_cells",
    "count",
    "count_values",
    "jensen_shannon",
    "merge",
    "merge_entries",
    "null_rate",
    "psi",
    "sampling_noise",
]

INNER = 10
"""Inner bins of a number."""

LISTED = 200
"""Categories that an entry lists, the most frequent of the reference first; the rest is ``other``."""

CELLS = 30
"""Categories that a divergence compares one by one; the rest is compared as one cell, to keep its noise small."""


def build_reference(features: pl.DataFrame, specs: Sequence[FeatureSpec], target: pl.Series) -> Json:
    """Make the reference histograms of a training set.

    Parameters
    ----------
    features : polars.DataFrame, shape (rows, features)
        The transform's output; must hold every column that `specs` names.
    specs : sequence of FeatureSpec
        ``number`` columns get edges at the reference's deciles, with both open ends beyond its range; a value that
        alone fills a decile or more gets a bin of its own. ``category`` columns list their most frequent values. Of text and
        lists only nulls are counted: nothing that somebody wrote is listed.
    target : polars.Series, shape (rows,)
        What predictions are compared with: the training target, or better the model's own answers on the holdout.
        Numeric values give a number's histogram, all others a category's.

    Returns
    -------
    Json
        A set of histograms; `count` fills the same bins from other rows.

    Examples
    --------
    >>> frame = pl.DataFrame({"x": [1.0, 2.0, 3.0, None]})
    >>> reference = build_reference(frame, [FeatureSpec(name="x", kind="number")], pl.Series(["a", "b", "a", "a"]))
    >>> reference["features"]["x"]["nulls"], reference["prediction"]["counts"]
    (1, {'a': 3, 'b': 1})
    """
    kinds = {spec.column: spec.kind for spec in reversed(specs)}
    shape: Json = {
        "rows": 0,
        "features": {name: _empty(features[name], kinds[name]) for name in dict.fromkeys(spec.column for spec in specs)},
        "prediction": _empty(target, "number" if target.dtype.is_numeric() else "category"),
    }
    counted = count(features, shape)
    counted["prediction"] = count_values(target, shape["prediction"])
    return counted


def add_parts(reference: Json, features: pl.DataFrame, target: pl.Series, by: str, parts: pl.Series) -> Json:
    """Add to a reference what some of its rows alone look like: those of each weekday, say.

    Parameters
    ----------
    reference : Json
        What `build_reference` gave of these rows.
    features, target
        As there.
    by : str
        What the parts are called.
    parts : polars.Series, shape (rows,)
        The part of each row; rows with null are in none.

    Returns
    -------
    Json
        The reference with ``by`` and ``parts``: a set of histograms, by the same bins, for each part.
    """
    found = {}
    for part in sorted(parts.drop_nulls().unique().to_list()):
        rows = (parts == part).fill_null(False)
        found[str(part)] = count(features.filter(rows), reference)
        found[str(part)]["prediction"] = count_values(target.filter(rows), reference["prediction"])
    return {**reference, "by": by, "parts": found}


def count(features: pl.DataFrame, reference: Json) -> Json:
    """Count rows into the reference's bins.

    Parameters
    ----------
    features : polars.DataFrame, shape (rows, features)
        A column that the reference names and the frame has not counts no rows; other columns are not looked at.
    reference : Json
        What `build_reference` gave (or `count`, or `merge`).

    Returns
    -------
    Json
        A set of histograms of the same shape; its ``prediction`` is empty (fill it with `count_values`).
    """
    return {
        "rows": features.height,
        "features": {
            name: count_values(features[name], entry) if name in features.columns else _cleared(entry)
            for name, entry in reference["features"].items()
        },
        "prediction": _cleared(reference["prediction"]),
    }


def count_values(values: pl.Series, entry: Json) -> Json:
    """Count one column into the bins of one reference entry.

    Parameters
    ----------
    values : polars.Series
        For a number anything that casts to Float32 (what does not, and NaN, counts as null); for a category
        anything that casts to String.
    entry : Json
        The reference's entry.

    Returns
    -------
    Json
        An entry of the same shape.
    """
    return _count_number(values, entry) if entry["kind"] == "number" else _count_category(values, entry)


def merge(a: Json, b: Json) -> Json:
    """Add two sets of histograms with the same bins: windows and replicas add up exactly.

    Raises
    ------
    DataError
        When features or bins differ.
    """
    if a["features"].keys() != b["features"].keys():
        raise DataError("histograms of different features cannot be added", next="count both against one reference")
    return {
        "rows": a["rows"] + b["rows"],
        "features": {name: merge_entries(entry, b["features"][name]) for name, entry in a["features"].items()},
        "prediction": merge_entries(a["prediction"], b["prediction"]),
    }


def null_rate(entry: Json) -> float:
    """Return the share of nulls, 0 to 1; 0 without rows.

    Examples
    --------
    >>> null_rate({"kind": "category", "counts": {"a": 3}, "other": 0, "nulls": 1, "rows": 4})
    0.25
    """
    return float(entry["nulls"] / entry["rows"]) if entry["rows"] else 0.0


def psi(expected: Json, actual: Json) -> float:
    """Return the population stability index of two entries, nulls left out.

    ``sum((q - p) * ln(q / p))`` over the cells, which is the symmetric divergence of Jeffreys (1946), also in Kullback
    and Leibler (1951). Shares are smoothed towards the pooled shares of both entries, with a weight of half a row per
    occupied cell: the pseudo-Bayes estimator of Fienberg and Holland (J. Am. Stat. Assoc. 68, 1973, 683-691). So an
    empty cell gives a large but finite term, a cell empty on both sides none, and equal entries exactly 0.

    Parameters
    ----------
    expected, actual : Json
        Entries with the same bins.

    Returns
    -------
    float
        At least 0; 0 when either entry has no values. By custom 0.1 is a small and 0.2 (or 0.25) a large change
        (Siddiqi, Credit Risk Scorecards, 2006).

    Raises
    ------
    DataError
        When the bins differ.

    Examples
    --------
    >>> a = {"kind": "category", "counts": {"x": 90, "y": 10}, "other": 0, "nulls": 0, "rows": 100}
    >>> b = {"kind": "category", "counts": {"x": 10, "y": 90}, "other": 0, "nulls": 0, "rows": 100}
    >>> psi(a, a), round(psi(a, b), 2)
    (0.0, 3.41)
    """
    p, q = _shares(expected, actual)
    return max(0.0, float(np.sum((q - p) * np.log(q / p))))


def jensen_shannon(expected: Json, actual: Json) -> float:
    """Return the Jensen-Shannon distance (base 2) of two entries, nulls left out.

    The square root of Lin's divergence (IEEE Trans. Inf. Theory 37, 1991, 145-151), with the smoothing of `psi`.

    Returns
    -------
    float
        0 (equal) to 1; 0 when either entry has no values.

    Raises
    ------
    DataError
        When the bins differ.
    """
    p, q = _shares(expected, actual)
    m = (p + q) / 2
    divergence = float(np.sum(p * np.log2(p / m)) + np.sum(q * np.log2(q / m))) / 2
    return float(np.sqrt(min(1.0, max(0.0, divergence))))


def sampling_noise(expected: Json, actual: Json) -> float:
    """Return the PSI to expect from sampling alone when nothing has changed.

    Without drift ``psi / (1/n + 1/m)`` follows a chi-square law with (cells - 1) degrees of freedom as n and m grow
    (Yurdakul, Statistical Properties of Population Stability Index, Western Michigan University, 2018), so its
    mean is ``(cells - 1) * (1/n + 1/m)``; cells empty on both sides are not counted.

    Examples
    --------
    >>> a = {"kind": "category", "counts": {"x": 50, "y": 50}, "other": 0, "nulls": 0, "rows": 100}
    >>> sampling_noise(a, a)
    0.02
    """
    c, d = compared_cells(expected, actual)
    n, m = float(c.sum()), float(d.sum())
    if n == 0 or m == 0:
        return 0.0
    return (int(np.count_nonzero(c + d)) - 1) * (1 / n + 1 / m)


def _number(values: pl.Series) -> NDArray[np.float32]:
    # Float32 is what the model sees; both sides take it, so that a value never falls on two sides of its own edge.
    cast = values.cast(pl.Float32, strict=False)
    return np.asarray(cast.to_numpy(), dtype=np.float32)


def _empty(values: pl.Series, kind: str) -> Json:
    if kind == "number":
        edges = _edges(_number(values))
        return {
            "kind": kind, "edges": edges, "counts": [0] * (len(edges) + 1), "nulls": 0, "rows": 0, "low": None, "high": None,
        }  # fmt: skip
    if kind in ("term", "item"):
        return {"kind": "category", "counts": {}, "other": 0, "nulls": 0, "rows": 0}
    tally = values.cast(pl.String).drop_nulls().rename("value").value_counts()
    listed = tally.sort(["count", "value"], descending=[True, False]).head(LISTED)["value"].to_list()
    return {"kind": "category", "counts": dict.fromkeys(listed, 0), "other": 0, "nulls": 0, "rows": 0}


def _edges(values: NDArray[np.float32]) -> list[float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return []
    quantiles = np.quantile(finite, np.linspace(0, 1, INNER + 1), method="lower")
    edges, repeats = np.unique(quantiles, return_counts=True)
    with np.errstate(over="ignore"):  # below the smallest float there is only -inf, which is dropped again
        below = np.nextafter(np.append(edges[repeats > 1], edges[0]), np.float32(-np.inf), dtype=np.float32)
    return [float(e) for e in np.unique(np.concatenate([edges, below])) if np.isfinite(e)]


def _count_number(values: pl.Series, entry: Json) -> Json:
    array = _number(values)
    nulls = int(np.count_nonzero(np.isnan(array)))
    # A few comparisons of a whole column are many times faster than a search for each value.
    below = [int(np.count_nonzero(array <= edge)) for edge in np.asarray(entry["edges"], dtype=np.float32)]
    finite = array if np.isfinite(array).all() else array[np.isfinite(array)]
    return {
        "kind": "number",
        "edges": entry["edges"],
        "counts": np.diff([0, *below, array.size - nulls]).tolist(),
        "nulls": nulls,
        "rows": int(array.size),
        "low": float(finite.min()) if finite.size else None,
        "high": float(finite.max()) if finite.size else None,
    }


def _count_category(values: pl.Series, entry: Json) -> Json:
    if not entry["counts"]:  # lists have no text to count by
        nulls = values.null_count()
        return {"kind": "category", "counts": {}, "other": len(values) - nulls, "nulls": nulls, "rows": len(values)}
    text = values.cast(pl.String).rename("value")
    tally = text.value_counts()
    found: dict[str | None, int] = dict(zip(tally["value"].to_list(), tally["count"].to_list(), strict=True))
    missing = found.pop(None, 0)
    counts = {name: found.pop(name, 0) for name in entry["counts"]}
    return {"kind": "category", "counts": counts, "other": sum(found.values()), "nulls": missing, "rows": len(text)}


def _cleared(entry: Json) -> Json:
    if entry["kind"] == "number":
        return {**entry, "counts": [0] * len(entry["counts"]), "nulls": 0, "rows": 0, "low": None, "high": None}
    return {**entry, "counts": dict.fromkeys(entry["counts"], 0), "other": 0, "nulls": 0, "rows": 0}


def _check_same(a: Json, b: Json) -> None:
    same = a["kind"] == b["kind"] and (
        a["edges"] == b["edges"] if a["kind"] == "number" else a["counts"].keys() == b["counts"].keys()
    )
    if not same:
        raise DataError("histograms with different bins cannot be put together", next="count both against one reference")


def merge_entries(a: Json, b: Json) -> Json:
    """Add two entries with the same bins; see `merge`."""
    _check_same(a, b)
    both: Json = {**a, "nulls": a["nulls"] + b["nulls"], "rows": a["rows"] + b["rows"]}
    if a["kind"] == "category":
        both["counts"] = {name: n + b["counts"][name] for name, n in a["counts"].items()}
        both["other"] = a["other"] + b["other"]
        return both
    both["counts"] = [x + y for x, y in zip(a["counts"], b["counts"], strict=True)]
    for side, choose in (("low", min), ("high", max)):
        both[side] = choose((v for v in (a[side], b[side]) if v is not None), default=None)
    return both


def compared_cells(expected: Json, actual: Json) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the rows of both entries by cell: a number's bins, or a category's most frequent values and the rest as one.

    Raises
    ------
    DataError
        When the bins differ.
    """
    _check_same(expected, actual)
    if expected["kind"] == "number":
        return np.asarray(expected["counts"], dtype=np.float64), np.asarray(actual["counts"], dtype=np.float64)
    names = sorted(expected["counts"], key=lambda name: (-expected["counts"][name], name))
    folded = []
    for entry in (expected, actual):
        rest = entry["other"] + sum(entry["counts"][name] for name in names[CELLS:])
        folded.append(np.asarray([*(entry["counts"][name] for name in names[:CELLS]), rest], dtype=np.float64))
    return folded[0], folded[1]


def _shares(expected: Json, actual: Json) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    c, d = compared_cells(expected, actual)
    n, m = c.sum(), d.sum()
    nothing = np.ones(1)
    if n == 0 or m == 0:
        return nothing, nothing
    kept = (c + d) > 0
    c, d = c[kept], d[kept]
    weight = len(c) / 2
    pooled = (c + d) / (n + m)
    return (c + weight * pooled) / (n + weight), (d + weight * pooled) / (m + weight)
