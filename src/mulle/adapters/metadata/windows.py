"""Stage 8's records in the database: windows of the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, or_, select

from mulle.adapters.metadata.database import Database, dump, insert_many, microseconds
from mulle.adapters.metadata.tables import windows as table_of_windows
from mulle.core.records.window import Window

__all__ = ["SqlWindows"]


class SqlWindows:
    """Meets `mulle.core.ports.metadata.Windows`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, window: Window) -> None:
        """Add a window; see the port."""
        self.add_many([window])

    def add_many(self, windows: Sequence[Window]) -> None:
        """Add windows in one transaction."""
        with self._database.write() as connection:
            insert_many(connection, table_of_windows, ["id"], [_row(window) for window in windows])

    def of(self, model: str, start: datetime | None = None, end: datetime | None = None, limit: int = 1000) -> Sequence[Window]:
        """List a model's windows whose start lies in [start, end), oldest first.

        Of two with the same start the mature one counts, then the one written last. When more than `limit` match,
        the latest ones are given.
        """
        table = table_of_windows
        rank = func.row_number().over(partition_by=table.c.start, order_by=(table.c.mature.desc(), table.c.seq.desc()))
        query = select(table.c.start, table.c.record, rank.label("rank")).where(table.c.model == model)
        query = query if start is None else query.where(table.c.start >= microseconds(start))
        query = query if end is None else query.where(table.c.start < microseconds(end))
        ranked = query.subquery()
        chosen = select(ranked.c.record).where(ranked.c.rank == 1).order_by(ranked.c.start.desc()).limit(limit)
        return list(reversed(self._database.records(Window, chosen)))

    def last(self, model: str, mature: bool = True) -> Window | None:
        """Return the latest window by start; of two with the same start the mature one counts."""
        table = table_of_windows
        query = select(table.c.record).where(table.c.model == model)
        query = query.where(table.c.mature) if mature else query
        query = query.order_by(table.c.start.desc(), table.c.mature.desc(), table.c.seq.desc()).limit(1)
        return next(iter(self._database.records(Window, query)), None)

    def drop(self, model: str, now: datetime) -> None:
        """Take away what ends after now; see the port."""
        table = table_of_windows
        mine = or_(table.c.model == model, table.c.model.startswith(f"{model}/", autoescape=True))
        with self._database.write() as connection:
            connection.execute(delete(table).where(mine, table.c.end > microseconds(now)))


def _row(window: Window) -> dict[str, object]:
    return {
        "id": window.id,
        "model": window.model,
        "start": microseconds(window.start),
        "end": microseconds(window.end),
        "mature": window.mature,
        "record": dump(window),
    }
