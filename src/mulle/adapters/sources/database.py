"""What every use of a user's database shares: its URL with the environment's values, and its errors in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from mulle.adapters.sources.environment import filled, hidden
from mulle.core.errors import DataError, MulleError, Unavailable, UsageError

__all__ = ["Database", "shown"]

_AWAY = re.compile(r"unable to open|locked|busy|disk I/O", re.I)
_UNKNOWN = re.compile(r"authentication failed|access denied|does not exist|unknown database|no such", re.I)


class Database:
    """A user's database.

    Parameters
    ----------
    template : str
        SQLAlchemy's URL; ``${NAME}`` is filled from the environment.
    """

    def __init__(self, template: str) -> None:
        self._template = template

    def url(self, *, there: bool = True) -> sa.URL:
        """Read the URL; a file must be `there`.

        Raises
        ------
        UsageError, Unavailable
        """
        text = filled(self._template)
        try:
            url = sa.make_url(text)
        except (exc.ArgumentError, ValueError):  # its message might hold the password
            raise UsageError("Sql: the URL cannot be read", next="write dialect+driver://user:password@host/database") from None
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")  # the driver that mulle[postgres] brings
        file = url.database if url.get_backend_name() == "sqlite" else None
        if there and file and file != ":memory:" and not file.startswith("file:") and not Path(file).exists():
            raise Unavailable(f"there is no database file {file}", next="see the URL; a relative path starts where Mulle runs")
        return url

    @contextmanager
    def told(self, url: sa.URL) -> Iterator[None]:
        """Raise what fails within as our own errors, without the password."""
        name = shown(url)
        try:
            yield
        except MulleError:
            raise
        except exc.NoSuchTableError as error:
            raise DataError(f"{name}: no table '{error}'", next="name a table it has, or write a SELECT") from error
        except (exc.NoSuchModuleError, ImportError) as error:
            driver = url.drivername
            raise UsageError(
                f"{name}: no driver for {driver}: {error}", next="install it, such as mulle[postgres] for PostgreSQL"
            ) from error
        except exc.DBAPIError as error:
            raise self._failed(error, url) from error
        except (exc.SQLAlchemyError, ValueError) as error:
            raise DataError(f"{name}: {self._safe(error, url)}", next="mend the query or the rows") from error

    def _failed(self, error: exc.DBAPIError, url: sa.URL) -> MulleError:
        said = f"{shown(url)}: {self._safe(error.orig or error, url)}"
        lost = error.connection_invalidated or isinstance(error, exc.InterfaceError | exc.OperationalError)
        if url.get_backend_name() == "sqlite":
            lost = _AWAY.search(said) is not None
        elif lost and not error.connection_invalidated and _UNKNOWN.search(said):
            return DataError(said, next="see the URL's user, password and database")
        if lost:
            return Unavailable(said, next="see that the database runs and is reached from here, or try again")
        return DataError(said, next="mend the query")

    def _safe(self, error: object, url: sa.URL) -> str:
        text = hidden(" ".join(str(error).split()), self._template)
        return text.replace(str(url.password), "***") if url.password else text


def shown(url: sa.URL) -> str:
    """Write a URL for people: without password and options."""
    return url.set(query={}).render_as_string(hide_password=True)
