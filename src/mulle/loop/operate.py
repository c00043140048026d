"""What a person or the loop asks for: a run, a deployment, a promotion, a rollback, a pause. Each is a record with its cause."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import IMMEDIATE
from mulle.core.errors import Conflict, NotFound, Refused
from mulle.core.hashing import derived_id, new_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.deployment import PRODUCTION, STAGING, Deployment, challenger_of, champion_of, current
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import Run, RunEvent
from mulle.kernel.bundle import verify
from mulle.kernel.faults import point
from mulle.kernel.project import code_files, git_commit, release_of
from mulle.lifecycle.rollout.plan import Decision, canary_of, first_deployment, note, roll_back, start_release
from mulle.lifecycle.rollout.plan import promote as promote_challenger
from mulle.loop.parts import Parts
from mulle.loop.rollout.route import publish_routes
from mulle.loop.rollout.whole import check_return, check_whole
from mulle.loop.training.tracked import tell_aliases

__all__ = [
    "ONLY", "TAKES", "add_deployment", "add_deployments", "champion", "deploy", "enqueue", "pause", "pausing", "promote",
    "promote_staged", "record_run", "resume", "rollback", "snapshot_code", "start_run", "start_wanted", "version_of",
]  # fmt: skip

ONLY = "members"
"""A run's option that names the keys of a fleet's members that it trains; the shared model is left as it is."""

TAKES = "takes"
"""A run's option that names another run, ``of``, and the ``stages`` whose results it takes over from it."""


def start_run(
    parts: Parts,
    model: str,
    *,
    causes: Sequence[Cause],
    options: Json | None = None,
    cutoff: datetime | None = None,
) -> Run:
    """Record a new run and let it wait for a worker.

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
        release=release_of(parts.settings.project),
    )
    return record_run(parts, run)


def record_run(parts: Parts, run: Run, more: Callable[[], None] = lambda: None) -> Run:
    """Record a run and what else is known of it, then let it wait for a worker."""
    now = run.created_at
    parts.metadata.runs.add(run)
    parts.metadata.runs.add_events(
        RunEvent(id=derived_id(now, run.id, "state", "queued"), run=run.id, at=now, kind="state", name="queued")
    )
    more()
    enqueue(parts, run)
    return run


def enqueue(parts: Parts, run: Run) -> None:
    """Let a recorded run wait for a worker: what a person asked for before what an alarm did, before the rest."""
    first = run.causes[0].type if run.causes else ""
    priority = {"person": 1, "api": 1, "alert": 2}.get(first, 3)
    parts.metadata.queue.put(run.id, model=run.model, priority=priority, given=run.options.get(TAKES))


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


def deploy(parts: Parts, model: str, version: int, *, by: str, environment: str = PRODUCTION) -> Deployment:
    """Give a version all traffic at once, by hand.

    Raises
    ------
    NotFound
        When there is no such version.
    Refused
        When it is the champion already.
    BundleError
        When its files are not what was registered.
    """
    record = version_of(parts, model, version)
    last = _last(parts, model, environment)
    now = parts.clock.now()
    if champion_of(last) == version and last is not None and len(last.routes) == 1:
        where = "" if environment == PRODUCTION else f" of {environment}"
        raise Refused(f"{model}@{version} is the champion{where} already", next=f"see `mulle history {model}`", model=model)
    # No server would load it; who asks is told now, and not by what goes on answering.
    verify(Path(record.address), record.bundle)
    causes = (Cause(type="person", id=by, why=f"{by} asked for {model}@{version}"),)
    declared = parts.project.model(model)
    decision = Decision(by=by, causes=causes, now=now)
    made = first_deployment(declared, version, decision, before=last, environment=environment)
    return add_deployment(parts, made)


def promote(parts: Parts, model: str, *, by: str) -> Deployment:
    """End a running release by giving the challenger all traffic, by hand; or begin that of the version staging has.

    Raises
    ------
    Conflict
        When no release is under way, and staging has nothing that production has not.
    BundleError
        When the version's files are not what was registered.
    """
    last = _last(parts, model)
    now = parts.clock.now()
    if last is not None and (challenger := challenger_of(last)) is not None:
        check_whole(parts, model, challenger.version)
        rollout = parts.project.model(model).rollout
        what = "canary" if canary_of(last) else "shadow"
        causes = (Cause(type="person", id=by, why=f"{by} promoted the {what}"),)
        decision = Decision(by=by, causes=causes, now=now)
        return add_deployment(parts, promote_challenger(last, decision, watched=bool(rollout.watch)))
    return promote_staged(parts, model, by=by)


def promote_staged(parts: Parts, model: str, *, by: str) -> Deployment:
    """Begin in production, by the declared rollout, the release of the version that staging has.

    Raises
    ------
    Conflict
        When staging has none, or the champion of production itself.
    BundleError
        When the version's files are not what was registered.
    """
    last, staged = _last(parts, model), _last(parts, model, STAGING)
    version = champion_of(staged)
    if staged is None or version is None or version == champion_of(last):
        said = "has no canary to promote" if version is None else f"has no canary to promote, and @{version} of staging already"
        raise Conflict(f"{model} {said}", next=f"`mulle deploy {model}@VERSION` deploys at once", model=model)
    check_whole(parts, model, version)
    declared, now = parts.project.model(model), parts.clock.now()
    why = f"{by} promoted {model}@{version} from {STAGING}"
    causes = (Cause(type="person", id=by, why=why), Cause(type="deployment", id=staged.id, why=f"it was in {STAGING}"))
    # The person's word is what an approval waits for.
    rollout = replace(declared.rollout, approval=declared.rollout.approval and declared.rollout.mode != IMMEDIATE)
    decision = Decision(by=by, causes=causes, now=now)
    return add_deployment(parts, start_release(rollout, last, version, decision, model=declared))


def rollback(
    parts: Parts, model: str, *, by: str, to: int | None = None, why: str = "", environment: str = PRODUCTION
) -> Deployment:
    """Move the pointer back to the champion before this one (or to a named version).

    Raises
    ------
    Refused
        When there is nothing to go back to.
    NotFound
        When the model was never deployed.
    BundleError
        When the version's files are not what was registered; the next step names one whose files are.
    """
    history = parts.metadata.deployments.of(model, environment)
    if not history:
        raise _undeployed(parts, model)
    if to is not None:
        version_of(parts, model, to)
    now = parts.clock.now()
    causes = (Cause(type="person", id=by, why=why or f"{by} rolled back"),)
    made = roll_back(history, Decision(by=by, causes=causes, now=now), to=to)
    check_return(parts, history, made.to_version, now)
    return add_deployment(parts, made)


def pause(parts: Parts, model: str, *, by: str, why: str = "") -> Deployment:
    """Freeze a model's automation: the loop causes no run of it, and moves none of its pointers; of a fleet, its members' too.

    It serves and logs as before, and its windows are judged and alerts opened.

    Raises
    ------
    NotFound
        When the model was never deployed: its automation begins with that.
    Refused
        When it is paused already.
    """
    return _frozen(parts, model, True, by=by, why=why or f"{by} paused it")


def resume(parts: Parts, model: str, *, by: str, why: str = "") -> Deployment:
    """Let a paused model's automation go on; a canary's step begins anew.

    Raises
    ------
    NotFound
        When the model was never deployed.
    Refused
        When it is not paused.
    """
    return _frozen(parts, model, False, by=by, why=why or f"{by} resumed it")


def pausing(parts: Parts, model: str) -> Deployment | None:
    """Return the deployment record that paused a model, or its fleet; None where the loop may act."""
    for name in dict.fromkeys((model, fleet_of(model))):
        history = parts.metadata.deployments.of(name)
        if history and history[-1].paused:
            return next(d for d in reversed(history) if d.action == "pause")
    return None


def _frozen(parts: Parts, model: str, paused: bool, *, by: str, why: str) -> Deployment:
    last = _last(parts, model)
    if last is None:
        raise _undeployed(parts, model)
    if last.paused == paused:
        said = "paused already" if paused else "not paused"
        raise Refused(f"{model} is {said}", next=f"see `mulle history {model}`", model=model)
    causes = (Cause(type="person", id=by, why=why),)
    action = "pause" if paused else "resume"
    decision = Decision(by=by, causes=causes, now=parts.clock.now())
    return add_deployment(parts, note(last, action, decision, paused=paused))


def _last(parts: Parts, model: str, environment: str = PRODUCTION) -> Deployment | None:
    history = parts.metadata.deployments.of(model, environment)
    return history[-1] if history else None


def _undeployed(parts: Parts, model: str) -> NotFound:
    parts.project.model(model)  # of one that there is not, this says so
    return NotFound(f"{model} was never deployed", next=f"`mulle deploy {model}@VERSION`", model=model)


def add_deployment(parts: Parts, deployment: Deployment) -> Deployment:
    """Append a deployment, publish the routes and move MLflow's aliases: the one way a pointer moves."""
    add_deployments(parts, [deployment])
    return deployment


def add_deployments(parts: Parts, deployments: Sequence[Deployment]) -> None:
    """Append deployments of several models in one environment, then publish its routes once."""
    parts.metadata.deployments.add_many(deployments)
    point("during:deploy:recorded")
    environment = deployments[0].environment
    publish_routes(parts, deployments, environment=environment)
    point("during:deploy:routed")
    if environment != PRODUCTION:
        return
    for model in dict.fromkeys(deployment.model for deployment in deployments):
        if not key_of(model):  # members are not registered in MLflow one by one
            tell_aliases(parts, model)


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
