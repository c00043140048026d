"""Stage 7's records in the database: the append-only table of deployments."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, select

from mulle.adapters.metadata.database import Database, dump, microseconds
from mulle.adapters.metadata.tables import deployments
from mulle.core.records.deployment import Deployment

__all__ = ["SqlDeployments"]


class SqlDeployments:
    """Meets `mulle.core.ports.metadata.Deployments`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, deployment: Deployment) -> None:
        """Append a deployment."""
        row = {
            "id": deployment.id,
            "model": deployment.model,
            "environment": deployment.environment,
            "created_at": microseconds(deployment.created_at),
            "record": dump(deployment),
        }
        self._database.add(deployments, "id", row)

    def of(self, model: str, environment: str = "production") -> Sequence[Deployment]:
        """List a model's deployments, oldest first; what shares an instant goes by order of writing."""
        return self._database.records(Deployment, _oldest_first(environment).where(deployments.c.model == model))

    def all(self, environment: str = "production") -> Sequence[Deployment]:
        """List every model's deployments, oldest first."""
        return self._database.records(Deployment, _oldest_first(environment))


def _oldest_first(environment: str) -> Select[str]:
    query = select(deployments.c.record).where(deployments.c.environment == environment)
    return query.order_by(deployments.c.created_at, deployments.c.seq)
