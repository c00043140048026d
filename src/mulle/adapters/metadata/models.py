"""Stage 5's records in the database: registered model versions, numbered here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, Select, func, select, update
from sqlalchemy.exc import IntegrityError

from mulle.adapters.metadata.database import Database, before, dump, load, microseconds
from mulle.adapters.metadata.tables import model_versions
from mulle.core.errors import Conflict, NotFound
from mulle.core.records.model import ModelVersion

__all__ = ["SqlModels"]

_ATTEMPTS = 20


class SqlModels:
    """Meets `mulle.core.ports.metadata.Models`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, version: ModelVersion) -> ModelVersion:
        """Add a version under the model's next number; see the port."""
        for _ in range(_ATTEMPTS):
            try:
                with self._database.write() as connection:
                    return _add(connection, version)
            except IntegrityError:
                # On PostgreSQL two transactions may read the same last number; the loser reads again.
                continue
        raise Conflict(f"no number for a version of '{version.model}' after {_ATTEMPTS} attempts", next="try again")

    def get(self, model: str, version: int) -> ModelVersion | None:
        """Return a version, or None."""
        return self._first(_rows().where(model_versions.c.model == model, model_versions.c.version == version))

    def of_run(self, run: str) -> ModelVersion | None:
        """Return the version that a run made, or None."""
        return self._first(_rows().where(model_versions.c.run == run))

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

    def list(self, model: str | None = None, limit: int = 100, after: str | None = None) -> Sequence[ModelVersion]:
        """List versions, newest first, of one model or all."""
        table = model_versions
        query = _rows().order_by(table.c.created_at.desc(), table.c.seq.desc()).limit(limit)
        query = query if model is None else query.where(table.c.model == model)
        with self._database.read() as connection:
            query = query if after is None else query.where(before(connection, table, after))
            rows = connection.execute(query).all()
        return [_read(record, tracking) for record, tracking in rows]

    def names(self) -> Sequence[str]:
        """List the models that have a version, sorted."""
        return self._database.names(model_versions.c.model)

    def _first(self, query: Select[str, str | None]) -> ModelVersion | None:
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else _read(row[0], row[1])


def _rows() -> Select[str, str | None]:
    return select(model_versions.c.record, model_versions.c.tracking)


def _read(record: str, tracking: str | None) -> ModelVersion:
    version = load(ModelVersion, record)
    return version if tracking is None else replace(version, tracking=json.loads(tracking))


def _add(connection: Connection, version: ModelVersion) -> ModelVersion:
    table = model_versions
    known = connection.execute(_rows().where((table.c.run == version.run) | (table.c.id == version.id))).first()
    if known is not None:
        return _read(known[0], known[1])
    last = connection.execute(select(func.max(table.c.version)).where(table.c.model == version.model)).scalar()
    numbered = replace(version, version=(last or 0) + 1)
    connection.execute(
        table.insert().values(
            id=numbered.id,
            model=numbered.model,
            version=numbered.version,
            run=numbered.run,
            created_at=microseconds(numbered.created_at),
            tracking=json.dumps(numbered.tracking) if numbered.tracking else None,
            record=dump(numbered),
        )
    )
    return numbered
