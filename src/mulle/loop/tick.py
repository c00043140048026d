"""One look at the world: drain the log, judge windows, open and close alerts, judge canaries, cause runs.

The live loop calls it every few seconds on the wall clock, a replay once per step on its own; both by the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.declare.operate import Canary
from mulle.core.records.base import Cause, Json
from mulle.core.records.bundle import Contract
from mulle.core.records.deployment import Deployment, champion_of
from mulle.core.records.model import ModelVersion
from mulle.core.records.window import Alert, Window
from mulle.kernel.bundle import read_contract
from mulle.lifecycle.monitoring.alerts import alert_changes
from mulle.lifecycle.monitoring.window import due_windows, judge_window, member_windows
from mulle.lifecycle.rollout.plan import canary_of, hold_back, promote, step_canary
from mulle.lifecycle.rollout.verdict import canary_verdict
from mulle.loop.evidence import labels_between, paired, paired_losses, predictions_between
from mulle.loop.operate import add_deployment, add_deployments
from mulle.loop.parts import Parts
from mulle.loop.triggers import due_cause, due_members

__all__ = ["Happening", "Tick", "judge_rollouts", "judge_windows", "tick"]

_MOST_ALERTS = 20_000
_CANARY_MOVES = 12
"""Last moves of a member that are read: a canary has fewer steps."""

_NO_PAIRS = pl.DataFrame(schema={"cluster": pl.String, "champion": pl.Float64, "challenger": pl.Float64})

_read_before: dict[str, tuple[tuple[int, tuple[str, ...]], dict[str, Sequence[Deployment]]]] = {}

Happening = tuple[str, str, str]
"""Kind, model, sentence: what a tick did, for people."""


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
    parts: Parts, *, drain: Callable[[], object], effective_at: datetime | None = None, busy: frozenset[str] = frozenset()
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

    Returns
    -------
    Tick
    """
    now = parts.clock.now()
    drain()
    happenings: list[Happening] = []
    wanted: list[tuple[str, Cause]] = []
    canaries = parts.metadata.deployments.canaries()
    for model in parts.project.models.values():
        if model.each is not None:
            happenings += judge_member_rollouts(parts, model, canaries, now, effective_at or now)
        if not parts.metadata.deployments.of(model.name):
            continue
        opened, said = judge_windows(parts, model, now)
        happenings += said
        if model.name in canaries:
            happenings += judge_rollouts(parts, model, now, effective_at or now)
        if model.name not in busy and not _canary_runs(parts, model.name):
            cause = due_cause(parts, model, opened, now)
            if cause is not None:
                wanted.append((model.name, cause))
            elif model.each is not None:
                wanted += due_members(parts, model, now)
    return Tick(tuple(happenings), tuple(wanted))


def judge_windows(parts: Parts, model: Model, now: datetime) -> tuple[tuple[Alert, ...], list[Happening]]:
    """Judge the windows that ended: first without waiting for labels, once more when mature.

    Returns
    -------
    tuple
        The alerts in force, and what happened.
    """
    said: list[Happening] = []
    for window, before in (*_ended(parts, model, now), *_matured(parts, model, now)):
        parts.metadata.windows.add(window)
        said += _told(parts, model, window, parts.metadata.alerts.list(model.name, state="open"), now, before)
        if model.each is not None and window.mature:
            said += _judge_members(parts, model, window, now)
    return tuple(parts.metadata.alerts.list(model.name, state="open")), said


def _told(
    parts: Parts, model: Model, window: Window, in_force: Sequence[Alert], now: datetime, before: Window | None
) -> list[Happening]:
    said: list[Happening] = []
    changes = alert_changes(model, window, in_force, now, before=before)
    for alert, event in changes.opened:
        parts.metadata.alerts.add(alert, event)
        said.append(("alert", model.name, f"{alert.signal} of {alert.feature or model.name}: {_evidence(alert.evidence)}"))
    for event in changes.events:
        parts.metadata.alerts.add_event(event)
        if event.kind == "close":
            said.append(("alert", model.name, "an alert closed"))
    return said


def _judge_members(parts: Parts, model: Model, window: Window, now: datetime) -> list[Happening]:
    """Say of each member with labels in a mature window how it answered, so that an alert names the one that decays."""
    predictions, labels = _logged(parts, model, window.start, window.end, now)
    found = member_windows(model, predictions, labels, window, now)
    parts.metadata.windows.add_many(found)
    in_force: dict[str, list[Alert]] = {}
    for alert in parts.metadata.alerts.list(state="open", limit=_MOST_ALERTS):
        in_force.setdefault(alert.model, []).append(alert)
    said: list[Happening] = []
    for one in found:
        said += _told(parts, model.member(key_of(one.model)), one, in_force.get(one.model, ()), now, None)
    return said


def judge_rollouts(parts: Parts, model: Model, now: datetime, effective_at: datetime) -> list[Happening]:
    """Judge a running canary by its paired losses and move the pointer by the verdict."""
    history = parts.metadata.deployments.of(model.name)
    last = history[-1]
    challenger = canary_of(last)
    champion = champion_of(last)
    if challenger is None or champion is None or not isinstance(model.rollout, Canary) or now < last.effective_at:
        return []
    contract, _ = _bundle(_version(parts, model.name, challenger.version).address)
    started = _canary_started(history)
    pairs = paired_losses(parts.lake, model, contract, champion=champion, challenger=challenger.version, start=started, now=now)
    made, said = _moved(model, last, pairs, now, effective_at)
    if made is not None:
        add_deployment(parts, made)
    return said


def judge_member_rollouts(
    parts: Parts, fleet: Model, canaries: Sequence[str], now: datetime, effective_at: datetime
) -> list[Happening]:
    """Judge the canaries of a fleet's members, of those that have one, by one reading of the log; move all in one write."""
    names = [name for name in canaries if fleet_of(name) == fleet.name and key_of(name)]
    if not names or not isinstance(fleet.rollout, Canary):
        return []
    histories = _histories(parts, names)
    started = {name: _canary_started(history) for name, history in histories.items() if now >= history[-1].effective_at}
    if not started:
        return []
    scored, known = _logged(parts, fleet, min(started.values()), now + timedelta(microseconds=1), now)
    by_member = {str(name): rows for (name,), rows in scored.partition_by("model", as_dict=True).items()} if scored.width else {}
    # Without an answer there is nothing to judge until its time is up.
    asked = [
        (name, route.version)
        for name in started
        if name in by_member or now - histories[name][-1].effective_at >= fleet.rollout.max_wait
        for route in histories[name][-1].routes
        if route.mode == "canary"
    ]
    versions = parts.metadata.models.bundles(asked)
    moves: list[Deployment] = []
    said: list[Happening] = []
    for name, challenger in asked:
        last, member, pairs = histories[name][-1], fleet.member(key_of(name)), _NO_PAIRS
        champion = champion_of(last)
        if champion is not None and name in by_member and known.height:
            mine, contract = by_member[name].filter(pl.col("time") >= started[name]), _contract(versions[name, challenger][1])
            pairs = paired(mine, known, member, contract, champion=champion, challenger=challenger, now=now)
        made, told = _moved(member, last, pairs, now, effective_at)
        moves += [] if made is None else [made]
        said += told
    if moves:
        add_deployments(parts, moves)
    return said


def _histories(parts: Parts, names: Sequence[str]) -> dict[str, Sequence[Deployment]]:
    # Deployments are only ever appended: while there are as many, thousands of canaries need not be read anew each tick.
    home, state = str(parts.settings.home), (parts.metadata.deployments.count(), tuple(names))
    known = _read_before.get(home)
    if known is None or known[0] != state:
        known = _read_before[home] = (state, parts.metadata.deployments.latest(_CANARY_MOVES, names))
    return known[1]


def _moved(
    model: Model, last: Deployment, pairs: pl.DataFrame, now: datetime, effective_at: datetime
) -> tuple[Deployment | None, list[Happening]]:
    challenger = canary_of(last)
    assert challenger is not None
    assert isinstance(model.rollout, Canary)
    verdict = canary_verdict(model.rollout, last, step_started=last.effective_at, losses=pairs, now=now)
    if verdict.action == "wait":
        return None, []
    causes = (Cause(type="deployment", id=last.id, why=verdict.reason),)
    if verdict.action == "step":
        made = step_canary(
            model.rollout, last, now=now, effective_at=effective_at, by="loop", causes=causes, evidence=verdict.evidence
        )
    else:
        move = promote if verdict.action == "promote" else hold_back
        made = move(last, now=now, effective_at=effective_at, by="loop", causes=causes, evidence=verdict.evidence)
    return made, [(made.action, model.name, f"{model.name}@{challenger.version}: {verdict.reason}")]


def _ended(parts: Parts, model: Model, now: datetime) -> list[tuple[Window, Window | None]]:
    last = parts.metadata.windows.last(model.name, mature=False)
    first = parts.metadata.deployments.of(model.name)[0].effective_at
    return [
        (_judge(parts, model, start, end, now), None)
        for start, end in due_windows(model, since=last.end if last else first, now=now)
    ]


def _matured(parts: Parts, model: Model, now: datetime) -> list[tuple[Window, Window | None]]:
    # Windows judged before their labels were in are judged once more when the declared delay has passed.
    horizon = now - 2 * model.monitor.delay - 2 * model.monitor.window
    waiting = [
        w for w in parts.metadata.windows.of(model.name, start=horizon) if not w.mature and w.end + model.monitor.delay <= now
    ]
    return [(_judge(parts, model, w.start, w.end, now), w) for w in waiting]


def _judge(parts: Parts, model: Model, start: datetime, end: datetime, now: datetime) -> Window:
    contract, reference = _bundle(_in_force(parts, model.name, end).address)
    predictions, labels = _logged(parts, model, start, end, now)
    return judge_window(
        model,
        predictions=predictions,
        labels=labels,
        reference=reference,
        specs=contract.features,
        start=start,
        end=end,
        now=now,
        classes=contract.classes,
    )


def _logged(parts: Parts, model: Model, start: datetime, end: datetime, now: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    members, until = model.each is not None, max(end, now) + timedelta(microseconds=1)
    return (
        predictions_between(parts.lake, model.name, start, end, members=members),
        labels_between(parts.lake, model.name, start, until, members=members),
    )


@lru_cache(maxsize=64)
def _bundle(address: str) -> tuple[Contract, Json]:
    # Bundles are content-addressed and never change, so reading one once is enough.
    import orjson

    return _contract(address), orjson.loads((Path(address) / "reference.json").read_bytes())


@lru_cache(maxsize=4_096)
def _contract(address: str) -> Contract:
    return read_contract(Path(address))


def _in_force(parts: Parts, model: str, at: datetime) -> ModelVersion:
    history = parts.metadata.deployments.of(model)
    effective = [d for d in history if d.effective_at < at] or list(history[:1])
    version = champion_of(effective[-1])
    return _version(parts, model, version if version is not None else effective[-1].to_version)


def _version(parts: Parts, model: str, version: int) -> ModelVersion:
    record = parts.metadata.models.get(model, version)
    if record is None:
        raise LookupError(f"{model}@{version} is deployed and not registered")
    return record


def _canary_runs(parts: Parts, model: str) -> bool:
    return canary_of(parts.metadata.deployments.of(model)[-1]) is not None


def _canary_started(history: Sequence[Deployment]) -> datetime:
    # Evidence counts from the first step: the champion's and the challenger's scores are paired since then.
    started = history[-1].effective_at
    for deployment in reversed(history):
        if canary_of(deployment) is None:
            break
        started = deployment.effective_at
    return started


def _evidence(evidence: Json) -> str:
    value, bound = evidence.get("value"), evidence.get("bound")
    start = evidence.get("start")
    when = f" in the window of {start if isinstance(start, str) else rfc3339(start)}" if start else ""
    return (
        f"{value:.3g} against {bound:.3g}{when}"
        if isinstance(value, float) and isinstance(bound, (int, float))
        else str(evidence)
    )
