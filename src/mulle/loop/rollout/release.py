"""Begins the release of what a run made: through staging where that is declared, and not at all while the model is paused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import polars as pl

from mulle.core.declare.model import Model
from mulle.core.declare.rollout import IMMEDIATE, Rollout
from mulle.core.errors import NotFound
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.deployment import STAGING, Deployment, challenger_of, champion_of
from mulle.core.records.prediction import PREDICTIONS
from mulle.core.records.run import RunEvent
from mulle.lifecycle.rollout.plan import Decision, first_deployment, note, start_release
from mulle.lifecycle.rollout.probe import probe
from mulle.lifecycle.rollout.service import Service, fault_in, weigh_service
from mulle.loop.monitoring.seen import Happening, version_at
from mulle.loop.operate import add_deployment, pausing
from mulle.loop.parts import Parts

__all__ = ["begin_release", "judge_staging", "note_unreleased"]


def begin_release(
    parts: Parts, model: Model, version: int, *, rollout: Rollout, causes: Sequence[Cause], now: datetime
) -> Deployment | str:
    """Make the first deployment of a version that a run registered, or say why there is none.

    Parameters
    ----------
    causes : sequence of Cause
        The run first: a run that goes on gets the deployment that it made before.

    Returns
    -------
    Deployment or str
        It is still to be added.
    """
    deployments = parts.metadata.deployments
    history, staged = deployments.of(model.name), deployments.of(model.name, STAGING)
    for known in (*history, *staged):
        if any(cause.id == causes[0].id for cause in known.causes):
            return known
    if stopped := pausing(parts, model.name):
        why = "; ".join(cause.why for cause in stopped.causes)
        return f"{model.name} is paused by {stopped.by} ({why}): `mulle deploy {model.name}@{version}` releases it by hand"
    decision = Decision(by="loop", causes=causes, now=now)
    if rollout.staging:
        before = staged[-1] if staged else None
        return first_deployment(model, version, decision, before=before, environment=STAGING)
    before = history[-1] if history else None
    if rollout.approval and champion_of(before) is None:
        return f"it waits for approval: `mulle deploy {model.name}@{version}`"
    return start_release(rollout, before, version, decision, model=model)


def note_unreleased(parts: Parts, run: str, why: str) -> None:
    """Record with a run why the version that it registered was not released."""
    now = parts.clock.now()
    event = RunEvent(id=derived_id(now, run, "release"), run=run, at=now, kind="note", name="release", detail={"release": why})
    parts.metadata.runs.add_events(event)


def judge_staging(parts: Parts, model: Model, now: datetime, effective_at: datetime) -> list[Happening]:
    """Release in production what staging has, by the declared rollout, once it has passed there.

    It passes when it was in staging for `hold`, failed no more of the requests there than declared, opens as serving opens it,
    proves itself on its own sample and answers that. What does not is refused, and said so once.
    """
    rollout, staged = model.rollout, parts.metadata.deployments.of(model.name, STAGING)
    if not rollout.staging or not staged or now - staged[-1].effective_at < rollout.hold or pausing(parts, model.name):
        return []
    last, history = staged[-1], parts.metadata.deployments.of(model.name)
    before = history[-1] if history else None
    version = champion_of(last)
    done = any(cause.id == last.id for deployment in history for cause in deployment.causes)
    if version is None or done or last.action in ("await", "refuse") or version == champion_of(before) or challenger_of(before):
        return []
    registered = version_at(parts, model.name, version)
    found, service = probe(Path(registered.address), registered.bundle), _service(parts, model, last)
    evidence: Json = {STAGING: asdict(found) | {"service": service.evidence()}}
    name = f"{model.name}@{version}"
    if problem := found.problem or fault_in(rollout, service):
        why = f"{name} does not pass in {STAGING}: {problem}"
        return _noted(parts, last, "refuse", why, evidence, now)
    if rollout.approval and (before is None or rollout.mode == IMMEDIATE):
        why = f"{name} passed in {STAGING} and waits: `mulle promote {model.name}` releases it"
        return _noted(parts, last, "await", why, evidence, now)
    why = f"{name} passed in {STAGING}: its sample of {found.rows} rows answered"
    causes = (Cause(type="deployment", id=last.id, why=why), *last.causes)
    decision = Decision(by="loop", causes=causes, now=now, effective_at=effective_at, evidence=evidence)
    made = start_release(rollout, before, version, decision, model=model)
    add_deployment(parts, made)
    return [(made.action, model.name, why)]


def _service(parts: Parts, model: Model, staged: Deployment) -> Service:
    try:
        rows = parts.lake.scan(f"{PREDICTIONS}_{STAGING}")
    except NotFound:
        return Service()
    since = rows.filter(pl.col("model") == model.name, pl.col("created_at") >= staged.effective_at).collect()
    numeric = model.task == "regression"
    return weigh_service(model.rollout, since, judged=staged.to_version, other=0, leads=True, numeric=numeric)


def _noted(parts: Parts, last: Deployment, action: str, why: str, evidence: Json, now: datetime) -> list[Happening]:
    causes = (Cause(type="deployment", id=last.id, why=why),)
    add_deployment(parts, note(last, action, Decision(by="loop", causes=causes, now=now, evidence=evidence)))
    return [(action, last.model, why)]
