"""Stage 8's records in the database: alerts and what happened to them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from mulle.adapters.metadata.database import Database, dump, insert_once, microseconds, newest_first
from mulle.adapters.metadata.tables import alert_events, alerts, open_alerts, outbox
from mulle.core.errors import UsageError
from mulle.core.records.window import Alert, AlertEvent

__all__ = ["SqlAlerts"]


class SqlAlerts:
    """Meets `mulle.core.ports.metadata.Alerts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, alert: Alert, event: AlertEvent) -> None:
        """Add an alert together with its opening event."""
        row = {"id": alert.id, "model": alert.model, "created_at": microseconds(alert.created_at), "record": dump(alert)}
        with self._database.write() as connection:
            if insert_once(connection, alerts, "id", row):
                insert_once(connection, open_alerts, "alert", {"alert": alert.id})
            _append(connection, event)

    def add_event(self, event: AlertEvent) -> None:
        """Append an event to an alert."""
        with self._database.write() as connection:
            _append(connection, event)

    def get(self, alert: str) -> Alert | None:
        """Return an alert, or None."""
        return next(iter(self._database.records(Alert, select(alerts.c.record).where(alerts.c.id == alert))), None)

    def events(self, alert: str) -> Sequence[AlertEvent]:
        """List an alert's events, oldest first."""
        query = select(alert_events.c.record).where(alert_events.c.alert == alert)
        return self._database.records(AlertEvent, query.order_by(alert_events.c.at, alert_events.c.seq))

    def list(self, model: str | None = None, state: str | None = None, limit: int = 100) -> Sequence[Alert]:
        """List alerts, newest first; see the port.

        Raises
        ------
        UsageError
            When `state` is neither ``open`` nor ``closed``.
        """
        if state not in (None, "open", "closed"):
            raise UsageError(f"'{state}' is not a state of an alert", next="ask for open or closed")
        query = newest_first(alerts, limit)
        query = query if model is None else query.where(alerts.c.model == model)
        if state is not None:
            still_open = alerts.c.id.in_(select(open_alerts.c.alert))
            query = query.where(still_open if state == "open" else ~still_open)
        return self._database.records(Alert, query)


def _append(connection: Connection, event: AlertEvent) -> None:
    row = {"id": event.id, "alert": event.alert, "at": microseconds(event.at), "kind": event.kind, "record": dump(event)}
    if not insert_once(connection, alert_events, "id", row):
        return
    if event.kind == "close":
        connection.execute(delete(open_alerts).where(open_alerts.c.alert == event.alert))
    if event.tell:
        waiting = {"event": event.id, "alert": event.alert, "due": row["at"], "attempts": 0, "held": False, "done": ""}
        insert_once(connection, outbox, "event", waiting)
