"""What people are still to be told, in the database: one row for each event of an alert until every receiver has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, FromClause, Row, and_, case, delete, func, or_, select, update

from mulle.adapters.metadata.database import Database, dump, load, microseconds
from mulle.adapters.metadata.tables import alert_events, alerts, outbox
from mulle.adapters.metadata.tables import silences as table_of_silences
from mulle.core.records.notice import Silence, Untold
from mulle.core.records.window import Alert, AlertEvent

__all__ = ["SqlOutbox"]

_LONGEST = timedelta(hours=2)
"""More than any pause between two attempts; a silence is no pause, but held."""


class SqlOutbox:
    """Meets `mulle.core.ports.alerts.Outbox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime, limit: int = 10_000) -> Sequence[Untold]:
        """List what is to be told now, oldest first; see the port. What a silence held is always listed."""
        earlier = outbox.alias("earlier")
        before = and_(earlier.c.alert == outbox.c.alert, earlier.c.seq < outbox.c.seq)
        blocked = select(earlier.c.seq).where(before, ~_free(earlier, now))
        query = (
            select(outbox, alert_events.c.record.label("happened"), alerts.c.record)
            .join(alert_events, alert_events.c.id == outbox.c.event)
            .join(alerts, alerts.c.id == outbox.c.alert)
            .where(_free(outbox, now), ~blocked.exists())
        )
        with self._database.read() as connection:
            return [_untold(row) for row in connection.execute(query.order_by(outbox.c.seq).limit(limit))]

    def claim(self, seqs: Sequence[int], now: datetime, until: datetime) -> bool:
        """Take events for sending until an instant; False when somebody else has one of them."""
        free = and_(outbox.c.seq.in_(seqs), _free(outbox, now))
        taking = update(outbox).where(free).values(due=microseconds(until), held=False)
        with self._database.write() as connection:
            # Asked back, not counted: drivers do not agree on the count of rows.
            taken = len(connection.execute(taking.returning(outbox.c.seq)).all())
            if taken != len(seqs):
                connection.rollback()
            return taken == len(seqs)

    def told(self, seqs: Sequence[int], receiver: str) -> None:
        """Note that a receiver has taken events."""
        more = case((outbox.c.done == "", receiver), else_=outbox.c.done + f",{receiver}")
        with self._database.write() as connection:
            connection.execute(update(outbox).where(outbox.c.seq.in_(seqs)).values(done=more))

    def put_off(self, seqs: Sequence[int], until: datetime, *, failed: bool = False, held: bool = False) -> None:
        """Let events wait; see the port."""
        values = {"due": microseconds(until), "held": held, "attempts": outbox.c.attempts + int(failed)}
        with self._database.write() as connection:
            connection.execute(update(outbox).where(outbox.c.seq.in_(seqs)).values(**values))

    def settle(self, seqs: Sequence[int] | None = None) -> None:
        """Drop events that need no telling any more; by default all."""
        dropping = delete(outbox) if seqs is None else delete(outbox).where(outbox.c.seq.in_(seqs))
        with self._database.write() as connection:
            connection.execute(dropping)

    def count(self) -> int:
        """Count what is not told."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(outbox)).scalar_one())

    def silence(self, silence: Silence) -> None:
        """Add a silence."""
        row = {"id": silence.id, "model": silence.model, "created_at": microseconds(silence.created_at), "record": dump(silence)}
        self._database.add(table_of_silences, "id", row)

    def silences(self) -> Sequence[Silence]:
        """List the last silence of each name, over or not."""
        table = table_of_silences
        latest = select(func.max(table.c.seq)).group_by(table.c.model)
        return self._database.records(Silence, select(table.c.record).where(table.c.seq.in_(latest)).order_by(table.c.seq))


def _free(table: FromClause, now: datetime) -> ColumnElement[bool]:
    # What was put off for longer than anything is was so by a clock that was ahead.
    at = microseconds(now)
    return or_(table.c.due <= at, table.c.due > at + _LONGEST // timedelta(microseconds=1), table.c.held)


def _untold(row: Row[tuple[object, ...]]) -> Untold:
    return Untold(
        seq=row.seq,
        alert=load(Alert, row.record),
        event=load(AlertEvent, row.happened),
        attempts=row.attempts,
        done=tuple(filter(None, row.done.split(","))),
        held=row.held,
    )
