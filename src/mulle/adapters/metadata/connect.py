"""Opening the records' database: the file or server is reached, brought to the present revision and wrapped by aggregate."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from mulle.adapters.metadata.alerts import SqlAlerts
from mulle.adapters.metadata.database import Database
from mulle.adapters.metadata.datasets import SqlDatasets
from mulle.adapters.metadata.deployments import SqlDeployments
from mulle.adapters.metadata.models import SqlModels
from mulle.adapters.metadata.outbox import SqlOutbox
from mulle.adapters.metadata.queue import SqlQueue
from mulle.adapters.metadata.runs import SqlRuns
from mulle.adapters.metadata.tables import HEAD, metadata
from mulle.adapters.metadata.windows import SqlWindows
from mulle.core.errors import Unavailable, UsageError
from mulle.core.ports.metadata import Metadata

__all__ = ["open_database", "open_metadata"]

_BUSY_SECONDS = 30
_UPGRADE_LOCK = 7_355_608
"""PostgreSQL's advisory lock that two starting processes meet at."""


def open_metadata(url: str) -> Metadata:
    """Open the records' database, making or upgrading it when needed.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql://user@host/database``.

    Returns
    -------
    Metadata
        Safe to share between threads; several processes may open the same database, also at once.

    Raises
    ------
    UsageError
        When the URL is not one of these, or a later release wrote the database.
    Unavailable
        When the database cannot be reached or made.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> open_metadata(f"sqlite:///{folder}/mulle.db").runs.list()
    []
    """
    database = open_database(url)
    return Metadata(
        datasets=SqlDatasets(database),
        runs=SqlRuns(database),
        models=SqlModels(database),
        deployments=SqlDeployments(database),
        windows=SqlWindows(database),
        alerts=SqlAlerts(database),
        queue=SqlQueue(database),
        outbox=SqlOutbox(database),
    )


def open_database(url: str) -> Database:
    """Open the database alone, at the present revision; see `open_metadata`."""
    engine = _engine(url)
    database = Database(engine)
    with database.read() as connection:
        current = _revision(connection)
    if current != HEAD:
        with database.write() as connection:
            _upgrade(connection)
    return database


def _engine(url: str) -> Engine:
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(parsed, pool_pre_ping=True)
    _make_file(Path(parsed.database or ""))
    # pysqlite's own transactions would open late and read outside of them: ours begin where SQLAlchemy says so.
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"'{url}' is not a database URL", next="write sqlite:///path or postgresql://user@host/name") from error
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    shown = parsed.render_as_string(hide_password=True)
    raise UsageError(f"records cannot be kept in '{shown}'", next="write sqlite:///path or postgresql://user@host/name")


def _make_file(path: Path) -> None:
    # The records name people and hold samples of rows: nobody else on the machine reads them.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One that is there is not opened: closing it would drop the locks of every connection that this process has to it, and
        # another process would then take its log away under it (sqlite.org/howtocorrupt.html, 2.2).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path.stat().st_mode & 0o077:
            with suppress(PermissionError):
                path.chmod(0o600)
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be made or written: {error.strerror}", next="see the folder's rights and room"
        ) from error


def _prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    _write_ahead(connection)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(connection: DBAPIConnection) -> None:
    # The switch to WAL does not wait for the busy timeout when another process switches at the same moment.
    cursor = connection.cursor()
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("mulle_writes", False)
    # A transaction that reads first and writes later fails at once, timeout or not, when another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    # Asked without Alembic, whose import alone takes longer than opening the database.
    try:
        with connection.begin_nested():
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except DBAPIError as error:
        if connection.dialect.name == "postgresql" and getattr(error.orig, "sqlstate", None) != "42P01":
            raise
        if connection.dialect.name == "sqlite" and "no such table" not in str(error.orig):
            raise
        return None


def _upgrade(connection: Connection) -> None:
    from mulle.adapters.metadata.migrate import upgrade

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    # Another process may have done it while this one waited for the lock.
    current = _revision(connection)
    if current != HEAD:
        if current is not None and connection.dialect.name == "sqlite":
            _keep_copy(Path(str(connection.engine.url.database)), current)
        elif current is not None:
            _keep_tables(connection, f"mulle_{current}")
        upgrade(connection)


def _keep_copy(path: Path, revision: str) -> None:
    """Keep the database as an earlier release left it, beside it in ``backups/``."""
    copy = path.parent / "backups" / f"{path.name}.{revision}"
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    partial = copy.with_name(f".{copy.name}.{os.getpid()}")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    # Writers wait meanwhile: this is called with the write lock held, which readers do not mind.
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
        source.backup(target)
    partial.replace(copy)


def _keep_tables(connection: Connection, schema: str) -> None:
    """Keep the tables as an earlier release left them, in a schema beside; what fails later takes the copy away again."""
    role, name = connection.execute(text("SELECT current_user, current_database()")).one()
    if connection.execute(text("SELECT to_regnamespace(:schema)"), {"schema": schema}).scalar() is None:
        try:
            with connection.begin_nested():
                connection.execute(text(f'CREATE SCHEMA "{schema}"'))
        except DBAPIError as error:
            raise UsageError(
                f"the records' database {name} is of an earlier release, and {role} may not make the schema {schema} that would "
                "keep a copy of it",
                next=f'as its owner: `CREATE SCHEMA "{schema}" AUTHORIZATION "{role}"`, then start again',
            ) from error
    there = set(connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")).scalars())
    for table in sorted(there & {*metadata.tables, "alembic_version"}):
        connection.execute(text(f'CREATE TABLE IF NOT EXISTS "{schema}"."{table}" AS TABLE "{table}"'))
