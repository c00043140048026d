"""The records as lines that any database takes: for backups, and for moving between SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from sqlalchemy import Connection, Table, func, insert, select, text

from mulle.adapters.metadata.connect import open_database
from mulle.adapters.metadata.tables import HEAD, metadata
from mulle.core.errors import Conflict
from mulle.core.records.base import Json

__all__ = ["dump_records", "load_records"]

_AT_ONCE = 1_000

_PASSING = ("workers",)
"""Tables of what is only true while processes live."""


def dump_records(url: str) -> tuple[str, Iterator[tuple[str, Json]]]:
    """Give every row of the records' database as it stands at one instant, owners before what names them.

    Returns
    -------
    tuple
        The database's revision, and pairs of a table's name and a row.
    """
    return HEAD, _rows(url)


def load_records(url: str, rows: Iterable[tuple[str, Json]]) -> int:
    """Fill an empty database, all of it or nothing; return how many rows there are.

    Raises
    ------
    Conflict
        When the database holds records.
    """
    count = 0
    with open_database(url).write() as connection:
        held = [table.name for table in _tables() if connection.execute(select(table).limit(1)).first() is not None]
        if held:
            raise Conflict(f"the records' database holds {held[0]} already", next="restore into an empty database")
        for name, group in groupby(rows, key=lambda pair: pair[0]):
            table = metadata.tables[name]
            portion: list[Json] = []
            for _, row in group:
                portion.append(row)
                if len(portion) == _AT_ONCE:
                    connection.execute(insert(table), portion)
                    count, portion = count + len(portion), []
            if portion:
                connection.execute(insert(table), portion)
                count += len(portion)
        if connection.dialect.name == "postgresql":
            _go_on_numbering(connection)
    return count


def _rows(url: str) -> Iterator[tuple[str, Json]]:
    engine = open_database(url).engine
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection, connection.begin():
        for table in _tables():
            order = list(table.primary_key.columns)
            for row in connection.execution_options(yield_per=_AT_ONCE).execute(select(table).order_by(*order)):
                yield table.name, dict(row._mapping)


def _tables() -> list[Table]:
    return [table for table in metadata.sorted_tables if table.name not in _PASSING]


def _go_on_numbering(connection: Connection) -> None:
    for table in _tables():
        if "seq" in table.c:
            last = connection.execute(select(func.max(table.c.seq))).scalar()
            if last is not None:
                connection.execute(text("SELECT setval(pg_get_serial_sequence(:t, 'seq'), :n)"), {"t": table.name, "n": last})
