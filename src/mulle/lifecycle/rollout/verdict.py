"""Stage 7, the judge: what the paired losses of champion and challenger say of a canary so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.rollout import Canary
from mulle.core.errors import UsageError
from mulle.core.records.base import Json
from mulle.core.records.deployment import Deployment, champion_of
from mulle.kernel.sequential import best_rho, cluster_means, confidence_sequence
from mulle.lifecycle.rollout.plan import canary_of

__all__ = ["FEWEST_CLUSTERS", "Verdict", "canary_verdict"]

FEWEST_CLUSTERS = 30
"""Independent observations below which the (asymptotic) confidence sequence is not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with a canary.

    Attributes
    ----------
    action : str
        ``wait``, ``step`` (a larger share), ``promote`` or ``hold_back``.
    reason : str
        One sentence with the figures.
    evidence : dict
        ``rows``, ``clusters``, ``left_out``, mean losses, the difference with its interval, the bound, times.
    """

    action: str
    reason: str
    evidence: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Evidence:
    rows: int
    left_out: int
    clusters: int
    champion: float
    challenger: float
    low: float
    difference: float
    high: float
    bound: float


def canary_verdict(
    rollout: Canary, deployment: Deployment, *, step_started: datetime, losses: pl.DataFrame, now: datetime
) -> Verdict:
    """Judge a running canary; it may be asked after every label.

    The difference challenger - champion, averaged within clusters first, gets a confidence sequence at level `alpha`,
    which holds at all looks together. No worse: its upper end is at most `margin` times the champion's mean loss. Worse:
    its lower end is above 0. The hold is a least time for going forward only: a challenger that is shown to be worse
    is held back at once. At `max_wait` without evidence the champion stays.

    Parameters
    ----------
    rollout : Canary
    deployment : Deployment
        The one in force; it has a canary.
    step_started : datetime
        When the present share began.
    losses : polars.DataFrame
        One row per labelled pair of this canary, all its steps: ``cluster`` (String), ``champion`` and ``challenger``
        (Float64, lower is better), in the order the labels came. Pairs that are not finite are left out and counted.
    now : datetime

    Returns
    -------
    Verdict

    Raises
    ------
    UsageError
        When the deployment has no canary.
    """
    route, champion = canary_of(deployment), champion_of(deployment)
    if route is None or champion is None:
        raise UsageError(f"{deployment.model}: no canary runs", next=f"see `mulle history {deployment.model}`")
    found = _weigh(rollout, losses)
    evidence = _as_json(found, route.share, step_started, now)
    names = f"{deployment.model}@{route.version} against @{champion}"
    action, reason = _decide(rollout, found, route.share, waited=(now - step_started).total_seconds())
    return Verdict(action=action, reason=f"{names}: {reason}", evidence=evidence)


def _weigh(rollout: Canary, losses: pl.DataFrame) -> _Evidence:
    finite = losses.filter(pl.col("champion").is_finite() & pl.col("challenger").is_finite())
    means = {side: cluster_means(finite[side], finite["cluster"]) for side in ("champion", "challenger")}
    rho = best_rho(max(rollout.min_rows, FEWEST_CLUSTERS), rollout.alpha)
    low, difference, high = confidence_sequence(means["challenger"] - means["champion"], rollout.alpha, rho)
    clusters = len(means["champion"])
    champion, challenger = (float(m.mean()) if clusters else math.nan for m in means.values())
    return _Evidence(
        rows=finite.height,
        left_out=losses.height - finite.height,
        clusters=clusters,
        champion=champion,
        challenger=challenger,
        low=low,
        difference=difference,
        high=high,
        bound=rollout.margin * champion,
    )


def _decide(rollout: Canary, found: _Evidence, share: float, waited: float) -> tuple[str, str]:
    enough = found.rows >= rollout.min_rows and found.clusters >= FEWEST_CLUSTERS
    span = f"loss {found.challenger:.4g} against {found.champion:.4g}, difference in [{found.low:.4g}, {found.high:.4g}]"
    good = enough and found.high <= found.bound
    if enough and not good and found.low > 0:
        return "hold_back", f"worse: {span} over {found.rows} rows"
    if good and waited >= rollout.hold.total_seconds():
        following = next((s for s in rollout.steps if s > share), 1.0)
        forward = "promote" if following >= 1.0 else "step"
        return forward, f"no worse: {span} within {found.bound:.4g}, over {found.rows} rows"
    if waited >= rollout.max_wait.total_seconds():
        return "hold_back", f"not enough evidence after {waited:.0f} s ({_missing(rollout, found, span)}): the champion stays"
    if good:
        return "wait", f"no worse so far; {waited:.0f} s of the hold of {rollout.hold.total_seconds():.0f} s have passed"
    return "wait", f"undecided: {_missing(rollout, found, span)}"


def _missing(rollout: Canary, found: _Evidence, span: str) -> str:
    if found.rows < rollout.min_rows:
        return f"{found.rows} of {rollout.min_rows} labelled rows"
    if found.clusters < FEWEST_CLUSTERS:
        return f"{found.clusters} of {FEWEST_CLUSTERS} independent keys"
    return f"{span} allows both better and worse than {found.bound:.4g}"


def _as_json(found: _Evidence, share: float, step_started: datetime, now: datetime) -> Json:
    def figure(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "rows": found.rows,
        "left_out": found.left_out,
        "clusters": found.clusters,
        "champion_loss": figure(found.champion),
        "challenger_loss": figure(found.challenger),
        "difference": figure(found.difference),
        "low": figure(found.low),
        "high": figure(found.high),
        "bound": figure(found.bound),
        "share": share,
        "step_started": rfc3339(step_started),
        "judged_at": rfc3339(now),
    }
