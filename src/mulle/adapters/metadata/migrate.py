"""Bringing a database to the present revision with Alembic, inside the caller's transaction: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection

from mulle.core.errors import UsageError

__all__ = ["head", "upgrade"]


def head() -> str | None:
    """Return the newest migration's revision."""
    return _scripts().get_current_head()


def upgrade(connection: Connection) -> None:
    """Run every migration that the database has not had.

    Parameters
    ----------
    connection : Connection
        In a transaction that holds off other writers.

    Raises
    ------
    UsageError
        When a later release wrote the database.
    """
    scripts = _scripts()

    def steps(revision: object, _: MigrationContext) -> object:
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]

    # Alembic's usual way goes through globals, which another thread's migrations (MLflow's) would take over: here the
    # operations are handed to each migration.
    context = MigrationContext.configure(connection, opts={"fn": steps, "script": scripts})
    try:
        context.run_migrations(op=Operations(context))
    except (CommandError, ResolutionError) as error:
        raise UsageError(
            f"the records' database has a revision that this release does not know: {error}",
            next="install the release that wrote it, or a later one",
        ) from error


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations"))
