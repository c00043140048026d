"""Stage 7, the judge: what the log and late labels say of a release so far, and of a new champion that is watched."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mulle.core.clock import rfc3339
from mulle.core.declare.rollout import BLUE_GREEN, Rollout
from mulle.core.errors import UsageError
from mulle.core.records.base import Json
from mulle.core.records.deployment import Deployment, challenger_of, champion_of, former_of
from mulle.kernel.sequential import best_rho, cluster_means, confidence_sequence, spans
from mulle.lifecycle.rollout.service import Service, fault_in

__all__ = ["FEWEST_CLUSTERS", "FEWEST_SPANS", "Verdict", "canary_verdict", "watch_verdict"]

FEWEST_CLUSTERS = 30
"""Independent observations below which the (asymptotic) confidence sequence is not looked at."""

FEWEST_SPANS = 10
"""Spans of a declared `cluster` below which it is not."""

_TIGHT = 10
"""The interval is tightest at so many times the least rows: most verdicts fall between some hundred and some thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with a release.

    Attributes
    ----------
    action : str
        ``wait``, ``hold`` (answers differ: it goes on when it is shown to be better), ``step`` (a larger share), ``promote`` or
        ``hold_back``; of a watch ``wait``, ``settle`` or ``rollback``.
    reason : str
        One sentence with the figures.
    evidence : dict
        ``rows``, ``clusters``, ``left_out``, mean losses, the difference with its interval, the bound, ``service``, times.
    """

    action: str
    reason: str
    evidence: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Evidence:
    rows: int
    left_out: int
    clusters: int
    spans: int | None
    champion: float
    challenger: float
    low: float
    difference: float
    high: float
    excess: float
    bound: float


def canary_verdict(
    rollout: Rollout,
    deployment: Deployment,
    *,
    step_started: datetime,
    losses: pl.DataFrame,
    now: datetime,
    service: Service | None = None,
) -> Verdict:
    """Judge a release that is under way; it may be asked after every label.

    The difference challenger - champion, averaged within clusters first, gets a confidence sequence whose ends each err with
    `alpha` at all looks together. No worse: the difference to ``1 + margin`` times the champion's loss has its upper end at
    0 or below. Worse: the difference itself has its lower end above 0. Where the answers differ more than declared, no worse
    is not enough and the difference itself must end at 0 or below. Errors and latency hold back at once. The hold is a least
    time for going forward only. At `max_wait` without evidence the champion stays. ``blue_green`` waits for no label.

    Parameters
    ----------
    rollout : Rollout
    deployment : Deployment
        The one in force; it has a challenger.
    step_started : datetime
        When the present share began.
    losses : polars.DataFrame
        One row per labelled pair of this release, all its steps: ``cluster`` (String), ``champion`` and ``challenger``
        (Float64, lower is better), in the order of their rows; ``time`` too where a `cluster` is declared. Pairs that are
        not finite are left out and counted.
    now : datetime
    service : Service, optional
        What the log says of errors, latency and answers since the release began.

    Returns
    -------
    Verdict

    Raises
    ------
    UsageError
        When the deployment has no challenger.
    """
    route, champion = challenger_of(deployment), champion_of(deployment)
    if route is None or champion is None:
        raise UsageError(f"{deployment.model}: no canary runs", next=f"see `mulle history {deployment.model}`")
    service = service or Service()
    found = _weigh(rollout, losses)
    evidence = {**_as_json(found, step_started, now), "share": route.share, "service": service.evidence()}
    names = f"{deployment.model}@{route.version} against @{champion}"
    waited = (now - step_started).total_seconds()
    decide = _decide_by_service if rollout.mode == BLUE_GREEN else _decide
    action, reason = decide(rollout, found, service, route.share, waited)
    return Verdict(action=action, reason=f"{names}: {reason}", evidence={**evidence, "verdict": reason.split(":")[0]})


def watch_verdict(
    rollout: Rollout, deployment: Deployment, *, started: datetime, losses: pl.DataFrame, service: Service, now: datetime
) -> Verdict:
    """Judge a new champion by the former one, which still scores its rows unseen.

    Parameters
    ----------
    rollout : Rollout
    deployment : Deployment
        The one in force; it has a former champion.
    started : datetime
        When the watch began.
    losses : polars.DataFrame
        As for `canary_verdict`, of the rows since then; ``challenger`` is the new champion.
    service : Service
        Of the new champion.
    now : datetime

    Returns
    -------
    Verdict
        ``rollback`` with its cause, ``settle`` when the time is up, or ``wait``.

    Raises
    ------
    UsageError
        When the deployment watches nothing.
    """
    former = former_of(deployment)
    if former is None:
        raise UsageError(f"{deployment.model}: no watch is on", next=f"see `mulle history {deployment.model}`")
    found = _weigh(rollout, losses)
    evidence = {**_as_json(found, started, now), "service": service.evidence()}
    names = f"{deployment.model}@{deployment.to_version} after @{former}"
    action, reason = "wait", "nothing is found against it so far"
    if fault := fault_in(rollout, service):
        action, reason = "rollback", fault
    elif _enough(rollout, found) and found.low > 0:
        action, reason = "rollback", f"worse: {_span(found)} over {found.rows} rows"
    elif now - started >= rollout.watch:
        action, reason = "settle", f"settled: {rollout.watch} have passed and nothing was found against it"
    return Verdict(action=action, reason=f"{names}: {reason}", evidence={**evidence, "verdict": reason.split(":")[0]})


def _weigh(rollout: Rollout, losses: pl.DataFrame) -> _Evidence:
    finite = losses.filter(pl.col("champion").is_finite() & pl.col("challenger").is_finite())
    means = {side: cluster_means(finite[side], finite["cluster"]) for side in ("champion", "challenger")}
    clusters, groups, count = len(means["champion"]), *_groups(rollout, finite, len(means["champion"]))
    rho = best_rho(_TIGHT * max(rollout.min_rows, FEWEST_CLUSTERS), rollout.alpha)
    low, difference, high = confidence_sequence(means["challenger"] - means["champion"], rollout.alpha, rho, groups=groups)
    beyond = means["challenger"] - (1 + rollout.margin) * means["champion"]
    _, _, excess = confidence_sequence(beyond, rollout.alpha, rho, groups=groups)
    champion, challenger = (float(m.mean()) if clusters else math.nan for m in means.values())
    return _Evidence(
        rows=finite.height,
        left_out=losses.height - finite.height,
        clusters=clusters,
        spans=count,
        champion=champion,
        challenger=challenger,
        low=low,
        difference=difference,
        high=high,
        excess=excess,
        bound=rollout.margin * champion,
    )


def _groups(rollout: Rollout, losses: pl.DataFrame, clusters: int) -> tuple[NDArray[np.int64], int | None]:
    if rollout.cluster is None or not clusters:
        return spans(clusters, min(FEWEST_CLUSTERS, clusters)), None
    # A key that comes again belongs to the span of its middle.
    times = cluster_means(losses["time"].dt.epoch("us"), losses["cluster"])
    groups = (times // (rollout.cluster.total_seconds() * 1e6)).astype(np.int64)
    return groups, len(np.unique(groups))


def _enough(rollout: Rollout, found: _Evidence) -> bool:
    apart = found.spans is None or found.spans >= FEWEST_SPANS
    return found.rows >= rollout.min_rows and found.clusters >= FEWEST_CLUSTERS and apart


def _decide(rollout: Rollout, found: _Evidence, service: Service, share: float, waited: float) -> tuple[str, str]:
    if fault := fault_in(rollout, service):
        return "hold_back", fault
    enough, span = _enough(rollout, found), _span(found)
    good, better = enough and found.excess <= 0, enough and found.high <= 0
    differs = service.answers is not None and service.rows >= rollout.min_rows and service.answers > rollout.answers
    fit = better or (good and not differs)
    if enough and not fit and found.low > 0:
        return "hold_back", f"worse: {span} over {found.rows} rows"
    if fit:
        if waited >= rollout.hold.total_seconds():
            return _forward(rollout, share), f"no worse: {span} within {found.bound:.4g}, over {found.rows} rows"
        return "wait", f"no worse so far: {waited:.0f} s of the hold of {rollout.hold.total_seconds():.0f} s have passed"
    if waited >= rollout.max_wait.total_seconds():
        action, said = _lacking(rollout, against=differs or found.low > 0)
        return action, f"not enough evidence after {waited:.0f} s ({_missing(rollout, found, span)}): {said}"
    if differs:
        said = f"answers differ: the index is {service.answers:.3g} over {service.rows} rows, more than {rollout.answers:g}"
        return "hold", f"{said}; it goes on when it is shown to be better ({_missing(rollout, found, span)})"
    return "wait", f"undecided: {_missing(rollout, found, span)}"


def _decide_by_service(rollout: Rollout, found: _Evidence, service: Service, share: float, waited: float) -> tuple[str, str]:
    del found
    if fault := fault_in(rollout, service):
        return "hold_back", fault
    if service.rows >= rollout.min_rows and waited >= rollout.hold.total_seconds():
        return _forward(rollout, share), f"sound: {service.errors} of {service.batches} batches failed, over {service.rows} rows"
    if waited >= rollout.max_wait.total_seconds():
        said = f"{service.rows} of {rollout.min_rows} rows were scored by it"
        action, end = _lacking(rollout, against=False)
        return action, f"not enough evidence after {waited:.0f} s ({said}): {end}"
    return "wait", f"undecided: {service.rows} of {rollout.min_rows} rows"


def _lacking(rollout: Rollout, *, against: bool) -> tuple[str, str]:
    if rollout.lacking == "promote" and not against:
        return "promote", "it is released all the same, for its gates held and nothing speaks against it"
    return "hold_back", "the champion stays"


def _forward(rollout: Rollout, share: float) -> str:
    return "promote" if next((s for s in rollout.steps if s > share), 1.0) >= 1.0 else "step"


def _span(found: _Evidence) -> str:
    return f"loss {found.challenger:.4g} against {found.champion:.4g}, difference in [{found.low:.4g}, {found.high:.4g}]"


def _missing(rollout: Rollout, found: _Evidence, span: str) -> str:
    if found.rows < rollout.min_rows:
        return f"{found.rows} of {rollout.min_rows} labelled rows"
    if found.clusters < FEWEST_CLUSTERS:
        return f"{found.clusters} of {FEWEST_CLUSTERS} independent keys"
    if found.spans is not None and found.spans < FEWEST_SPANS:
        return f"{found.spans} of {FEWEST_SPANS} spans of {rollout.cluster}"
    return f"{span} allows both better and worse than {found.bound:.4g}"


def _as_json(found: _Evidence, step_started: datetime, now: datetime) -> Json:
    def figure(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "rows": found.rows,
        "left_out": found.left_out,
        "clusters": found.clusters,
        "spans": found.spans,
        "champion_loss": figure(found.champion),
        "challenger_loss": figure(found.challenger),
        "difference": figure(found.difference),
        "low": figure(found.low),
        "high": figure(found.high),
        "bound": figure(found.bound),
        "step_started": rfc3339(step_started),
        "judged_at": rfc3339(now),
    }
