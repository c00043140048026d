"""Stage 7's record: deployments, an append-only table from which every route is derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Cause, Json

__all__ = ["PRODUCTION", "STAGING", "Deployment", "Route", "challenger_of", "champion_of", "current", "former_of"]

PRODUCTION, STAGING = "production", "staging"
"""The environments of a home, in the order in which a version is promoted: staging, then production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A version's part in answering: ``champion``, ``canary`` (with a share, 0 to 1) or ``shadow``."""

    version: int
    share: float
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One move of the pointer.

    Attributes
    ----------
    action : str
        ``deploy``, ``canary``, ``shadow``, ``blue_green`` (a release begins or takes a step), ``promote``, ``hold_back`` (the
        champion stays), ``rollback``, ``settle`` (a watch ended well); and what leaves the routes as they are: ``await`` (fit,
        waits for a person), ``hold`` (answers differ, proof is waited for), ``pause``, ``resume``, ``refuse`` (staging's check).
    effective_at : datetime
        From when the routes hold; on the wall clock this is `created_at`.
    by : str
        ``loop`` or a person's name.
    from_version, to_version : int or None
        The champion before, and the version this is about.
    routes : tuple of Route
        The whole route of the model from `effective_at` on; shares of champion and canary sum to 1.
    evidence : dict
        The figures that decided.
    paused : bool
        The model's automation is frozen from here on: the loop causes no run of it and moves none of its pointers.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    model: str
    environment: str = "production"
    action: str
    effective_at: datetime
    by: str
    from_version: int | None
    to_version: int
    routes: tuple[Route, ...]
    evidence: Json = field(default_factory=dict)
    paused: bool = False


def current(deployments: Sequence[Deployment], at: datetime) -> Deployment | None:
    """Return the deployment in force at an instant: the last one effective by then.

    Parameters
    ----------
    deployments : sequence of Deployment
        One model's, oldest first.
    at : datetime
        The instant asked about.

    Returns
    -------
    Deployment or None
    """
    chosen = None
    for deployment in deployments:
        if deployment.effective_at <= at:
            chosen = deployment
    return chosen


def champion_of(deployment: Deployment | None) -> int | None:
    """Return the champion's version in a deployment, or None."""
    routes = deployment.routes if deployment else ()
    return next((r.version for r in routes if r.mode == "champion"), None)


def challenger_of(deployment: Deployment | None) -> Route | None:
    """Return the route of the version that is being released beside the champion: a canary or a shadow; or None."""
    routes = deployment.routes if deployment else ()
    return next((r for r in routes if r.mode != "champion" and deployment and r.version == deployment.to_version), None)


def former_of(deployment: Deployment | None) -> int | None:
    """Return the former champion that still scores unseen while the present one is watched, or None."""
    if deployment is None or champion_of(deployment) != deployment.to_version:
        return None
    return next((r.version for r in deployment.routes if r.mode == "shadow"), None)
