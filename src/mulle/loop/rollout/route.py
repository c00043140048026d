"""From deployments to the file that serving watches, and to MLflow's aliases: both are projections."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.errors import NotFound, Unavailable
from mulle.core.hashing import hash_json
from mulle.core.records.deployment import PRODUCTION, Deployment, Route, challenger_of, champion_of
from mulle.kernel.routes import LogRule, ModelRoutes, Routed, RoutedVersion, RoutesBook, RoutingTable, open_book, write_routes
from mulle.loop.parts import Parts

__all__ = ["ROUTES", "project_aliases", "publish_routes", "routes_path", "routes_written"]

ROUTES = "routes.json"
"""Name of the routing table in the home."""

Bundles = Mapping[tuple[str, int], tuple[str, str]]

_KEPT = 4  # deployments a model keeps in the table: requests in flight may still ask for an earlier one
_KEPT_OF_MEMBERS = 2  # there are many of them


def publish_routes(parts: Parts, added: Sequence[Deployment] | None = None, *, environment: str = PRODUCTION) -> int:
    """Derive the routing table of an environment from its deployments and write it atomically.

    Parameters
    ----------
    parts : Parts
    added : sequence of Deployment, optional
        What was just appended. Where the table that is there lacks nothing else, only these models' routes are made anew:
        a fleet's table is long.
    environment : str

    Returns
    -------
    int
        The generation: how many deployments there are, so that the same records give the same table.
    """
    path = routes_path(parts, environment)
    with _alone(path):
        generation = parts.metadata.deployments.count(environment)
        known = _known(path) if added is not None else None
        moved = None
        if known is not None and added is not None and generation in (known.generation, known.generation + len(added)):
            moved = sorted({deployment.model for deployment in added})
        table = _table(parts, generation, moved, environment)
        write_routes(path, table, before=None if moved is None else known)
    return generation


def _known(path: Path) -> RoutesBook | None:
    try:
        return open_book(path)
    except Unavailable:
        return None  # it is made from the records, all of it


def routes_path(parts: Parts, environment: str = PRODUCTION) -> Path:
    """Return where an environment's routing table lies."""
    return replace(parts.settings, environment=environment).serving / ROUTES


def routes_written(parts: Parts) -> int:
    """Return the generation of the routing table that was written last; 0 before the first."""
    return open_book(routes_path(parts)).generation


def project_aliases(parts: Parts, model: str) -> dict[str, str]:
    """Point MLflow's aliases where the deployments point; return what they should be.

    Returns
    -------
    dict
        ``champion`` and, while a release is under way, ``challenger``, to MLflow's version.
    """
    history: Sequence[Deployment] = parts.metadata.deployments.of(model)
    last = history[-1] if history else None
    wanted: dict[str, str | None] = {"champion": None, "challenger": None}
    champion = champion_of(last)
    beside = challenger_of(last)
    for alias, version in (("champion", champion), ("challenger", beside.version if beside else None)):
        record = parts.metadata.models.get(model, version) if version is not None else None
        wanted[alias] = record.tracking.get("version") if record else None
    tracking = parts.tracking()
    present = tracking.aliases(model)
    for alias, target in wanted.items():
        if present.get(alias) != target:
            tracking.alias(model, alias, target)
    return {alias: target for alias, target in wanted.items() if target is not None}


def _table(parts: Parts, generation: int, models: Sequence[str] | None, environment: str) -> RoutingTable:
    latest = _latest(parts, models, environment)
    asked = {(model, route.version): None for model, found in latest.items() for d in found for route in d.routes}
    bundles = parts.metadata.models.bundles(list(asked))
    return RoutingTable(
        generation=generation,
        models={
            model: ModelRoutes(
                deployments=tuple(_routed(bundles, d) for d in found), each=_each(parts, model), log=_log(parts, model)
            )
            for model, found in latest.items()
        },
    )


def _latest(parts: Parts, models: Sequence[str] | None, environment: str) -> dict[str, Sequence[Deployment]]:
    deployments = parts.metadata.deployments
    asked = None if models is None else [model for model in models if key_of(model)]
    members = deployments.latest(_KEPT_OF_MEMBERS, asked, environment)
    whole = deployments.names(environment) if models is None else [model for model in models if not key_of(model)]
    # Members are reached through their fleet, also where its shared model was never released.
    fleets = {fleet: () for fleet in (fleet_of(model) for model in members) if fleet in parts.project.models}
    return {**members, **fleets, **deployments.latest(_KEPT, list({**dict.fromkeys(whole), **fleets}), environment)}


def _each(parts: Parts, model: str) -> str | None:
    declared = parts.project.models.get(model)
    return None if declared is None or declared.each is None else declared.each.column


def _log(parts: Parts, model: str) -> LogRule:
    declared = parts.project.models.get(fleet_of(model))
    return LogRule() if declared is None else LogRule(sample=declared.log.sample, redact=declared.log.redact)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Who read the deployments first must not write last: serving would go back to a table that was superseded.
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _routed(bundles: Bundles, deployment: Deployment) -> Routed:
    # The salt is derived, not random: the same history sends the same rows to the canary.
    salt = hash_json([deployment.model, deployment.environment, deployment.to_version, deployment.from_version])[:12]
    return Routed(
        id=deployment.id,
        effective_at=deployment.effective_at,
        salt=salt,
        routes=tuple(_routed_version(bundles, deployment.model, route) for route in deployment.routes),
    )


def _routed_version(bundles: Bundles, model: str, route: Route) -> RoutedVersion:
    found = bundles.get((model, route.version))
    if found is None:
        raise NotFound(f"deployment of {model}@{route.version}: no such version", next="see `mulle models ls`", model=model)
    return RoutedVersion(version=route.version, share=route.share, mode=route.mode, bundle=found[0], address=found[1])
