"""Stage 5's records in the database: registered model versions, numbered here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import Connection, Select, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from mulle.adapters.metadata.database import Database, before, dump, load, microseconds
from mulle.adapters.metadata.tables import model_versions
from mulle.core.errors import Conflict, NotFound
from mulle.core.records.model import ModelVersion

__all__ = ["SqlModels"]

_ATTEMPTS = 20
_CHUNK = 10_000
"""Versions asked for at once: SQLite takes 32,766 parameters, PostgreSQL 65,535."""


_NO_MEMBER = model_versions.c.model.not_like("%/%")


class SqlModels:
    """Meets `mulle.core.ports.metadata.Models`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, version: ModelVersion) -> ModelVersion:
        """Add a version under the model's next number; see the port."""
        return self.add_many([version])[0]

    def add_many(self, versions: Sequence[ModelVersion]) -> Sequence[ModelVersion]:
        """Add versions under their models' next numbers, in one transaction."""
        for _ in range(_ATTEMPTS):
            try:
                with self._database.write() as connection:
                    return _add_all(connection, versions)
            except IntegrityError:
                # On PostgreSQL two transactions may read the same last number; the loser reads again.
                continue
        raise Conflict(f"no number for a version of '{versions[0].model}' after {_ATTEMPTS} attempts", next="try again")

    def get(self, model: str, version: int) -> ModelVersion | None:
        """Return a version, or None."""
        return self._first(_rows().where(model_versions.c.model == model, model_versions.c.version == version))

    def of_run(self, run: str) -> ModelVersion | None:
        """Return the version that a run made of its own model (not of a member), or None."""
        return self._first(_rows().where(model_versions.c.run == run, _NO_MEMBER))

    def bundles(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[str, str]]:
        """Return the bundle's hash and address of each of the versions that there are."""
        found = {}
        for model, version, text, _ in self._asked(versions):
            record = json.loads(text)
            found[model, version] = (record["bundle"], record["address"])
        return found

    def many(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], ModelVersion]:
        """Return those of the versions that there are."""
        return {(model, version): _read(text, tracking) for model, version, text, tracking in self._asked(versions)}

    def set_tracking(self, id: str, tracking: dict[str, str]) -> None:
        """Fill in MLflow's ids of a version; once set they stay.

        Raises
        ------
        NotFound
            When there is no such version.
        """
        table = model_versions
        with self._database.write() as connection:
            if connection.execute(select(table.c.seq).where(table.c.id == id)).scalar() is None:
                raise NotFound(f"no model version with id '{id}'", next="register the version first")
            late = update(table).where(table.c.id == id, table.c.tracking.is_(None))
            connection.execute(late.values(tracking=json.dumps(tracking)))

    def list(
        self, model: str | None = None, limit: int = 100, after: str | None = None, *, members: bool = False
    ) -> Sequence[ModelVersion]:
        """List versions, newest first, of one model or of all; those of members only with `members`."""
        table = model_versions
        query = _rows().order_by(table.c.created_at.desc(), table.c.seq.desc()).limit(limit)
        if model is not None:
            query = query.where(table.c.model == model)
        elif not members:
            query = query.where(_NO_MEMBER)
        with self._database.read() as connection:
            query = query if after is None else query.where(before(connection, table, after))
            rows = connection.execute(query).all()
        return [_read(record, tracking) for record, tracking in rows]

    def names(self) -> Sequence[str]:
        """List the models that have a version, sorted; members of fleets are left out."""
        with self._database.read() as connection:
            return sorted(connection.execute(select(model_versions.c.model).where(_NO_MEMBER).distinct()).scalars())

    def _asked(self, versions: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, str, str | None]]:
        table = model_versions
        query = select(table.c.model, table.c.version, table.c.record, table.c.tracking)
        with self._database.read() as connection:
            for start in range(0, len(versions), _CHUNK):
                asked = tuple_(table.c.model, table.c.version).in_(versions[start : start + _CHUNK])
                for row in connection.execute(query.where(asked)):
                    yield row[0], row[1], row[2], row[3]

    def _first(self, query: Select[str, str | None]) -> ModelVersion | None:
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else _read(row[0], row[1])


def _rows() -> Select[str, str | None]:
    return select(model_versions.c.record, model_versions.c.tracking)


def _read(record: str, tracking: str | None) -> ModelVersion:
    version = load(ModelVersion, record)
    return version if tracking is None else replace(version, tracking=json.loads(tracking))


def _add_all(connection: Connection, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    # A few queries for all of them: a fleet registers hundreds at once, while other writers wait.
    table, models = model_versions, list({version.model for version in versions})
    same_run = table.c.run.in_({version.run for version in versions}) & table.c.model.in_(models)
    known: dict[object, ModelVersion] = {}
    for record, tracking in connection.execute(_rows().where(same_run | table.c.id.in_([v.id for v in versions]))):
        there = _read(record, tracking)
        known |= {there.id: there, (there.run, there.model): there}
    newest = select(table.c.model, func.max(table.c.version)).where(table.c.model.in_(models)).group_by(table.c.model)
    last: dict[str, int] = {row[0]: row[1] for row in connection.execute(newest)}
    fresh, found = [], []
    for version in versions:
        there_already = known.get((version.run, version.model)) or known.get(version.id)
        if there_already is None:
            last[version.model] = last.get(version.model, 0) + 1
            there_already = replace(version, version=last[version.model])
            known |= {version.id: there_already, (version.run, version.model): there_already}
            fresh.append(_row(there_already))
        found.append(there_already)
    if fresh:
        connection.execute(table.insert(), fresh)
    return found


def _row(version: ModelVersion) -> dict[str, object]:
    return {
        "id": version.id,
        "model": version.model,
        "version": version.version,
        "run": version.run,
        "created_at": microseconds(version.created_at),
        "tracking": json.dumps(version.tracking) if version.tracking else None,
        "record": dump(version),
    }
