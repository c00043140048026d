"""Stage 7's records in the database: the append-only table of deployments."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Select, delete, func, select

from mulle.adapters.metadata.database import Database, dump, insert_many, load, microseconds
from mulle.adapters.metadata.tables import canaries, deployments
from mulle.core.records.deployment import Deployment

__all__ = ["SqlDeployments"]

_CHUNK = 10_000
"""Names asked for at once: SQLite takes 32,766 parameters, PostgreSQL 65,535."""


class SqlDeployments:
    """Meets `mulle.core.ports.metadata.Deployments`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, deployment: Deployment) -> None:
        """Append a deployment."""
        self.add_many([deployment])

    def add_many(self, added: Sequence[Deployment]) -> None:
        """Append deployments in one transaction."""
        with self._database.write() as connection:
            for start in range(0, len(added), _CHUNK):
                _append(connection, added[start : start + _CHUNK])

    def of(self, model: str, environment: str = "production") -> Sequence[Deployment]:
        """List a model's deployments, oldest first; what shares an instant goes by order of writing."""
        return self._database.records(Deployment, _oldest_first(environment).where(deployments.c.model == model))

    def all(self, environment: str = "production") -> Sequence[Deployment]:
        """List every model's deployments, oldest first."""
        return self._database.records(Deployment, _oldest_first(environment))

    def latest(
        self, limit: int, models: Sequence[str] | None = None, environment: str = "production"
    ) -> dict[str, Sequence[Deployment]]:
        """Return each model's last deployments, at most `limit`, oldest first."""
        chunks = [None] if models is None else [models[i : i + _CHUNK] for i in range(0, len(models), _CHUNK)]
        found: dict[str, list[Deployment]] = {}
        with self._database.read() as connection:
            for chunk in chunks:
                for model, record in connection.execute(_latest(limit, chunk, environment)):
                    found.setdefault(model, []).append(load(Deployment, record))
        return dict(found)

    def count(self, environment: str = "production") -> int:
        """Count the deployments."""
        with self._database.read() as connection:
            query = select(func.count()).select_from(deployments).where(deployments.c.environment == environment)
            return int(connection.execute(query).scalar_one())

    def names(self, environment: str = "production") -> Sequence[str]:
        """List the models that were deployed, sorted; members of fleets are left out."""
        column = deployments.c.model
        with self._database.read() as connection:
            query = select(column).where(deployments.c.environment == environment, column.not_like("%/%")).distinct()
            return sorted(connection.execute(query).scalars())

    def canaries(self, environment: str = "production") -> Sequence[str]:
        """List the models, members among them, whose last deployment has more than a champion, sorted."""
        with self._database.read() as connection:
            return sorted(connection.execute(select(canaries.c.model).where(canaries.c.environment == environment)).scalars())


def _append(connection: Connection, added: Sequence[Deployment]) -> None:
    ids = select(deployments.c.id).where(deployments.c.id.in_([deployment.id for deployment in added]))
    known = set(connection.execute(ids).scalars())
    fresh = {deployment.id: deployment for deployment in added if deployment.id not in known}
    insert_many(connection, deployments, ["id"], _in_order(connection, list(fresh.values())))
    last = {(deployment.environment, deployment.model): deployment for deployment in fresh.values()}
    for environment in {environment for environment, _ in last}:
        models = [model for where, model in last if where == environment]
        connection.execute(delete(canaries).where(canaries.c.environment == environment, canaries.c.model.in_(models)))
    beside = [d for d in last.values() if any(r.mode != "champion" for r in d.routes)]
    begun = [{"environment": d.environment, "model": d.model} for d in beside]
    insert_many(connection, canaries, ["environment", "model"], begun)


def _in_order(connection: Connection, fresh: Sequence[Deployment]) -> list[dict[str, object]]:
    # What is appended comes last, also where the clock has gone back since the one before.
    table, rows = deployments, [_row(deployment) for deployment in fresh]
    newest: dict[tuple[object, object], int] = {}
    query = select(table.c.environment, table.c.model, func.max(table.c.created_at)).group_by(table.c.environment, table.c.model)
    for environment, model, at in connection.execute(query.where(table.c.model.in_({d.model for d in fresh}))):
        newest[environment, model] = at
    for row, deployment in zip(rows, fresh, strict=True):
        name = (deployment.environment, deployment.model)
        newest[name] = row["created_at"] = max(microseconds(deployment.created_at), newest.get(name, 0))
    return rows


def _row(deployment: Deployment) -> dict[str, object]:
    return {
        "id": deployment.id,
        "model": deployment.model,
        "environment": deployment.environment,
        "created_at": microseconds(deployment.created_at),
        "record": dump(deployment),
    }


def _latest(limit: int, models: Sequence[str] | None, environment: str) -> Select[str, str]:
    table = deployments
    newest = func.row_number().over(partition_by=table.c.model, order_by=(table.c.created_at.desc(), table.c.seq.desc()))
    query = select(table.c.seq, table.c.model, table.c.created_at, newest.label("rank")).where(table.c.environment == environment)
    query = query if models is None else query.where(table.c.model.in_(models))
    # Ranked by the index alone; only the rows that are wanted are read.
    ranked = query.subquery()
    wanted = select(table.c.model, table.c.record).join(ranked, ranked.c.seq == table.c.seq).where(ranked.c.rank <= limit)
    return wanted.order_by(table.c.model, table.c.created_at, table.c.seq)


def _oldest_first(environment: str) -> Select[str]:
    query = select(deployments.c.record).where(deployments.c.environment == environment)
    return query.order_by(deployments.c.created_at, deployments.c.seq)
