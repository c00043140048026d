"""Stage 7: every move of a model's pointer, as a deployment record; the loop appends it and publishes the routes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mulle.core.clock import rfc3339
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import Canary, Rollout
from mulle.core.errors import Refused, UsageError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.deployment import Deployment, Route, champion_of, current

__all__ = [
    "PRODUCTION",
    "canary_of",
    "first_deployment",
    "hold_back",
    "promote",
    "roll_back",
    "start_canary",
    "step_canary",
]

PRODUCTION = "production"


def canary_of(deployment: Deployment | None) -> Route | None:
    """Return the canary's route in a deployment, or None."""
    routes = deployment.routes if deployment else ()
    return next((r for r in routes if r.mode == "canary"), None)


def first_deployment(
    model: Model,
    version: int,
    *,
    now: datetime,
    by: str,
    causes: Sequence[Cause],
    effective_at: datetime | None = None,
    champion: int | None = None,
) -> Deployment:
    """Give a version all traffic at once: a model's first, an immediate rollout, or a person's `mulle deploy`.

    Parameters
    ----------
    model : Model
    version : int
    now : datetime
    by : str
        ``loop`` or a person's name.
    causes : sequence of Cause
    effective_at : datetime, optional
        `now` by default; later on a replay clock, where a run takes time.
    champion : int, optional
        The champion before, if there was one.
    """
    routes = (Route(version=version, share=1.0, mode="champion"),)
    return _move(model.name, "deploy", champion, version, routes, now=now, effective_at=effective_at, by=by, causes=causes)


def start_canary(
    rollout: Rollout,
    before: Deployment | None,
    version: int,
    *,
    model: Model,
    now: datetime,
    effective_at: datetime,
    by: str,
    causes: Sequence[Cause],
) -> Deployment:
    """Begin the release of a version beside the champion, at the canary's first share.

    Without a champion there is nothing to compare with, and with `immediate()` nothing to wait for: then the version is
    deployed at once.

    Parameters
    ----------
    rollout : Rollout
    before : Deployment or None
        The one in force. A canary that still runs is replaced by this one; the champion stays.
    version : int
    model : Model
    now, effective_at : datetime
    by : str
    causes : sequence of Cause

    Raises
    ------
    Refused
        When the version is the champion already.
    """
    champion = champion_of(before)
    if champion == version:
        raise Refused(f"{model.name}@{version} is the champion already", next=f"see `mulle history {model.name}`")
    if champion is None or not isinstance(rollout, Canary):
        return first_deployment(
            model, version, now=now, by=by, causes=causes, effective_at=effective_at, champion=champion
        )  # fmt: skip
    routes = _shared(champion, version, rollout.steps[0])
    return _move(model.name, "canary", champion, version, routes, now=now, effective_at=effective_at, by=by, causes=causes)


def step_canary(
    rollout: Canary,
    before: Deployment,
    *,
    now: datetime,
    by: str,
    causes: Sequence[Cause],
    evidence: Json | None = None,
    effective_at: datetime | None = None,
) -> Deployment:
    """Give the canary its next share; the last step is `promote`.

    Raises
    ------
    UsageError
        When no canary runs.
    """
    champion, canary = _pair(before)
    share = next((s for s in rollout.steps if s > canary.share), 1.0)
    if share >= 1.0:
        return promote(before, now=now, by=by, causes=causes, evidence=evidence, effective_at=effective_at)
    routes = _shared(champion, canary.version, share)
    return _move(
        before.model, "canary", champion, canary.version, routes,
        now=now, effective_at=effective_at, by=by, causes=causes, evidence=evidence, environment=before.environment,
    )  # fmt: skip


def promote(
    before: Deployment,
    *,
    now: datetime,
    by: str,
    causes: Sequence[Cause],
    evidence: Json | None = None,
    effective_at: datetime | None = None,
) -> Deployment:
    """Make the canary the champion.

    Raises
    ------
    UsageError
        When no canary runs.
    """
    champion, canary = _pair(before)
    routes = (Route(version=canary.version, share=1.0, mode="champion"),)
    return _move(
        before.model, "promote", champion, canary.version, routes,
        now=now, effective_at=effective_at, by=by, causes=causes, evidence=evidence, environment=before.environment,
    )  # fmt: skip


def hold_back(
    before: Deployment,
    *,
    now: datetime,
    by: str,
    causes: Sequence[Cause],
    evidence: Json | None = None,
    effective_at: datetime | None = None,
) -> Deployment:
    """End the canary; the champion takes all traffic again.

    Raises
    ------
    UsageError
        When no canary runs.
    """
    champion, canary = _pair(before)
    routes = (Route(version=champion, share=1.0, mode="champion"),)
    return _move(
        before.model, "hold_back", champion, canary.version, routes,
        now=now, effective_at=effective_at, by=by, causes=causes, evidence=evidence, environment=before.environment,
    )  # fmt: skip


def roll_back(
    deployments: Sequence[Deployment], *, now: datetime, by: str, causes: Sequence[Cause], to: int | None = None
) -> Deployment:
    """Move the pointer back; a running canary ends with it.

    Parameters
    ----------
    deployments : sequence of Deployment
        The model's, oldest first.
    now : datetime
    by : str
    causes : sequence of Cause
    to : int, optional
        A version that was champion before; by default the champion before the present one. What a rollback left is not
        gone back to: two rollbacks in a row go back two champions.

    Raises
    ------
    Refused
        When there is no such champion.
    """
    present = current(deployments, now)
    champion = champion_of(present)
    if present is None or champion is None:
        raise Refused(
            "nothing is deployed, so there is nothing to roll back", next="deploy a version: `mulle deploy MODEL@VERSION`"
        )
    line = _line(deployments, now)
    earlier = line[:-1] if to is None else [v for d in deployments if (v := champion_of(d)) is not None and v != champion]
    target = (earlier[-1] if earlier else None) if to is None else to
    if target is None or target not in earlier:
        was = f"version {to} was never champion before" if to is not None else f"version {champion} is the first champion"
        raise Refused(
            f"{present.model}: {was}, so there is nothing to go back to",
            next=f"see `mulle history {present.model}`, or deploy a version by name",
            model=present.model,
        )
    routes = (Route(version=target, share=1.0, mode="champion"),)
    return _move(
        present.model, "rollback", champion, target, routes,
        now=now, effective_at=None, by=by, causes=causes, environment=present.environment,
    )  # fmt: skip


def _line(deployments: Sequence[Deployment], now: datetime) -> list[int]:
    # The champions that led here, as a stack: a move forward pushes, a rollback cuts down to the version it went to.
    line: list[int] = []
    for deployment in deployments:
        champion = champion_of(deployment)
        if champion is None or deployment.effective_at > now or (line and line[-1] == champion):
            continue
        if deployment.action == "rollback" and champion in line:
            while line[-1] != champion:
                line.pop()
        else:
            line.append(champion)
    return line


def _pair(deployment: Deployment) -> tuple[int, Route]:
    champion, canary = champion_of(deployment), canary_of(deployment)
    if champion is None or canary is None:
        raise UsageError(f"{deployment.model}: no canary runs", next=f"see `mulle history {deployment.model}`")
    return champion, canary


def _shared(champion: int, version: int, share: float) -> tuple[Route, ...]:
    return (
        Route(version=champion, share=1.0 - share, mode="champion"),
        Route(version=version, share=share, mode="canary"),
    )


def _move(
    model: str,
    action: str,
    champion: int | None,
    version: int,
    routes: tuple[Route, ...],
    *,
    now: datetime,
    effective_at: datetime | None,
    by: str,
    causes: Sequence[Cause],
    evidence: Json | None = None,
    environment: str = PRODUCTION,
) -> Deployment:
    # A step that runs again derives the same id: same model, move, versions, shares and instant of effect.
    effective = effective_at if effective_at is not None else now
    parts = [f"{r.mode}:{r.version}:{r.share:.6f}" for r in routes]
    return Deployment(
        id=derived_id(
            effective, "deployment", model, environment, action, str(champion), str(version), rfc3339(effective), *parts
        ),
        created_at=now,
        causes=tuple(causes),
        model=model,
        environment=environment,
        action=action,
        effective_at=effective,
        by=by,
        from_version=champion,
        to_version=version,
        routes=routes,
        evidence=dict(evidence or {}),
    )
