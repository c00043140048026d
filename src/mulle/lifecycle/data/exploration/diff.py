"""Two versions of a dataset compared: which rows and values changed, which columns, and how the distributions moved."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.exploration import ColumnChange, ColumnProfile, Difference, Retyped, RowChange
from mulle.kernel.bookkeeping import data_columns
from mulle.kernel.dtypes import dtype_text
from mulle.kernel.histograms import LISTED, build_reference, count_values, psi, sampling_noise
from mulle.lifecycle.data.cells import plain
from mulle.lifecycle.data.exploration.profile import profile, readable, texts

__all__ = ["diff"]

_SAMPLES = 20
_BEFORE, _AFTER, _NTH, _AT = "_before", "_after", "_nth", "_at"  # no data column starts with "_"


def diff(before: pl.LazyFrame, after: pl.LazyFrame, *, key: Sequence[str]) -> Difference:
    """Compare two versions of a table; the order of rows and of columns does not matter.

    Parameters
    ----------
    before, after : polars.LazyFrame
        Read whole. Columns that start with ``_`` are not looked at. Null equals null and NaN equals NaN; a column whose
        type changed is compared in the type that holds both, or as text.
    key : sequence of str
        The columns by which two rows are versions of one row: the dataset's identity. Rows that share a key are
        paired with an equal row first, then in the order of their values. Without a key, or when one of its columns is
        not in both tables, rows are compared whole, as often as each occurs.

    Returns
    -------
    Difference
        Counts are exact. Rows are compared in the columns that both tables have.

    Examples
    --------
    >>> old = pl.LazyFrame({"id": [1, 2, 3], "x": [1.0, None, 3.0]})
    >>> new = pl.LazyFrame({"id": [4, 3, 2], "x": [4.0, 9.0, None]})
    >>> found = diff(old, new, key=["id"])
    >>> found.added, found.changed, found.removed, found.changed_rows[0].before, found.changed_rows[0].after
    (1, 1, 1, {'x': 3.0}, {'x': 9.0})
    """
    old, new = (frame.select(data_columns(frame.collect_schema().names())).collect() for frame in (before, after))
    a, b = _alike(old, new)
    by = list(key) if key and set(key) <= set(a.columns) else []
    pairs = _pairs(a, b, by) if a.width else pl.concat([_alone(old, _BEFORE), _alone(new, _AFTER)], how="diagonal")
    both = pairs.filter(pl.col(_BEFORE).is_not_null() & pl.col(_AFTER).is_not_null())
    differs = _differing(a, b, both)
    changed = both.filter(pl.any_horizontal(differs.values())) if differs else both.clear()
    gone = pairs.filter(pl.col(_AFTER).is_null())[_BEFORE]
    come = pairs.filter(pl.col(_BEFORE).is_null())[_AFTER]
    order = [*by, *sorted(set(a.columns) - set(by))]
    return Difference(
        rows_before=old.height,
        rows_after=new.height,
        key=tuple(by),
        added=len(come),
        changed=changed.height,
        removed=len(gone),
        added_rows=_rows(new, _first(b, come, order)),
        changed_rows=_changes(old, new, changed, [n for n in a.columns if n in differs], _first(a, changed[_BEFORE], order), by),
        removed_rows=_rows(old, _first(a, gone, order)),
        columns_added={name: dtype_text(new.schema[name]) for name in new.columns if name not in old.columns},
        columns_removed={name: dtype_text(old.schema[name]) for name in old.columns if name not in new.columns},
        columns_retyped=_retyped(old, new),
        columns=_columns(old, new, {name: int(mask.sum()) for name, mask in differs.items()}),
    )


def _alike(old: pl.DataFrame, new: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    # The shared columns of both in one order and one type, in which equality, hashes and joins agree.
    left, right = {}, {}
    for name in old.columns:
        if name in new.columns:
            x, y = _hashable(old[name]), _hashable(new[name])
            shared = _shared_type(x.dtype, y.dtype)
            left[name], right[name] = _settled(x.cast(shared)), _settled(y.cast(shared))
    return pl.DataFrame(left), pl.DataFrame(right)


def _hashable(values: pl.Series) -> pl.Series:
    odd = values.dtype.is_nested() or values.dtype in (pl.Object, pl.Categorical, pl.Enum)
    return texts(values) if odd else values


def _shared_type(x: pl.DataType, y: pl.DataType) -> pl.DataType:
    if x == y:
        return x
    try:
        both = pl.concat([pl.DataFrame(schema={"c": x}), pl.DataFrame(schema={"c": y})], how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        return pl.String()
    return both.schema["c"]


def _settled(values: pl.Series) -> pl.Series:
    # One NaN and one zero, so that equal numbers have equal hashes.
    if not values.dtype.is_float():
        return values
    return pl.select(
        pl.when(values.is_nan()).then(float("nan")).otherwise(values + 0.0).cast(values.dtype).alias(values.name)
    ).to_series()


def _pairs(a: pl.DataFrame, b: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    # Which row of `a` is which row of `b`, by position; null where there is none on that side.
    if by and all(frame.n_unique(by) == frame.height for frame in (a, b)):
        return _joined(a.select(by), b.select(by))
    whole = _equal_rows(a, b)
    if not by:
        return whole
    left, right = (whole.filter(pl.col(other).is_null())[mine].sort() for mine, other in ((_BEFORE, _AFTER), (_AFTER, _BEFORE)))
    rest = _joined(*(_numbered(frame[at], by, sorted(a.columns)) for frame, at in ((a, left), (b, right))))
    moved = rest.with_columns(
        pl.lit(left).gather(pl.col(_BEFORE)).alias(_BEFORE), pl.lit(right).gather(pl.col(_AFTER)).alias(_AFTER)
    )
    return pl.concat([whole.drop_nulls(), moved])


def _alone(frame: pl.DataFrame, side: str) -> pl.DataFrame:
    other = _AFTER if side == _BEFORE else _BEFORE
    every = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    return pl.DataFrame({side: every, other: pl.Series([None] * frame.height, dtype=pl.UInt32)})


def _joined(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    on = a.columns
    left, right = (f.lazy().with_row_index(side) for f, side in ((a, _BEFORE), (b, _AFTER)))
    return left.join(right, on=on, how="full", nulls_equal=True).select(_BEFORE, _AFTER).collect()


def _numbered(rows: pl.DataFrame, by: list[str], order: list[str]) -> pl.DataFrame:
    # The first, second ... of the rows that share these columns, in the order of all their values.
    nth = pl.int_range(pl.len()).over(by).alias(_NTH)
    if order == by:
        return rows.select(*by, nth)
    return rows.with_row_index(_AT).sort(order).with_columns(nth).sort(_AT).select(*by, _NTH)


def _equal_rows(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    # Rows with one hash are paired one by one. When all pairs turn out to be equal the rest has no partner: what is left
    # of a hash is left on one side. Else two rows share a hash by chance, and the rows themselves are joined.
    columns = a.columns
    hashes = [frame.select(pl.struct(columns).hash().alias("h")) for frame in (a, b)]
    pairs = _joined(*(_numbered(h, ["h"], ["h"]) for h in hashes))
    if not _differing(a, b, pairs.drop_nulls()):
        return pairs
    return _joined(*(_numbered(frame, columns, columns) for frame in (a, b)))


def _differing(a: pl.DataFrame, b: pl.DataFrame, pairs: pl.DataFrame) -> dict[str, pl.Series]:
    # Column to whether each pair differs in it; only columns in which some pair does.
    found = {}
    for name in a.columns:
        mask = a[name].gather(pairs[_BEFORE]).ne_missing(b[name].gather(pairs[_AFTER]))
        if mask.any():
            found[name] = mask
    return found


def _first(frame: pl.DataFrame, at: pl.Series, order: list[str]) -> pl.Series:
    # The positions that come first in the order of values, so that the same difference shows the same rows.
    if not order:
        return at.head(_SAMPLES)
    return frame[at].lazy().with_columns(at.alias(_NTH)).sort([*order, _NTH]).head(_SAMPLES).collect()[_NTH]


def _rows(frame: pl.DataFrame, at: pl.Series) -> tuple[Json, ...]:
    return tuple({name: plain(value) for name, value in row.items()} for row in frame[at].to_dicts())


def _changes(
    old: pl.DataFrame, new: pl.DataFrame, changed: pl.DataFrame, columns: list[str], first: pl.Series, by: list[str]
) -> tuple[RowChange, ...]:
    shown = first.to_frame(_BEFORE).join(changed, on=_BEFORE, how="left", maintain_order="left")
    a, b = _alike(old[shown[_BEFORE]], new[shown[_AFTER]])
    rows = []
    for at, (was, now) in enumerate(zip(_rows(old, shown[_BEFORE]), _rows(new, shown[_AFTER]), strict=True)):
        differ = [name for name in columns if a[name][at : at + 1].ne_missing(b[name][at : at + 1]).item()]
        rows.append(
            RowChange(
                key={name: now[name] for name in by},
                before={name: was[name] for name in differ},
                after={name: now[name] for name in differ},
            )
        )
    return tuple(rows)


def _retyped(old: pl.DataFrame, new: pl.DataFrame) -> tuple[Retyped, ...]:
    return tuple(
        Retyped(column=name, before=dtype_text(dtype), after=dtype_text(new.schema[name]))
        for name, dtype in old.schema.items()
        if name in new.columns and new.schema[name] != dtype
    )


def _columns(old: pl.DataFrame, new: pl.DataFrame, changed: dict[str, int]) -> tuple[ColumnChange, ...]:
    shared = [name for name in old.columns if name in new.columns]
    profiles = zip(profile(old.select(shared)), profile(new.select(shared)), strict=True)
    a, b = readable(old.select(shared)), readable(new.select(shared))
    found = [_column(a[was.name], b[was.name], was, now, changed.get(was.name, 0)) for was, now in profiles]
    return tuple(sorted(found, key=lambda c: (-max(c.psi, _missing_psi(c)), c.column)))


def _column(x: pl.Series, y: pl.Series, was: ColumnProfile, now: ColumnProfile, changed: int) -> ColumnChange:
    kind = was.kind if was.kind == now.kind else "category"
    a, b = _categories(texts(x), texts(y)) if kind == "category" else _numbers(x, y)
    return ColumnChange(
        column=was.name, kind=kind, changed=changed, psi=psi(a, b), noise=sampling_noise(a, b), before=was, after=now
    )


def _numbers(x: pl.Series, y: pl.Series) -> tuple[Json, Json]:
    if x.dtype.is_temporal():
        # Histograms count in Float32, which holds a second only near zero.
        start = x.min()
        x, y = ((v - start).dt.total_microseconds() / 1e6 if start is not None else v.to_physical() for v in (x, y))
    nothing = pl.Series([], dtype=pl.Float64)
    name = "value"
    entry = build_reference(x.to_frame(name), [FeatureSpec(name=name, kind="number")], nothing)["features"][name]
    return entry, count_values(y, entry)


def _categories(x: pl.Series, y: pl.Series) -> tuple[Json, Json]:
    # Counted in Polars: the many different values of an identifier would be slow to count one by one.
    tallies = [v.drop_nulls().rename("value").value_counts() for v in (x, y)]
    listed = tallies[0].sort(["count", "value"], descending=[True, False]).head(LISTED)["value"]
    entries = []
    for values, tally in zip((x, y), tallies, strict=True):
        counts = dict.fromkeys(listed.to_list(), 0) | dict(tally.filter(pl.col("value").is_in(listed.implode())).iter_rows())
        other = len(values) - values.null_count() - sum(counts.values())
        entries.append({"kind": "category", "counts": counts, "other": other, "nulls": values.null_count(), "rows": len(values)})
    return entries[0], entries[1]


def _missing_psi(change: ColumnChange) -> float:
    # The index over two cells, missing and there, so that the order weighs missing values as it weighs all others.
    entries = [
        {
            "kind": "category",
            "counts": {"missing": p.missing, "there": p.rows - p.missing},
            "other": 0,
            "nulls": 0,
            "rows": p.rows,
        }
        for p in (change.before, change.after)
    ]
    return psi(*entries)
