"""Stages 3 to 5's records in the database: runs, what happened in them, their trials and gates."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Select, bindparam, func, insert, select, update

from mulle.adapters.metadata.database import Database, before, dump, insert_many, insert_once, microseconds, newest_first
from mulle.adapters.metadata.tables import gate_results, member_results, run_events, run_queue, run_states, runs, trials
from mulle.core.declare.fleet import fleet_of
from mulle.core.records.run import FINAL, GateResult, Member, Run, RunEvent, Trial, run_state

__all__ = ["SqlRuns"]

_QUEUED = run_state(())
_CHUNK = 10_000
"""Ids asked for at once: SQLite takes 32,766 parameters, PostgreSQL 65,535. Who asks for more is given all states."""


# Made once: every run tells of its states.
_PAST = (run_states.c.run == bindparam("of")) & (run_states.c.at <= bindparam("now"))
_STATE = select(run_states.c.state).where(_PAST).with_for_update()
_MOVED = update(run_states).where(_PAST).values(state=bindparam("state"), at=bindparam("at"))


class SqlRuns:
    """Meets `mulle.core.ports.metadata.Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, run: Run) -> None:
        """Add a run."""
        at = microseconds(run.created_at)
        with self._database.write() as connection:
            if not insert_once(connection, runs, "id", {"id": run.id, "model": run.model, "created_at": at, "record": dump(run)}):
                return
            seq = connection.execute(select(runs.c.seq).where(runs.c.id == run.id)).scalar_one()
            row = {"run": run.id, "run_seq": seq, "model": run.model, "created_at": at, "state": _QUEUED, "at": -(2**62)}
            connection.execute(insert(run_states).values(**row))

    def get(self, run: str) -> Run | None:
        """Return a run, or None."""
        return next(iter(self._database.records(Run, select(runs.c.record).where(runs.c.id == run))), None)

    def list(
        self, model: str | None = None, limit: int = 100, after: str | None = None, state: str | None = None
    ) -> Sequence[Run]:
        """List runs, newest first; see the port."""
        query = newest_first(runs, limit) if state is None else _in_state(state, model, limit)
        if model is not None and state is None:
            query = query.where(runs.c.model == model)
        if after is not None:
            with self._database.read() as connection:
                order = None if state is None else (run_states.c.created_at, run_states.c.run_seq)
                query = query.where(before(connection, runs, after, order))
        return self._database.records(Run, query)

    def add_events(self, *events: RunEvent) -> None:
        """Append events; a state event moves the run's present state in the same transaction. After its end none is kept."""
        with self._database.write() as connection:
            for event in events:
                _add_event(connection, event)

    def events(self, run: str) -> Sequence[RunEvent]:
        """List a run's events, oldest first."""
        query = select(run_events.c.record).where(run_events.c.run == run)
        return self._database.records(RunEvent, query.order_by(run_events.c.at, run_events.c.seq))

    def states(self, runs: Sequence[str]) -> dict[str, str]:
        """Return the present state of each of the runs; one without events is queued."""
        found = dict.fromkeys(runs, _QUEUED)
        query = select(run_states.c.run, run_states.c.state)
        if len(found) <= _CHUNK:
            query = query.where(run_states.c.run.in_(found))
        with self._database.read() as connection:
            found |= {run: state for run, state in connection.execute(query) if run in found}
        return found

    def add_trials(self, trials: Sequence[Trial]) -> None:
        """Add trials; idempotent by run and number."""
        with self._database.write() as connection:
            for trial in trials:
                _add_trial(connection, trial)

    def trials(self, run: str) -> Sequence[Trial]:
        """List a run's trials by number."""
        return self._database.records(Trial, select(trials.c.record).where(trials.c.run == run).order_by(trials.c.number))

    def add_gates(self, run: str, gates: Sequence[GateResult]) -> None:
        """Add gate results; idempotent by run, model and gate."""
        rows = [{"run": run, "model": gate.model, "gate": gate.gate, "record": dump(gate)} for gate in gates]
        with self._database.write() as connection:
            insert_many(connection, gate_results, ("run", "model", "gate"), rows)

    def gates(self, run: str, model: str = "") -> Sequence[GateResult]:
        """List a run's gate results in the order they were judged: those of its own model, or of one member."""
        query = select(gate_results.c.record).where(gate_results.c.run == run, gate_results.c.model == model)
        return self._database.records(GateResult, query.order_by(gate_results.c.seq))

    def add_members(self, members: Sequence[Member]) -> None:
        """Add what runs did with members; idempotent by run and model."""
        rows = [{"run": m.run, "fleet": fleet_of(m.model), "model": m.model, "record": dump(m)} for m in members]
        with self._database.write() as connection:
            insert_many(connection, member_results, ("run", "model"), rows)

    def members(self, run: str) -> Sequence[Member]:
        """List what a run did with each member, in the order of writing."""
        table = member_results
        return self._database.records(Member, select(table.c.record).where(table.c.run == run).order_by(table.c.seq))

    def last_members(self, fleet: str) -> Sequence[Member]:
        """List what was last done with each member of a fleet, sorted by name."""
        table = member_results
        last = select(func.max(table.c.seq)).where(table.c.fleet == fleet).group_by(table.c.model)
        return self._database.records(Member, select(table.c.record).where(table.c.seq.in_(last)).order_by(table.c.model))


def _in_state(state: str, model: str | None, limit: int) -> Select[str]:
    # Ordered by the projection's own columns, so that its index gives the first page without a sort.
    table = run_states
    query = select(runs.c.record).join(table, table.c.run == runs.c.id).where(table.c.state == state)
    query = query if model is None else query.where(table.c.model == model)
    return query.order_by(table.c.created_at.desc(), table.c.run_seq.desc()).limit(limit)


def _add_event(connection: Connection, event: RunEvent) -> None:
    at = microseconds(event.at)
    if event.kind == "state" and _has_ended(connection, event.run, at):
        return
    row = {"id": event.id, "run": event.run, "at": at, "record": dump(event)}
    if insert_once(connection, run_events, "id", row) and event.kind == "state":
        connection.execute(_MOVED, {"of": event.run, "now": at, "state": event.name, "at": at})
        if event.name == "cancelled":
            # With it, so that who still works for the run has lost its fence at once. Other ends are the worker's own,
            # which notes them when its journal has them.
            ended = update(run_queue).where(run_queue.c.run == event.run, run_queue.c.ended == "")
            connection.execute(ended.values(ended=event.name))


def _has_ended(connection: Connection, run: str, at: int) -> bool:
    # Locked, so that of a run's end and its being cancelled only one is told.
    return connection.execute(_STATE, {"of": run, "now": at}).scalar() in FINAL


def _add_trial(connection: Connection, trial: Trial) -> None:
    row = {"run": trial.run, "number": trial.number, "record": dump(trial)}
    insert_once(connection, trials, ("run", "number"), row)
