"""The connection every aggregate shares: short transactions, rows that are written once, vendor errors made ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import cache
from typing import TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, Table, bindparam, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.sql.dml import ReturningInsert

from mulle.adapters.metadata.tables import run_queue
from mulle.core.clock import EPOCH
from mulle.core.errors import LostFence, MulleError, NotFound, Unavailable
from mulle.core.records.base import from_json, to_json

__all__ = [
    "Database",
    "before",
    "dump",
    "fenced",
    "insert_many",
    "insert_once",
    "instant",
    "load",
    "microseconds",
    "newest_first",
    "translated",
]

R = TypeVar("R")
Condition = ColumnElement[bool]

_MICROSECOND = timedelta(microseconds=1)

_FENCE: ContextVar[tuple[str, str] | None] = ContextVar("mulle_fence", default=None)
"""The run that the present thread works on, and the token it was given with it."""

# Shared and held to the end of the transaction: who takes the run over waits for it, or it finds the new token.
_HELD = select(run_queue.c.token, run_queue.c.ended).where(run_queue.c.run == bindparam("run")).with_for_update(read=True)


def microseconds(moment: datetime) -> int:
    """Return an instant as microseconds since the UTC epoch.

    Examples
    --------
    >>> microseconds(EPOCH + timedelta(seconds=2))
    2000000
    """
    return (moment - EPOCH) // _MICROSECOND


def instant(at: int) -> datetime:
    """Return microseconds since the UTC epoch as an instant.

    Examples
    --------
    >>> instant(2_000_000).isoformat()
    '1970-01-01T00:00:02+00:00'
    """
    return EPOCH + timedelta(microseconds=at)


def dump(record: object) -> str:
    """Write a record as the JSON text that its row keeps."""
    return json.dumps(to_json(record), separators=(",", ":"), ensure_ascii=False)


def load(kind: type[R], text: str) -> R:
    """Read a record back from its row's JSON text."""
    return from_json(kind, json.loads(text))


def newest_first(table: Table, limit: int) -> Select[str]:
    """Select records by creation, newest first; what shares an instant goes by order of writing."""
    return select(table.c.record).order_by(table.c.created_at.desc(), table.c.seq.desc()).limit(limit)


def before(connection: Connection, table: Table, after: str, order: tuple[Column[int], Column[int]] | None = None) -> Condition:
    """Condition a listing to the records that come after one of them, newest first.

    Parameters
    ----------
    after : str
        The id of the last record seen.
    order : pair of columns, optional
        What the listing is ordered by, instant then order of writing; by default the table's own.

    Raises
    ------
    NotFound
        When the table has no record of that id.
    """
    found = connection.execute(select(table.c.created_at, table.c.seq).where(table.c.id == after)).first()
    if found is None:
        raise NotFound(f"no record '{after}' in {table.name} to continue after", next="start the listing again without `after`")
    columns = order or (table.c.created_at, table.c.seq)
    # A comparison of tuples, not of columns joined by "or", is what an index can jump to.
    return tuple_(*columns) < tuple_(*found)


class Database:
    """One database; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(mulle_writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads.

        Raises
        ------
        Unavailable
            When the database is away.
        """
        with translated(self.engine), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes; on SQLite it holds the write lock from its first statement.

        Raises
        ------
        Unavailable
            When the database is away, locked for longer than its timeout, or its disk is full; nothing was written.
        NotFound
            When a row names an owner (a run, an alert) that does not exist.
        LostFence
            Inside a fence, when the run was taken over or has ended; nothing was written.
        """
        with translated(self.engine), self._writer.begin() as connection:
            _check_fence(connection)
            yield connection

    def add(self, table: Table, key: str, row: Mapping[str, object]) -> bool:
        """Write one row unless its key is there already; return whether it was written."""
        with self.write() as connection:
            return insert_once(connection, table, key, row)

    def records(self, kind: type[R], query: Select[str]) -> Sequence[R]:
        """Run a query for JSON texts and read the records."""
        with self.read() as connection:
            texts = connection.execute(query).scalars().all()
        return [load(kind, text) for text in texts]

    def names(self, column: Column[str]) -> Sequence[str]:
        """List the distinct values of a column, sorted by code point."""
        with self.read() as connection:
            return sorted(connection.execute(select(column).distinct()).scalars())


@contextmanager
def fenced(run: str, token: str) -> Iterator[None]:
    """Let every transaction that this thread writes inside the block hold only while the run bears the token."""
    mark = _FENCE.set((run, token))
    try:
        yield
    finally:
        _FENCE.reset(mark)


def _check_fence(connection: Connection) -> None:
    fence = _FENCE.get()
    if fence is None:
        return
    run, token = fence
    found = connection.execute(_HELD, {"run": run}).first()
    if found is None or found.token != token or found.ended:
        why = "has ended" if found is None or found.ended else "was taken over by another worker"
        raise LostFence(f"run {run} {why}; what this one found is not kept", next=f"see `mulle runs show {run}`", run=run)


def insert_once(connection: Connection, table: Table, keys: str | Sequence[str], row: Mapping[str, object]) -> bool:
    """Insert a row inside a transaction unless its unique key is taken; return whether it was inserted."""
    unique = (keys,) if isinstance(keys, str) else tuple(keys)
    return connection.execute(_insertion(table, unique, connection.dialect.name), row).first() is not None


@cache
def _insertion(table: Table, keys: tuple[str, ...], dialect: str) -> ReturningInsert[str]:
    # Made once: to build a statement takes longer than to run it.
    build = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Asked back, not counted: drivers do not agree on the count of rows of an insert.
    return build(table).on_conflict_do_nothing(index_elements=list(keys)).returning(table.c[keys[0]])


def insert_many(connection: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows inside a transaction, leaving out those whose unique key is taken."""
    if rows:
        build = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(build(table).on_conflict_do_nothing(index_elements=list(keys)), list(rows))


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    where = engine.url.render_as_string(hide_password=True)
    try:
        yield
    except MulleError:
        raise
    except IntegrityError as error:
        if "foreign key" not in str(error.orig).lower():
            raise
        raise NotFound(
            f"a record names an owner that {where} does not have: {error.orig}", next="add the run or the alert first"
        ) from error
    except (DBAPIError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        raise Unavailable(
            f"the records' database {where} did not answer: {cause}",
            next="see that it is reachable, its disk has room, then try again",
        ) from error
