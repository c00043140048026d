"""From deployments to the file that serving watches, and to MLflow's aliases: both are projections."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mulle.core.errors import NotFound
from mulle.core.hashing import hash_json
from mulle.core.records.deployment import Deployment, champion_of
from mulle.kernel.routes import ModelRoutes, Routed, RoutedVersion, RoutingTable, read_routes, write_routes
from mulle.loop.parts import Parts

__all__ = ["ROUTES", "project_aliases", "publish_routes", "routes_path", "routes_written"]

ROUTES = "routes.json"
"""Name of the routing table in the home."""

_KEPT = 4  # deployments a model keeps in the table: requests in flight may still ask for an earlier one


def publish_routes(parts: Parts) -> RoutingTable:
    """Derive the routing table from the deployments and write it atomically.

    Returns
    -------
    RoutingTable
        What was written; its generation counts deployments, so the same records give the same table.
    """
    path = routes_path(parts)
    with _alone(path):
        table = _table(parts)
        if not path.exists() or read_routes(path) != table:
            write_routes(path, table)
    return table


def routes_path(parts: Parts) -> Path:
    """Return where the routing table lies."""
    return parts.settings.home / ROUTES


def routes_written(parts: Parts) -> int:
    """Return the generation of the routing table that was written last; 0 before the first."""
    return read_routes(routes_path(parts)).generation


def project_aliases(parts: Parts, model: str) -> dict[str, str]:
    """Point MLflow's aliases where the deployments point; return what they should be.

    Returns
    -------
    dict
        ``champion`` and, while a canary runs, ``challenger``, to MLflow's version.
    """
    history: Sequence[Deployment] = parts.metadata.deployments.of(model)
    last = history[-1] if history else None
    wanted: dict[str, str | None] = {"champion": None, "challenger": None}
    champion = champion_of(last)
    canary = next((r.version for r in last.routes if r.mode == "canary"), None) if last else None
    for alias, version in (("champion", champion), ("challenger", canary)):
        record = parts.metadata.models.get(model, version) if version is not None else None
        wanted[alias] = record.tracking.get("version") if record else None
    tracking = parts.tracking()
    present = tracking.aliases(model)
    for alias, target in wanted.items():
        if present.get(alias) != target:
            tracking.alias(model, alias, target)
    return {alias: target for alias, target in wanted.items() if target is not None}


def _table(parts: Parts) -> RoutingTable:
    deployments = parts.metadata.deployments.all()
    by_model: dict[str, list[Deployment]] = {}
    for deployment in deployments:
        by_model.setdefault(deployment.model, []).append(deployment)
    return RoutingTable(
        generation=len(deployments),
        models={
            model: ModelRoutes(deployments=tuple(_routed(parts, d) for d in found[-_KEPT:])) for model, found in by_model.items()
        },
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Who read the deployments first must not write last: serving would go back to a table that was superseded.
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _routed(parts: Parts, deployment: Deployment) -> Routed:
    # The salt is derived, not random: the same history sends the same rows to the canary.
    salt = hash_json([deployment.model, deployment.environment, deployment.to_version, deployment.from_version])[:12]
    return Routed(
        id=deployment.id,
        effective_at=deployment.effective_at,
        salt=salt,
        routes=tuple(_routed_version(parts, deployment.model, r.version, r.share, r.mode) for r in deployment.routes),
    )


def _routed_version(parts: Parts, model: str, version: int, share: float, mode: str) -> RoutedVersion:
    record = parts.metadata.models.get(model, version)
    if record is None:
        raise NotFound(f"deployment of {model}@{version}: no such version", next="see `mulle models ls`", model=model)
    return RoutedVersion(version=version, share=share, mode=mode, bundle=record.bundle, address=record.address)
