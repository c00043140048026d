"""What a person or the loop asks for: start a run, deploy, promote, roll back. Each is a record with its cause."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.errors import Conflict, NotFound, Refused
from mulle.core.hashing import derived_id, new_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.deployment import Deployment, champion_of, current
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import Run, RunEvent
from mulle.kernel.faults import point
from mulle.kernel.project import code_files, git_commit
from mulle.lifecycle.rollout.plan import canary_of, first_deployment, roll_back
from mulle.lifecycle.rollout.plan import promote as promote_canary
from mulle.loop.parts import Parts
from mulle.loop.route import project_aliases, publish_routes

__all__ = [
    "ONLY", "add_deployment", "add_deployments", "champion", "deploy", "promote", "rollback", "snapshot_code", "start_run",
    "start_wanted", "version_of",
]  # fmt: skip

ONLY = "members"
"""A run's option that names the keys of a fleet's members that it trains; the shared model is left as it is."""


def start_run(
    parts: Parts,
    model: str,
    *,
    causes: Sequence[Cause],
    options: Json | None = None,
    cutoff: datetime | None = None,
) -> Run:
    """Record a new run; the engine is told separately.

    Parameters
    ----------
    model : str
        Declared in the project; a member of a fleet, ``FLEET/KEY``, is trained alone, in a run of its fleet.
    causes : sequence of Cause
        Why; never empty.
    options : dict, optional
        What deviates from the declaration.
    cutoff : datetime, optional
        Outcomes known later are not used; defaults to now.

    Returns
    -------
    Run

    Raises
    ------
    NotFound
        When the project declares no such model.
    """
    parts.project.model(model)
    fleet, key = fleet_of(model), key_of(model)
    told = {**(options or {}), **({ONLY: [key]} if key else {})}
    now = parts.clock.now()
    run = Run(
        id=new_id(now),
        created_at=now,
        causes=tuple(causes),
        model=fleet,
        cutoff=cutoff or now,
        code=snapshot_code(parts),
        git=git_commit(parts.settings.project),
        seed=parts.settings.seed,
        options=told,
    )
    parts.metadata.runs.add(run)
    parts.metadata.runs.add_event(
        RunEvent(id=derived_id(now, run.id, "state", "queued"), run=run.id, at=now, kind="state", name="queued")
    )
    return run


def snapshot_code(parts: Parts) -> str:
    """Copy the project's own source below the home, under its hash; runs and bundles use the copy.

    Returns
    -------
    str
        The hash.
    """
    code = parts.project.code
    target = parts.settings.home / "code" / code
    if not target.exists():
        temporary = target.with_name(f".{code}.{new_id(parts.clock.now())}")
        for path in code_files(parts.project.folder):
            copy = temporary / path.relative_to(parts.project.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        _move_once(temporary, target)
    return code


def version_of(parts: Parts, model: str, version: int) -> ModelVersion:
    """Return a registered version.

    Raises
    ------
    NotFound
        Naming the versions there are.
    """
    record = parts.metadata.models.get(model, version)
    if record is None:
        known = ", ".join(str(v.version) for v in parts.metadata.models.list(model, limit=10)) or "none"
        raise NotFound(f"no version {version} of {model}", next=f"registered: {known}", model=model)
    return record


def deploy(parts: Parts, model: str, version: int, *, by: str) -> Deployment:
    """Give a version all traffic at once, by hand.

    Raises
    ------
    NotFound
        When there is no such version.
    Refused
        When it is the champion already.
    """
    version_of(parts, model, version)
    history = parts.metadata.deployments.of(model)
    now = parts.clock.now()
    last = history[-1] if history else None
    if champion_of(last) == version and last is not None and len(last.routes) == 1:
        raise Refused(f"{model}@{version} is the champion already", next=f"see `mulle history {model}`", model=model)
    causes = (Cause(type="person", id=by, why=f"{by} asked for {model}@{version}"),)
    return add_deployment(
        parts,
        first_deployment(parts.project.model(model), version, now=now, by=by, causes=causes, champion=champion_of(last)),
    )


def promote(parts: Parts, model: str, *, by: str) -> Deployment:
    """End a running canary by giving the challenger all traffic, by hand.

    Raises
    ------
    Conflict
        When no canary runs.
    """
    history = parts.metadata.deployments.of(model)
    last = history[-1] if history else None
    if last is None or canary_of(last) is None:
        raise Conflict(f"{model} has no canary to promote", next=f"`mulle deploy {model}@VERSION` deploys at once", model=model)
    now = parts.clock.now()
    causes = (Cause(type="person", id=by, why=f"{by} promoted the canary"),)
    return add_deployment(parts, promote_canary(last, now=now, by=by, causes=causes))


def rollback(parts: Parts, model: str, *, by: str, to: int | None = None, why: str = "") -> Deployment:
    """Move the pointer back to the champion before this one (or to a named version).

    Raises
    ------
    Refused
        When there is nothing to go back to.
    NotFound
        When the model was never deployed.
    """
    history = parts.metadata.deployments.of(model)
    if not history:
        raise NotFound(f"{model} was never deployed", next=f"`mulle deploy {model}@VERSION`", model=model)
    if to is not None:
        version_of(parts, model, to)
    now = parts.clock.now()
    causes = (Cause(type="person", id=by, why=why or f"{by} rolled back"),)
    return add_deployment(parts, roll_back(history, now=now, by=by, causes=causes, to=to))


def add_deployment(parts: Parts, deployment: Deployment) -> Deployment:
    """Append a deployment, publish the routes and move MLflow's aliases: the one way a pointer moves."""
    add_deployments(parts, [deployment])
    return deployment


def add_deployments(parts: Parts, deployments: Sequence[Deployment]) -> None:
    """Append deployments of several models, then publish the routes once."""
    parts.metadata.deployments.add_many(deployments)
    point("during:deploy:recorded")
    publish_routes(parts, deployments)
    point("during:deploy:routed")
    for model in dict.fromkeys(deployment.model for deployment in deployments):
        if not key_of(model):  # members are not registered in MLflow one by one
            project_aliases(parts, model)


def start_wanted(parts: Parts, wanted: Sequence[tuple[str, Cause]]) -> list[Run]:
    """Record a run of each model that a tick wants; of a fleet's members one run of those in question."""
    fleets: dict[str, list[tuple[str, Cause]]] = {}
    for model, cause in wanted:
        fleets.setdefault(fleet_of(model), []).append((model, cause))
    started = []
    for fleet, found in fleets.items():
        keys = [key_of(model) for model, _ in found]
        options = {ONLY: keys} if all(keys) else {}
        started.append(start_run(parts, fleet, causes=[cause for _, cause in found], options=options))
    return started


def champion(parts: Parts, model: Model, at: datetime | None = None) -> ModelVersion | None:
    """Return the version that answers a model's traffic at an instant (default: by the last deployment), or None."""
    history = parts.metadata.deployments.of(model.name)
    deployment = (current(history, at) if at else history[-1]) if history else None
    version = champion_of(deployment)
    return None if version is None else parts.metadata.models.get(model.name, version)


def _move_once(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        # Somebody else made the same snapshot first; theirs has the same content.
        shutil.rmtree(temporary, ignore_errors=True)
