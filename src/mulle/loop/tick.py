"""One look at the world: drain the log, judge windows, open and close alerts, judge releases, cause runs.

The live loop calls it every few seconds on the wall clock, a replay once per step on its own; both by the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mulle.core.declare.fleet import fleet_of
from mulle.core.declare.model import Model
from mulle.core.records.base import Cause
from mulle.core.records.deployment import challenger_of
from mulle.loop.monitoring.failing import watch_runs
from mulle.loop.monitoring.seen import Happening
from mulle.loop.monitoring.triggers import due_cause, due_members
from mulle.loop.monitoring.watch import judge_windows
from mulle.loop.operate import pausing
from mulle.loop.parts import Parts
from mulle.loop.rollout.canaries import close_stuck, hold_from_now, judge_member_releases, judge_release
from mulle.loop.rollout.release import judge_staging

__all__ = ["Tick", "tick"]

_MOST_ALERTS = 20_000


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick did.

    Attributes
    ----------
    happenings : tuple
        In order.
    wanted : tuple
        Models that should run now, with the cause; members of a fleet, where only they should.
    """

    happenings: tuple[Happening, ...]
    wanted: tuple[tuple[str, Cause], ...]


def tick(
    parts: Parts,
    *,
    drain: Callable[[], object],
    effective_at: datetime | None = None,
    busy: frozenset[str] = frozenset(),
    failed: Callable[[str, Exception], None] | None = None,
) -> Tick:
    """Look once.

    Parameters
    ----------
    drain : callable
        Moves the log into the lake.
    effective_at : datetime, optional
        From when a deployment made here holds; defaults to now.
    busy : frozenset of str
        Models that have an unfinished run: they cause no other.
    failed : callable, optional
        Told of a model that cannot be looked at, and why; the others still are. Without it the look ends there.

    Returns
    -------
    Tick
    """
    now = parts.clock.now()
    drain()
    happenings: list[Happening] = []
    wanted: list[tuple[str, Cause]] = []
    beside = parts.metadata.deployments.canaries()
    for model in parts.project.models.values():
        try:
            if effective_at is None:
                happenings += hold_from_now(parts, model.name, now)
            seen = _look(parts, model, now, effective_at or now, beside, busy)
        except Exception as error:
            if failed is None:
                raise
            failed(model.name, error)
            continue
        happenings += seen.happenings
        wanted += seen.wanted
    return Tick(tuple(happenings), tuple(wanted))


def _look(parts: Parts, model: Model, now: datetime, effective_at: datetime, beside: Sequence[str], busy: frozenset[str]) -> Tick:
    happenings: list[Happening] = [*watch_runs(parts, model, now), *judge_staging(parts, model, now, effective_at)]
    frozen = pausing(parts, model.name) is not None
    if model.each is not None and not frozen:
        happenings += judge_member_releases(parts, model, beside, now, effective_at)
    if not parts.metadata.deployments.of(model.name):
        return Tick(tuple(happenings), ())
    opened, said = judge_windows(parts, model, now)
    happenings += said
    # Alerts of members have names of their own.
    every = opened if model.each is None else parts.metadata.alerts.list(state="open", limit=_MOST_ALERTS)
    happenings += close_stuck(parts, [alert for alert in every if fleet_of(alert.model) == model.name], now)
    if frozen:
        return Tick(tuple(happenings), ())
    if model.name in beside:
        happenings += judge_release(parts, model, now, effective_at)
    wanted: list[tuple[str, Cause]] = []
    if model.name not in busy and not _release_runs(parts, model.name):
        cause = due_cause(parts, model, opened, now)
        if cause is not None:
            wanted.append((model.name, cause))
        elif model.each is not None:
            wanted += [(name, why) for name, why in due_members(parts, model, now) if not pausing(parts, name)]
    return Tick(tuple(happenings), tuple(wanted))


def _release_runs(parts: Parts, model: str) -> bool:
    return challenger_of(parts.metadata.deployments.of(model)[-1]) is not None
