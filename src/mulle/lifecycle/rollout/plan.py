"""Stage 7: every move of a model's pointer, as a deployment record; the loop appends it and publishes the routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mulle.core.clock import rfc3339
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import BLUE_GREEN, CANARY, IMMEDIATE, Rollout
from mulle.core.errors import Refused, UsageError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.deployment import PRODUCTION, Deployment, Route, challenger_of, champion_of, current, former_of

__all__ = [
    "Decision",
    "canary_of",
    "champions_before",
    "first_deployment",
    "hold_back",
    "note",
    "promote",
    "roll_back",
    "settle",
    "start_release",
    "step_canary",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who moves a pointer, when and why.

    Attributes
    ----------
    by : str
        ``loop`` or a person's name.
    causes : sequence of Cause
    now : datetime
    effective_at : datetime, optional
        `now` by default; later on a replay clock, where a run takes time.
    evidence : dict
        What a verdict was found by.
    """

    by: str
    causes: Sequence[Cause]
    now: datetime
    effective_at: datetime | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def canary_of(deployment: Deployment | None) -> Route | None:
    """Return the canary's route in a deployment, or None."""
    routes = deployment.routes if deployment else ()
    return next((r for r in routes if r.mode == "canary"), None)


def first_deployment(
    model: Model,
    version: int,
    decision: Decision,
    *,
    before: Deployment | None = None,
    environment: str = PRODUCTION,
    watched: bool = False,
) -> Deployment:
    """Give a version all traffic at once: a model's first, an immediate rollout, or a person's `mulle deploy`.

    Parameters
    ----------
    model : Model
    version : int
    decision : Decision
    before : Deployment, optional
        The one in force, if there was one.
    environment : str
    watched : bool
        The champion before goes on scoring unseen, to be gone back to.
    """
    champion = champion_of(before)
    routes = _alone(version, champion if watched else None)
    paused = before is not None and before.paused
    return _move(model.name, "deploy", champion, version, routes, decision, environment=environment, paused=paused)


def start_release(
    rollout: Rollout,
    before: Deployment | None,
    version: int,
    decision: Decision,
    *,
    model: Model,
    environment: str = PRODUCTION,
) -> Deployment:
    """Begin the release of a version beside the champion, by the declared mode.

    Without a champion there is nothing to compare with, and with `immediate()` nothing to wait for: then the version is
    deployed at once. What waits for a person's approval before anything else scores unseen until then.

    Parameters
    ----------
    rollout : Rollout
    before : Deployment or None
        The one in force. A release that is under way is replaced by this one; the champion stays.
    version : int
    decision : Decision
    model : Model
    environment : str

    Raises
    ------
    Refused
        When the version is the champion already.
    """
    champion = champion_of(before)
    if champion == version:
        raise Refused(f"{model.name}@{version} is the champion already", next=f"see `mulle history {model.name}`")
    if before is None or champion is None or (rollout.mode == IMMEDIATE and not rollout.approval):
        watched = bool(rollout.watch)
        return first_deployment(model, version, decision, before=before, environment=environment, watched=watched)
    routes = _shared(champion, version, rollout.steps[0]) if rollout.mode == CANARY else _beside(champion, version)
    action = {CANARY: "canary", BLUE_GREEN: "blue_green", IMMEDIATE: "await"}.get(rollout.mode, "shadow")
    return _move(model.name, action, champion, version, routes, decision, environment=environment, paused=before.paused)


def step_canary(rollout: Rollout, before: Deployment, decision: Decision) -> Deployment:
    """Give the canary its next share; the last step is `promote`.

    Raises
    ------
    UsageError
        When no canary runs.
    """
    champion, canary = _pair(before)
    share = next((s for s in rollout.steps if s > canary.share), 1.0)
    if share >= 1.0:
        return promote(before, decision, watched=bool(rollout.watch))
    routes = _shared(champion, canary.version, share)
    return _after(before, "canary", champion, canary.version, routes, decision)


def promote(before: Deployment, decision: Decision, *, watched: bool = False) -> Deployment:
    """Make the challenger the champion; `watched` keeps the champion before scoring unseen, to be gone back to.

    Raises
    ------
    UsageError
        When no release is under way.
    """
    champion, canary = _pair(before)
    routes = _alone(canary.version, champion if watched else None)
    return _after(before, "promote", champion, canary.version, routes, decision)


def hold_back(before: Deployment, decision: Decision) -> Deployment:
    """End the release; the champion takes all traffic again.

    Raises
    ------
    UsageError
        When no release is under way.
    """
    champion, canary = _pair(before)
    return _after(before, "hold_back", champion, canary.version, _alone(champion), decision)


def settle(before: Deployment, decision: Decision) -> Deployment:
    """End the watch over a new champion: the former one is let go.

    Raises
    ------
    UsageError
        When none is watched.
    """
    champion = champion_of(before)
    if champion is None or former_of(before) is None:
        raise UsageError(f"{before.model}: no watch is on", next=f"see `mulle history {before.model}`")
    return _after(before, "settle", before.from_version, champion, _alone(champion), decision)


def note(before: Deployment, action: str, decision: Decision, *, paused: bool | None = None) -> Deployment:
    """Record what leaves the routes as they are: ``await``, ``hold``, ``refuse``, ``pause`` or ``resume``.

    Parameters
    ----------
    paused : bool, optional
        From now on; as before by default.
    """
    made = _after(before, action, before.from_version, before.to_version, before.routes, decision)
    return made if paused is None else replace(made, paused=paused)


def roll_back(deployments: Sequence[Deployment], decision: Decision, *, to: int | None = None) -> Deployment:
    """Move the pointer back; a running canary ends with it.

    Parameters
    ----------
    deployments : sequence of Deployment
        The model's, oldest first.
    decision : Decision
    to : int, optional
        A version that was champion before; by default the champion before the present one. What a rollback left is not
        gone back to: two rollbacks in a row go back two champions.

    Raises
    ------
    Refused
        When there is no such champion.
    """
    present = current(deployments, decision.now)
    champion = champion_of(present)
    if present is None or champion is None:
        raise Refused(
            "nothing is deployed, so there is nothing to roll back", next="deploy a version: `mulle deploy MODEL@VERSION`"
        )
    line = _line(deployments, decision.now)
    earlier = line[:-1] if to is None else [v for d in deployments if (v := champion_of(d)) is not None and v != champion]
    target = (earlier[-1] if earlier else None) if to is None else to
    if target is None or target not in earlier:
        was = f"version {to} was never champion before" if to is not None else f"version {champion} is the first champion"
        raise Refused(
            f"{present.model}: {was}, so there is nothing to go back to",
            next=f"see `mulle history {present.model}`, or deploy a version by name",
            model=present.model,
        )
    return _after(present, "rollback", champion, target, _alone(target), decision)


def champions_before(deployments: Sequence[Deployment], now: datetime) -> list[int]:
    """List the champions that led to the present one, newest first: what a rollback goes back to, and then the next.

    Parameters
    ----------
    deployments : sequence of Deployment
        The model's, oldest first.
    """
    return _line(deployments, now)[-2::-1]


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
    champion, canary = champion_of(deployment), challenger_of(deployment)
    if champion is None or canary is None:
        raise UsageError(
            f"{deployment.model}: no canary runs, nor a shadow", next=f"see `mulle history {deployment.model}`"
        )  # fmt: skip
    return champion, canary


def _alone(champion: int, former: int | None = None) -> tuple[Route, ...]:
    routes = (Route(version=champion, share=1.0, mode="champion"),)
    return routes if former is None else (*routes, Route(version=former, share=0.0, mode="shadow"))


def _beside(champion: int, version: int) -> tuple[Route, ...]:
    return (*_alone(champion), Route(version=version, share=0.0, mode="shadow"))


def _shared(champion: int, version: int, share: float) -> tuple[Route, ...]:
    return (
        Route(version=champion, share=1.0 - share, mode="champion"),
        Route(version=version, share=share, mode="canary"),
    )


def _after(
    before: Deployment, action: str, champion: int | None, version: int, routes: tuple[Route, ...], decision: Decision
) -> Deployment:
    return _move(
        before.model, action, champion, version, routes, decision, environment=before.environment, paused=before.paused
    )  # fmt: skip


def _move(
    model: str,
    action: str,
    champion: int | None,
    version: int,
    routes: tuple[Route, ...],
    decision: Decision,
    *,
    environment: str,
    paused: bool,
) -> Deployment:
    # A step that runs again derives the same id: same model, move, versions, shares and instant of effect.
    effective = decision.now if decision.effective_at is None else decision.effective_at
    parts = [f"{r.mode}:{r.version}:{r.share:.6f}" for r in routes]
    return Deployment(
        id=derived_id(
            effective, "deployment", model, environment, action, str(champion), str(version), rfc3339(effective), *parts
        ),
        created_at=decision.now,
        causes=tuple(decision.causes),
        model=model,
        environment=environment,
        action=action,
        effective_at=effective,
        by=decision.by,
        from_version=champion,
        to_version=version,
        routes=routes,
        evidence=dict(decision.evidence),
        paused=paused,
    )
