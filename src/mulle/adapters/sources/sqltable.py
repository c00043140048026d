"""A table of a database that a batch job's answers go to, each chunk of them in one transaction."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy import exc

from mulle.adapters.sources.database import Database, shown
from mulle.core.errors import DataError

__all__ = ["SqlTable"]

_PORTION = 5_000
_WAIT = 60
"""Seconds that a writer of SQLite, which takes one at a time, waits for the others."""


class SqlTable:
    """Writes chunks of rows; implements `RowTable`.

    The table is made by the first chunk, with the columns ``batch`` and ``chunk`` and an index on both. One that is there must
    have every column.

    Parameters
    ----------
    url : str
        SQLAlchemy's; ``${NAME}`` is filled from the environment.
    table : str
        Perhaps ``SCHEMA.NAME``.
    """

    def __init__(self, url: str, table: str) -> None:
        self._database = Database(url)
        schema, _, self._name = table.rpartition(".")
        self._schema = schema or None

    def put(self, rows: pl.DataFrame, *, batch: str, chunk: int) -> None:
        """Write a chunk, in the place of what an earlier try of it wrote.

        Raises
        ------
        DataError
            When the table lacks a column, or takes a value not.
        Unavailable, UsageError
        """
        url = self._database.url(there=False)
        options = {"connect_args": {"timeout": _WAIT}} if url.get_backend_name() == "sqlite" else {}
        rows = rows.with_columns(pl.lit(batch).alias("batch"), pl.lit(chunk, dtype=pl.Int32).alias("chunk"))
        with self._database.told(url):
            engine = sa.create_engine(url, poolclass=sa.NullPool, **options)
            try:
                table = self._made(engine, rows, shown(url))
                mine = (table.c.batch == batch) & (table.c.chunk == chunk)
                with engine.begin() as connection:
                    connection.execute(table.delete().where(mine))
                    for portion in rows.iter_slices(_PORTION):
                        connection.execute(table.insert(), portion.to_dicts())
            finally:
                engine.dispose()

    def _made(self, engine: sa.Engine, rows: pl.DataFrame, name: str) -> sa.Table:
        if not sa.inspect(engine).has_table(self._name, self._schema):
            columns = [sa.Column(column, _type(dtype)) for column, dtype in rows.schema.items()]
            new = sa.Table(self._name, sa.MetaData(), *columns, schema=self._schema)
            sa.Index(f"{self._name}_batch_chunk", new.c.batch, new.c.chunk)
            # Another process may make it at the same moment.
            with suppress(exc.OperationalError, exc.ProgrammingError, exc.IntegrityError):
                new.create(engine)
        table = sa.Table(self._name, sa.MetaData(), schema=self._schema, autoload_with=engine, resolve_fks=False)
        if missing := [column for column in rows.columns if column not in table.c]:
            raise DataError(
                f"{name}: table {self._name} has no column {', '.join(missing)}",
                next="name a table that is not there yet, or add them",
            )
        return table


def _type(dtype: pl.DataType) -> sa.types.TypeEngine[Any]:
    if dtype.is_integer():
        return sa.BigInteger()
    if dtype.is_float():
        return sa.Double()
    if isinstance(dtype, pl.Datetime):
        return sa.DateTime(timezone=dtype.time_zone is not None)
    if dtype == pl.Date:
        return sa.Date()
    return sa.Boolean() if dtype == pl.Boolean else sa.Text()
