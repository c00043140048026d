"""Who runs what: the runs that wait, who took each, and which workers live; and the fence around what a run writes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, case, func, select, text, update

from mulle.adapters.metadata.database import Database, fenced, insert_once
from mulle.adapters.metadata.tables import run_queue, workers
from mulle.core.ports.metadata import Claim
from mulle.core.records.base import Json

__all__ = ["SqlQueue"]

_TAKE_LOCK = 7_355_609
"""PostgreSQL's advisory lock that workers who take a run meet at; on SQLite the write lock does."""

_MOST = 100_000


class SqlQueue:
    """Meets `mulle.core.ports.metadata.Queue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, run: str, *, model: str = "", priority: int = 0, given: Json | None = None) -> None:
        """Let a run wait; see the port."""
        row = {"run": run, "model": model, "priority": priority, "given": json.dumps(given or {})}
        row |= {"worker": "", "token": "", "ended": ""}
        with self._database.write() as connection:
            insert_once(connection, run_queue, "run", row)

    def take(self, worker: str, *, dead: Sequence[str] = (), at_most: int | None = None) -> Claim | None:
        """Take the next run that may run; see the port."""
        with self._database.read() as connection:
            # Most looks find nothing, and a look must not hold off who writes.
            if connection.execute(select(run_queue.c.seq).where(_free(dead)).limit(1)).first() is None:
                return None
        with self._database.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TAKE_LOCK})
            return _taken(connection, worker, dead, at_most)

    def held(self, worker: str) -> Sequence[Claim]:
        """Return what a worker holds."""
        with self._database.read() as connection:
            return [_claim(row) for row in connection.execute(_HELD_BY, {"of": worker})]

    def end(self, run: str, state: str, token: str | None = None) -> bool:
        """Note that a run has ended; see the port."""
        with self._database.write() as connection:
            ended = update(run_queue).where(run_queue.c.run == run, run_queue.c.ended == "")
            ended = ended if token is None else ended.where(run_queue.c.token == token)
            return connection.execute(ended.values(ended=state).returning(run_queue.c.run)).first() is not None

    def ended(self, run: str) -> str | None:
        """Return the state that a run ended in, empty while it has not; None when it was never put here."""
        with self._database.read() as connection:
            return connection.execute(_ENDED, {"of": run}).scalar()

    def unfinished(self) -> Sequence[str]:
        """List the runs that wait or run, oldest first."""
        query = select(run_queue.c.run).where(run_queue.c.ended == "").order_by(run_queue.c.seq).limit(_MOST)
        with self._database.read() as connection:
            return connection.execute(query).scalars().all()

    def finished(self, before: str, limit: int) -> Sequence[str]:
        """List runs that ended and whose id is below `before`, oldest first."""
        query = select(run_queue.c.run).where(run_queue.c.ended != "", run_queue.c.run < before)
        with self._database.read() as connection:
            return connection.execute(query.order_by(run_queue.c.seq).limit(limit)).scalars().all()

    def forget(self, runs: Sequence[str]) -> None:
        """Remove the rows of runs that ended."""
        with self._database.write() as connection:
            for start in range(0, len(runs), 10_000):
                gone = run_queue.c.run.in_(runs[start : start + 10_000])
                connection.execute(run_queue.delete().where(gone, run_queue.c.ended != ""))

    @contextmanager
    def fence(self, run: str, token: str) -> Iterator[None]:
        """Let what this thread writes inside the block hold only while the run is still its own; see the port."""
        with fenced(run, token):
            yield

    def beat(self, worker: str, count: int, told: Json) -> None:
        """Say that a worker lives."""
        row = {"id": worker, "beat": count, "told": json.dumps(told)}
        with self._database.write() as connection:
            if not insert_once(connection, workers, "id", row):
                connection.execute(update(workers).where(workers.c.id == worker).values(beat=count, told=row["told"]))

    def beats(self) -> Mapping[str, tuple[int, Json]]:
        """Return each worker's last beat and what it told of itself."""
        with self._database.read() as connection:
            return {row.id: (row.beat, json.loads(row.told)) for row in connection.execute(select(workers))}

    def leave(self, worker: str) -> None:
        """Take a worker that ends in order off the list."""
        with self._database.write() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker))


def _free(dead: Sequence[str]) -> ColumnElement[bool]:
    # Asked of the table, not of who looked before: a worker that has just come lives.
    living = select(workers.c.id).where(workers.c.id.not_in(dead))
    return (run_queue.c.ended == "") & run_queue.c.worker.not_in(living)


def _taken(connection: Connection, worker: str, dead: Sequence[str], at_most: int | None) -> Claim | None:
    q = run_queue
    runs = (q.c.ended == "") & ~_free(dead)
    if at_most is not None and (connection.execute(select(func.count()).where(runs)).scalar() or 0) >= at_most:
        return None
    busy = select(q.c.model).where(runs, q.c.model != "")
    query = _claims().where(_free(dead), q.c.model.not_in(busy))
    # What a dead worker had begun goes before what only waits.
    found = connection.execute(query.order_by(case((q.c.worker == "", 1), else_=0), q.c.priority, q.c.seq).limit(1)).first()
    if found is None:
        return None
    before = _claim(found)
    claim = replace(before, token=secrets.token_hex(8), first=not before.token)
    connection.execute(update(q).where(q.c.run == claim.run).values(worker=worker, token=claim.token))
    return claim


def _claims() -> Select[str, str, str, str]:
    return select(run_queue.c.run, run_queue.c.model, run_queue.c.token, run_queue.c.given)


# Made once: an engine asks these at every look.
_HELD_BY = _claims().where(run_queue.c.worker == bindparam("of"), run_queue.c.ended == "").order_by(run_queue.c.seq)
_ENDED = select(run_queue.c.ended).where(run_queue.c.run == bindparam("of"))


def _claim(row: Row[str, str, str, str]) -> Claim:
    return Claim(run=row.run, model=row.model, token=row.token, given=json.loads(row.given))
