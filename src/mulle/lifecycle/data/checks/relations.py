"""Checks of rows against other rows: of the batch, of what is published, of other datasets.

The one pass only takes counts of hashes, which prove that nothing is doubled: equal values have equal hashes. Where the
counts leave it open, the rows are compared by value, lazily and over the columns that matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from mulle.core.declare.rules import ForeignKey, NoDuplicates, OneOf, Unique
from mulle.core.errors import DataError
from mulle.kernel.dtypes import dtype_text
from mulle.lifecycle.data.checks import masks
from mulle.lifecycle.data.checks.plan import ROW, Found, Plan, Scene, complete, found_rows

__all__ = ["FEW", "foreign_key", "no_duplicates", "one_of_dataset", "unique"]

FEW = 1_000
"""Codes that are looked up within the one pass; more of them are joined."""


def unique(check: Unique, scene: Scene) -> Plan:
    """Find rows whose values stand in another row of the batch, or in a published row that stays."""
    columns = list(check.columns)
    for column in columns:
        scene.dtype(column)
    value = pl.col(columns[0]) if len(columns) == 1 else pl.struct(columns)
    given = complete(columns)
    probes = (value.filter(given).hash().n_unique(), given.sum())
    if len(columns) == 1:
        probes = (value.drop_nulls().hash().n_unique(), value.count())

    def judge(counts: tuple[Any, ...], _: int) -> Found:
        distinct, present = int(counts[0] or 0), int(counts[1] or 0)
        once = distinct == present
        taken = _taken(columns, scene)
        if once and (taken is None or taken.is_empty()):
            return Found()
        doubled = scene.rows.select(columns).filter(given).group_by(columns).len().filter(pl.col("len") > 1).select(columns)
        known = doubled if taken is None else pl.concat([doubled, taken.lazy()]).unique()
        failing = scene.rows.with_row_index(ROW).join(known, on=columns, how="semi")
        where = "" if taken is None or taken.is_empty() else ", in the batch or against what is published"
        return found_rows(failing, f"values that are not unique{where}")

    return Plan(judge, probes)


def no_duplicates(_check: NoDuplicates, scene: Scene) -> Plan:
    """Find rows that equal another one in every column."""
    columns = list(scene.schema)
    digest = pl.struct(columns).hash()

    def judge(counts: tuple[Any, ...], height: int) -> Found:
        if int(counts[0] or 0) == height:
            return Found()
        marked = scene.rows.with_row_index(ROW).with_columns(digest.alias("_digest"))
        twins = marked.select("_digest").group_by("_digest").len().filter(pl.col("len") > 1)
        near = marked.join(twins, on="_digest", how="semi")
        return found_rows(near.filter(pl.struct(columns).is_duplicated()), "rows that equal another")

    return Plan(judge, (digest.n_unique(),))


def foreign_key(check: ForeignKey, scene: Scene) -> Plan:
    """Find rows whose values the reference dataset has not."""
    table = _reference(check.reference.name, check.to, scene)
    return _absent(check.columns, table, check.to, f"values that {check.reference.name} has not", scene)


def one_of_dataset(check: OneOf, scene: Scene) -> Plan:
    """Find codes that are not among the reference dataset's keys; a few are looked up, many are joined."""
    assert check.reference is not None
    name, key = check.reference.name, check.reference.key[:1]
    known = f"the keys of {name}"
    codes = _reference(name, key, scene).select(key).drop_nulls().unique()
    few = codes.head(FEW + 1).collect(engine="streaming")
    if few.height <= FEW:
        return masks.among(check.column, few[key[0]], known, scene)
    return _absent((check.column,), codes, key, f"values that are not among {known}", scene)


def _absent(columns: Sequence[str], table: pl.LazyFrame, to: Sequence[str], says: str, scene: Scene) -> Plan:
    there = table.collect_schema()
    pairs = [(c, t, scene.dtype(c), there[t]) for c, t in zip(columns, to, strict=True)]
    for column, other, mine, its in pairs:
        if mine != its and not (mine.is_integer() and its.is_integer()):
            raise DataError(f"column '{column}' is {dtype_text(mine)}, the reference's '{other}' is {dtype_text(its)}")
    cast = [pl.Int128 if mine != its else mine for _, _, mine, its in pairs]
    known = table.select(pl.col(t).cast(d) for (_, t, _, _), d in zip(pairs, cast, strict=True)).unique()
    asked = [pl.col(c).cast(d) for (c, _, _, _), d in zip(pairs, cast, strict=True)]
    rows = scene.rows.with_row_index(ROW).filter(complete(columns))
    failing = rows.join(known, left_on=asked, right_on=[pl.col(t) for t in to], how="anti")
    return Plan(lambda _, __: found_rows(failing, says))


def _reference(name: str, columns: Sequence[str], scene: Scene) -> pl.LazyFrame:
    table = scene.beside.references.get(name)
    have = () if table is None else table.collect_schema().names()
    gone = [c for c in columns if c not in have]
    if table is None or gone:
        raise DataError(f"the reference dataset '{name}' has no published rows with '{', '.join(gone or columns)}'")
    return table


def _taken(columns: list[str], scene: Scene) -> pl.DataFrame | None:
    # Values of the batch that published rows hold which stay: those whose identity the batch brings again are replaced.
    published, identity = scene.beside.published, list(scene.dataset.identity)
    if published is None or scene.beside.whole or (identity and set(identity) <= set(columns)):
        return None
    have = published.collect_schema()
    if any(have.get(c) != scene.schema.get(c) for c in (*columns, *identity)):
        return None  # the check named schema tells
    asked = scene.rows.select(columns).filter(complete(columns))
    near = published.select({*columns, *identity}).join(asked, on=columns, how="semi")
    if identity:
        near = near.join(scene.rows.select(identity), on=identity, how="anti")
    return near.select(columns).unique().collect(engine="streaming")
