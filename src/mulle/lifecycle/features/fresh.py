"""What is new in a published table since the online store was last fed, and which rows must be read because of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import AsOf, History, Lookup
from mulle.kernel.bookkeeping import BOOKKEEPING
from mulle.kernel.dtypes import INSTANT, schema_text
from mulle.kernel.keys import key_expr
from mulle.lifecycle.features.timeline import KEY, KNOWN, TIME, carried
from mulle.lifecycle.features.windows import sources_of

__all__ = ["Published", "Span", "TableReader"]


def _appended(version: int) -> tuple[int, pl.LazyFrame | None]:
    return version, None


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset's published rows, as a feed reads them.

    Attributes
    ----------
    rows : polars.LazyFrame
        Every version of every row, with the bookkeeping columns; what a feed asks of it is pushed down to the files.
    version : int
        The dataset's version these are; 0 when none is known.
    changed : callable
        From the version that a store was last fed to: the number above which a row's ``_version`` makes it new to the
        store, and the rows that the store was fed and that are published no longer (after a restore), or None.
    """

    rows: pl.LazyFrame
    version: int = 0
    changed: Callable[[int], tuple[int, pl.LazyFrame | None]] = _appended


@dataclass(frozen=True, slots=True)
class Span:
    """What a feed covers, microseconds.

    Attributes
    ----------
    since : int or None
        The store holds what was available up to here; None when it holds nothing.
    until : int
        It shall hold what was available up to here.
    horizon : int
        Nobody asks for instants before.
    """

    since: int | None
    until: int
    horizon: int


class TableReader:
    """Reads of one joined table what one feed needs.

    Parameters
    ----------
    join : Lookup, AsOf or History
    table : Published
    version : int
        The version that the store was fed to.
    span : Span
    """

    def __init__(self, join: Lookup | AsOf | History, table: Published, version: int, span: Span) -> None:
        self._dataset: Dataset = join.dataset
        self._by = join.by if isinstance(join, History) else join.dataset.key
        schema = table.rows.collect_schema()
        self._names = _used(join, schema)
        self._rows = table.rows.select(self._names)
        base, gone = table.changed(version)
        self._gone = None if gone is None else _as_in(gone, {name: schema[name] for name in self._names})
        self._new = _new(schema.names(), base, span.since)
        self._changed = gone is not None or table.version == 0 or base < table.version

    def all(self, until: int) -> pl.DataFrame:
        """Read every row that was said to be known by an instant; of a table without time every row."""
        if self._dataset.available is None:
            return self._rows.collect()
        return self._rows.filter(pl.col(self._dataset.available) <= _moment(until)).collect()

    def fresh(self, after: int | None = None, until: int | None = None) -> pl.DataFrame:
        """Read the rows that are new to the store or gone from the table, and those available in ``(after, until]``.

        Perhaps some live rows more; they do no harm.
        """
        chosen = self._new if self._changed else pl.lit(False)
        if after is not None and until is not None:
            chosen = chosen | self._within(after, until)
        return self._with_gone(self._rows.filter(chosen).collect())

    def revised(self, after: int, until: int) -> pl.DataFrame:
        """Read the new and gone rows that may have been available by `until`, and those of ``(after, until]`` they replace."""
        known = (pl.col(self._dataset.available or "") <= _moment(until)).fill_null(False)
        new = self._rows.filter(self._new & known if self._changed else pl.lit(False)).collect()
        identity = list(self._dataset.identity)
        if new.height and identity:
            named = new.select(identity).unique().lazy()
            old = self._rows.filter(~self._new & self._within(after, until)).join(named, on=identity, how="semi").collect()
            new = pl.concat([new, old])
        return self._with_gone(new)

    def keys_of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Give the join keys of rows, each once, as the table has them; those with a null are left out."""
        return rows.select(self._by).drop_nulls().unique()

    def of_keys(self, keys: pl.DataFrame, low: int | None = None) -> pl.DataFrame:
        """Read the rows of keys that may hold from the instant `low` on: all of them, where rows are gone from the table.

        What is new holds from its own time at the earliest, and then beside rows of its time or later ones; where a row
        is gone, the one before it holds again.
        """
        rows = self._rows.join(keys.lazy(), on=list(self._by), how="semi")
        if low is None or self._gone is not None or self._dataset.time is None:
            return rows.collect()
        return self._with_versions(rows, (pl.col(self._dataset.time) >= _moment(low)) | self._after(low - 1))

    def between(self, after: int, until: int) -> pl.DataFrame:
        """Read the rows available in ``(after, until]``, perhaps some more, and their later versions."""
        return self._with_versions(self._rows, self._within(after, until))

    def known(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Give each row's key (text), time and availability, whether it ever held or not; rows that lack one left out."""
        time, available = pl.col(self._dataset.time or "").dt.epoch("us"), pl.col(self._dataset.available or "").dt.epoch("us")
        known = available
        if "_live" in rows.columns:
            later = pl.max_horizontal(available, pl.col("_ingested_at").dt.epoch("us"))
            # Never known stays so: the later of nothing and an ingestion would be the ingestion.
            live = pl.col("_live").fill_null(False) & available.is_not_null()
            known = pl.when(live).then(later).otherwise(available)
        return rows.select(key_expr(self._by).alias(KEY), time.alias(TIME), known.alias(KNOWN)).drop_nulls()

    def _after(self, instant: int) -> pl.Expr:
        # Both columns are looked at, for the files keep the bounds of each, and not those of the later of the two.
        chosen = pl.col(self._dataset.available or "") > _moment(instant)
        if "_live" in self._names:
            chosen = chosen | (pl.col("_live") & (pl.col("_ingested_at") > _moment(instant)))
        return chosen.fill_null(False)

    def _within(self, after: int, until: int) -> pl.Expr:
        return self._after(after) & (pl.col(self._dataset.available or "") <= _moment(until)).fill_null(False)

    def _with_versions(self, rows: pl.LazyFrame, chosen: pl.Expr) -> pl.DataFrame:
        # A later version may have been available earlier (a bulk correction), and then ends a row from outside the span.
        some, identity = rows.filter(chosen).collect(), list(self._dataset.identity)
        if not identity or some.is_empty():
            return some
        order = next((c for c in ("_version", "_ingested_at") if c in self._names), None)
        later = ~chosen
        if order is not None and some[order].null_count() == 0:
            # Of one batch it is availability that decides, so there none is ended from outside the span.
            later &= pl.col(order) > some[order].min() if order == "_version" else pl.col(order) >= some[order].min()
        more = rows.filter(later).join(some.select(identity).unique().lazy(), on=identity, how="semi").collect()
        return pl.concat([some, more])

    def _with_gone(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows if self._gone is None else pl.concat([rows, self._gone.collect()])


def _used(join: Lookup | AsOf | History, schema: pl.Schema) -> list[str]:
    dataset = join.dataset
    wanted: Iterable[str] = (*dataset.identity, dataset.time or "", dataset.available or "", *BOOKKEEPING)
    if isinstance(join, History):
        wanted = {*wanted, *join.by, *sources_of(join, schema.names())}
    else:
        wanted = {*wanted, *dataset.key, *carried(dataset, schema_text(pl.DataFrame(schema=schema)))}
    return [name for name in schema.names() if name in wanted]


def _new(names: list[str], base: int, since: int | None) -> pl.Expr:
    if since is None:
        return pl.lit(True)
    if "_version" in names:
        return (pl.col("_version") > base).fill_null(False)
    if "_ingested_at" in names:
        return (pl.col("_ingested_at") > _moment(since)).fill_null(False)
    return pl.lit(True)


def _as_in(rows: pl.LazyFrame, schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    have = rows.collect_schema()
    return rows.select((pl.col(n) if n in have else pl.lit(None)).cast(dtype).alias(n) for n, dtype in schema.items())


def _moment(micros: int) -> pl.Expr:
    return pl.lit(EPOCH + timedelta(microseconds=micros), dtype=INSTANT)
