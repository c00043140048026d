"""A database as a source: a table or query read in one snapshot, whole or from where the last read ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import sqlalchemy as sa

from mulle.adapters.sources.database import Database, shown
from mulle.adapters.sources.records import frame_of
from mulle.adapters.sources.spool import Spool, pieces
from mulle.adapters.sources.sqltypes import described, reflected, with_declared
from mulle.core.clock import instant, rfc3339
from mulle.core.declare.sources import Sql
from mulle.core.errors import DataError, UsageError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

__all__ = ["SqlReader"]

_PORTION = 20_000
_SELECT = re.compile(r"\s*(select|with|values|\()", re.I)
_BINDS = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is read: rows to select from and all of them, its name for messages, and the types the database tells of."""

    source: sa.FromClause
    whole: sa.Executable
    name: str
    types: Mapping[str, pl.DataType]

    def column(self, name: str) -> sa.ColumnElement[Any]:
        if isinstance(self.source, sa.Table) and name not in self.source.c:
            raise DataError(f"{self.name}: no column '{name}' for the cursor", next="name one it has", column=name)
        return self.source.c[name]


class SqlReader:
    """Reads a table or query; implements `SourceReader`.

    With a cursor, positions are ``{"cursor": the highest value read, "kind": what it is}`` and rows come in its order;
    an overlap is read again, with `repeats` set. Without a cursor every read gives everything, with `repeats` set.
    Count and rows come from one snapshot where the database has snapshots. All rows are read before the first is given.

    Parameters
    ----------
    source : Sql
    """

    def __init__(self, source: Sql) -> None:
        self._source, self._database = source, Database(source.url)

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:  # noqa: ARG002
        """Return the rows beyond the cursor, or all rows, or None when there are none.

        Raises
        ------
        DataError
            When the query fails, a cursor is null or went back, or a column holds several kinds of values.
        Unavailable
            When the database is away, or goes away while it is read.
        UsageError
            When the environment lacks a name, the URL or driver is unknown, or the overlap does not fit the cursor.
        """
        url = self._database.url()
        with self._database.told(url), self._connected(url) as connection:
            rows = self._rows(connection)
            if self._source.cursor is None:
                return self._batch(connection, rows, url, sa.true(), {}, pl.lit(True))
            return self._beyond(connection, rows, url, positions)

    def _beyond(self, connection: sa.Connection, rows: _Rows, url: sa.URL, positions: Json) -> Batch | None:
        name, overlap = str(self._source.cursor), self._source.overlap
        column = rows.column(name)
        high = connection.scalar(sa.select(sa.func.max(column)))
        nulls = connection.scalar(sa.select(sa.func.count()).select_from(rows.source).where(column.is_(None)))
        if nulls:
            raise DataError(
                f"{rows.name}: cursor '{name}' is null in {nulls} rows, which would never be read",
                next="fill it, leave those rows out in the query, or name another cursor",
                column=name,
                rows=nulls,
            )
        last = _value(positions)
        if high is None:
            return None
        kind = _kind(high)
        reached = {"cursor": _text(high), "kind": kind}
        if last is None:
            return self._batch(connection, rows, url, column <= high, reached, None, order=column)
        if positions["kind"] != kind or high < last:
            said = f"went back: it was {positions['cursor']}, and is {_text(high)}"
            raise DataError(f"{rows.name}: cursor '{name}' {said}", next="name a column that only grows", column=name)
        start = last if overlap is None else _back(last, overlap, kind, name)
        if high == last and not self._late(connection, rows, column, start, positions):
            return None
        repeats = None if overlap is None else pl.col(name) > _literal(start, kind)
        return self._batch(connection, rows, url, (column > start) & (column <= high), reached, repeats, order=column)

    def _late(self, connection: sa.Connection, rows: _Rows, column: sa.ColumnElement[Any], start: Any, positions: Json) -> bool:
        """Tell whether the span to be read again, up to the recorded value, holds other than what was there then."""
        if self._source.overlap is None:
            return False
        return _count(connection, rows, column > start) != positions.get("behind")

    def _batch(
        self,
        connection: sa.Connection,
        rows: _Rows,
        url: sa.URL,
        span: sa.ColumnElement[bool],
        positions: Json,
        repeats: pl.Expr | None,
        *,
        order: sa.ColumnElement[Any] | None = None,
    ) -> Batch | None:
        counted = _count(connection, rows, span)
        if not counted:
            return None
        if order is not None and self._source.overlap is not None:
            start = _back(_value(positions), self._source.overlap, positions["kind"], str(self._source.cursor))
            positions = {**positions, "behind": _count(connection, rows, (order > start) & (order <= _value(positions)))}
        query = rows.whole
        if order is not None:
            columns: Any = rows.source if isinstance(rows.source, sa.Table) else sa.literal_column("*")
            query = sa.select(columns).select_from(rows.source).where(span).order_by(order)
        spool = Spool(rows.name)
        try:
            self._fill(spool, connection.execution_options(yield_per=_PORTION), query, rows)
        except BaseException:
            spool.clear()
            raise
        return Batch(
            pieces=pieces([spool.portion()]),
            positions=positions,
            origin=f"{rows.name} of {shown(url)}",
            counted=counted,
            repeats=repeats,
        )

    def _fill(self, spool: Spool, connection: sa.Connection, query: sa.Executable, rows: _Rows) -> None:
        with connection.execute(query) as result:
            names = list(result.keys())
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise DataError(f"{rows.name}: two columns are named '{min(twice)}'", next="name each once with `as`")
            types = rows.types or described(connection.dialect.name, result)
            for portion in result.partitions():
                columns = dict(zip(names, zip(*portion, strict=True), strict=True))
                spool.add(with_declared(frame_of(columns, rows.name), types))

    def _rows(self, connection: sa.Connection) -> _Rows:
        query = self._source.query.strip().rstrip(";")
        if _SELECT.match(query):
            text = sa.text(_BINDS.sub(r"\\:\1", query))  # a colon in the user's SQL is no parameter of ours
            columns: list[sa.ColumnClause[Any]] = [sa.column(self._source.cursor)] if self._source.cursor else []
            return _Rows(text.columns(*columns).subquery("rows_read"), text, "query", {})
        schema, _, name = query.rpartition(".")
        table = sa.Table(
            name.strip('"'), sa.MetaData(), schema=schema.strip('"') or None, resolve_fks=False, autoload_with=connection
        )
        return _Rows(table, sa.select(table), query, reflected(table))

    @contextmanager
    def _connected(self, url: sa.URL) -> Iterator[sa.Connection]:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        try:
            with engine.connect() as connection:
                raw = connection.connection.dbapi_connection
                assert raw is not None
                if engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN")  # the driver begins for writes only
                elif "REPEATABLE READ" in engine.dialect.get_isolation_level_values(raw):
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection
        finally:
            engine.dispose()


def _count(connection: sa.Connection, rows: _Rows, span: sa.ColumnElement[bool]) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(rows.source).where(span)) or 0)


def _kind(value: Any) -> str:
    if isinstance(value, datetime):
        return "moment" if value.tzinfo is None else "time"
    kinds: dict[type, str] = {date: "date", str: "text", int: "number", float: "number", Decimal: "decimal"}
    if type(value) not in kinds:
        raise DataError(f"Sql: a cursor cannot be a {type(value).__name__}", next="name a number, a time or a text")
    return kinds[type(value)]


def _text(value: Any) -> str | int | float:
    if isinstance(value, datetime):
        return rfc3339(instant(value))
    return value if isinstance(value, str | int | float) else str(value)


def _value(positions: Json) -> Any:
    """Read a recorded cursor back as the database gave it."""
    if "cursor" not in positions:
        return None
    value, kind = positions["cursor"], positions["kind"]
    if kind == "time":
        return instant(value)
    if kind == "moment":
        return instant(value).replace(tzinfo=None)
    return date.fromisoformat(value) if kind == "date" else Decimal(value) if kind == "decimal" else value


def _back(value: Any, overlap: timedelta | float, kind: str, name: str) -> Any:
    timed = kind in ("time", "moment", "date")
    if kind == "text" or timed != isinstance(overlap, timedelta):
        wanted = "a duration such as 1h" if timed else "a number"
        hint = "leave it out, or name the table, so that its times are known" if kind == "text" else f"give {wanted}"
        raise UsageError(f"Sql: overlap does not fit cursor '{name}', which is a {kind}", next=hint)
    if kind == "date":
        return value - timedelta(days=-(-overlap // timedelta(days=1)))  # type: ignore[operator]
    return value - (Decimal(str(overlap)) if kind == "decimal" else overlap)


def _literal(value: Any, kind: str) -> pl.Expr:
    if kind in ("time", "moment"):
        return pl.lit(instant(value)).cast(pl.Datetime("us", "UTC"))
    return pl.lit(float(value)) if kind == "decimal" else pl.lit(value)
