"""Two versions of a table side by side: what differs, and each column's distribution in the same bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from mulle.core.errors import UsageError
from mulle.core.records.dataset import Audit, DatasetVersion, Quarantine
from mulle.core.records.exploration import Comparison, Overlay
from mulle.kernel.bookkeeping import data_columns
from mulle.lifecycle.data.cells import plain
from mulle.lifecycle.data.exploration.diff import diff
from mulle.lifecycle.data.exploration.explore import CHARTED, explore
from mulle.lifecycle.data.exploration.profile import kind_of, readable, texts

__all__ = ["compare"]

_BINS = 40
_FEW = 30
"""Different numbers or times that are shown one by one."""

_VALUES = 16
"""Categories that are shown, the most frequent first."""

_EDGE = 0.005
"""Share of the values on each side that the outermost bins take in."""


def compare(
    before: pl.DataFrame | pl.LazyFrame,
    after: pl.DataFrame | pl.LazyFrame,
    *,
    names: tuple[str, str],
    key: Sequence[str] = (),
    target: str | None = None,
    time: str | None = None,
    facts: tuple[Mapping[str, str], Mapping[str, str]] | None = None,
    history: Sequence[DatasetVersion | Audit | Quarantine] = (),
    seed: int = 0,
) -> Comparison:
    """Look at two versions of a table side by side.

    Parameters
    ----------
    before, after : polars.DataFrame or polars.LazyFrame
    names : tuple of str
        What each is called, such as ``flights@11`` and ``flights@12``.
    key : sequence of str
        The dataset's identity, see `diff`.
    target, time : str, optional
        Taken for a version that has them.
    facts : tuple of mapping, optional
        Of each version.
    history : sequence of DatasetVersion, Audit or Quarantine
        The dataset's check results.
    seed : int

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        When neither version has the target or the time.

    Examples
    --------
    >>> found = compare(pl.DataFrame({"x": [1, 2]}), pl.DataFrame({"x": [2, 3]}), names=("t@1", "t@2"))
    >>> found.difference.added, found.difference.removed, found.overlays[0].x
    (1, 1, ('1', '2', '3'))
    """
    frames = [side.lazy().collect() for side in (before, after)]
    for wanted in (target, time):
        if wanted is not None and not any(wanted in frame.columns for frame in frames):
            raise UsageError(
                f"neither {names[0]} nor {names[1]} has a column '{wanted}'",
                next=f"name one of {', '.join(data_columns(frames[1].columns))}",
                column=wanted,
            )
    sides = [
        explore(
            frame,
            name=name,
            target=target if target in frame.columns else None,
            time=time if time in frame.columns else None,
            facts=told,
            history=history if frame is frames[1] else (),
            seed=seed,
        )
        for frame, name, told in zip(frames, names, facts or ({}, {}), strict=True)
    ]
    found = diff(frames[0].lazy(), frames[1].lazy(), key=key)
    drawn = [change.column for change in found.columns][:CHARTED]
    old, new = (readable(frame.select(drawn)) for frame in frames)
    return Comparison(
        before=sides[0], after=sides[1], difference=found, overlays=tuple(_overlay(old[name], new[name]) for name in drawn)
    )


def _overlay(x: pl.Series, y: pl.Series) -> Overlay:
    kind = kind_of(x) if kind_of(x) == kind_of(y) else "category"
    if kind == "category":
        return _values(texts(x), texts(y), None)
    a, b = (v.to_physical().cast(pl.Float64) for v in (x, y))
    both = pl.concat([a, b]).drop_nulls()
    if both.n_unique() <= _FEW:
        shown = sorted(both.unique())
        return _values(_named(a, x), _named(b, x), _named(pl.Series(shown, dtype=pl.Float64), x).to_list())
    finite = both.filter(both.is_finite())
    low, high = (float(finite.quantile(q) or 0.0) for q in (_EDGE, 1 - _EDGE))
    width = high / _BINS - low / _BINS or 1.0
    middles = pl.Series(x.name, [low + (at + 0.5) * width for at in range(_BINS)])
    told = middles.cast(pl.Int64).cast(x.dtype) if kind == "time" else middles
    before, after = _shares(a, low, width), _shares(b, low, width)
    return Overlay(column=x.name, kind=kind, x=tuple(_point(m) for m in told), before=before, after=after)


def _named(values: pl.Series, like: pl.Series) -> pl.Series:
    # Numbers of both versions in one spelling, whatever type each was.
    if kind_of(like) == "time":
        return values.cast(pl.Int64).cast(like.dtype).dt.strftime("%Y-%m-%d %H:%M:%S").alias(like.name)
    return pl.Series(like.name, [None if v is None else f"{v:.15g}" for v in values], dtype=pl.String)


def _point(middle: object) -> float | str:
    told = plain(middle)
    return told if isinstance(told, (float, str)) else str(told)


def _shares(values: pl.Series, low: float, width: float) -> tuple[float, ...]:
    # What lies beyond the edges is counted at the edges, or two far values would leave one bar to all the rest.
    known = values.drop_nulls()
    bins = ((known - low) / width).clip(0, _BINS - 1).floor().cast(pl.Int64)
    counted = dict(bins.rename("bin").value_counts().iter_rows())
    return tuple(counted.get(at, 0) / max(1, len(known)) for at in range(_BINS))


def _values(x: pl.Series, y: pl.Series, shown: list[str] | None) -> Overlay:
    tallies = [dict(v.drop_nulls().rename("value").value_counts().iter_rows()) for v in (x, y)]
    totals = [max(1, len(v) - v.null_count()) for v in (x, y)]
    if shown is None:
        counts = {value: sum(tally.get(value, 0) for tally in tallies) for value in tallies[0] | tallies[1]}
        shown = sorted(counts, key=lambda v: (-counts[v], v))[:_VALUES]
    shares = [tuple(tally.get(v, 0) / total for v in shown) for tally, total in zip(tallies, totals, strict=True)]
    return Overlay(column=x.name, kind="category", x=tuple(shown), before=shares[0], after=shares[1])
