"""Judges releases that are under way, and new champions that are watched; moves pointers by the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import IMMEDIATE
from mulle.core.errors import BundleError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.bundle import Contract
from mulle.core.records.deployment import Deployment, challenger_of, champion_of, former_of
from mulle.core.records.window import Alert, AlertEvent
from mulle.lifecycle.monitoring.alerts import STUCK
from mulle.lifecycle.rollout.plan import Decision, hold_back, note, promote, roll_back, settle, step_canary
from mulle.lifecycle.rollout.service import weigh_service
from mulle.lifecycle.rollout.verdict import Verdict, canary_verdict, watch_verdict
from mulle.loop.monitoring.seen import Happening, bundle_of, contract_at, logged_between, version_at
from mulle.loop.operate import add_deployment, add_deployments
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import paired
from mulle.loop.rollout.whole import alert_stuck, check_whole, whole_before

__all__ = ["began", "close_stuck", "hold_from_now", "judge_member_releases", "judge_release", "noted"]

_MOVES = 20
"""Last moves of a member that are read: a release has fewer."""

_NOTES = ("await", "hold", "pause", "refuse")

_SKEW = timedelta(minutes=1)
"""So far may the clocks of two machines be apart without a word."""

_MICROSECOND = timedelta(microseconds=1)

_read_before: dict[str, tuple[tuple[int, tuple[str, ...]], dict[str, Sequence[Deployment]]]] = {}


def hold_from_now(parts: Parts, model: str, now: datetime) -> list[Happening]:
    """Let what a clock that was ahead deployed hold from now on: until its date what was before it would answer."""
    history = parts.metadata.deployments.of(model)
    if not history or history[-1].effective_at - now <= _SKEW:
        return []
    last = history[-1]
    why = f"the clock was ahead by {last.effective_at - now}: {model}@{last.to_version} holds from now on"
    causes = (Cause(type="deployment", id=last.id, why=why),)
    add_deployment(parts, note(last, "resume", Decision(by="loop", causes=causes, now=now)))
    return [("clock", model, why)]


def judge_release(parts: Parts, model: Model, now: datetime, effective_at: datetime) -> list[Happening]:
    """Judge a release that is under way, or a champion that is watched, and move the pointer by the verdict."""
    history = parts.metadata.deployments.of(model.name)
    last = history[-1]
    if not _due(model, last, now):
        return []
    scored, known = logged_between(parts, model, began(history), now + _MICROSECOND, now, refused=True)
    # What a fleet's members answered says nothing of its shared model.
    scored = scored.filter(pl.col("model") == model.name) if scored.width else scored
    contract, _ = bundle_of(version_at(parts, model.name, last.to_version).address)
    verdict = _judged(model, history, scored, known, contract, now)
    made, said = _moved(parts, model, history, verdict, now, effective_at)
    if made is not None:
        add_deployment(parts, made)
    return said


def judge_member_releases(
    parts: Parts, fleet: Model, beside: Sequence[str], now: datetime, effective_at: datetime
) -> list[Happening]:
    """Judge the releases of a fleet's members, of those that have one, by one reading of the log; move all in one write."""
    names = [name for name in beside if fleet_of(name) == fleet.name and key_of(name)]
    histories = _histories(parts, names) if names else {}
    asked = {name: history for name, history in histories.items() if _due(fleet, history[-1], now)}
    if not asked:
        return []
    started = {name: began(history) for name, history in asked.items()}
    scored, known = logged_between(parts, fleet, min(started.values()), now + _MICROSECOND, now, refused=True)
    by_member = {str(name): rows for (name,), rows in scored.partition_by("model", as_dict=True).items()} if scored.width else {}
    # Without an answer there is nothing to judge until its time is up.
    asked = {name: h for name, h in asked.items() if name in by_member or now - h[-1].effective_at >= _patience(fleet, h[-1])}
    versions = parts.metadata.models.bundles([(name, history[-1].to_version) for name, history in asked.items()])
    moves: list[Deployment] = []
    said: list[Happening] = []
    for name, history in asked.items():
        mine = by_member[name].filter(pl.col("time") >= started[name]) if name in by_member else scored.clear()
        contract = contract_at(versions[name, history[-1].to_version][1])
        member = fleet.member(key_of(name))
        verdict = _judged(member, history, mine, known, contract, now)
        made, told = _moved(parts, member, history, verdict, now, effective_at)
        moves += [] if made is None else [made]
        said += told
    if moves:
        add_deployments(parts, moves)
    return said


def _due(model: Model, last: Deployment, now: datetime) -> bool:
    # A version that is released at once by a person's word alone waits for that word.
    challenger, word = challenger_of(last), model.rollout.mode == IMMEDIATE and model.rollout.approval
    if last.paused or now < last.effective_at or (challenger is not None and word):
        return False
    return challenger is not None or former_of(last) is not None


def _patience(model: Model, last: Deployment) -> timedelta:
    return model.rollout.watch if challenger_of(last) is None else model.rollout.max_wait


def _histories(parts: Parts, names: Sequence[str]) -> dict[str, Sequence[Deployment]]:
    # Deployments are only ever appended: while there are as many, thousands of canaries need not be read anew each tick.
    home, state = str(parts.settings.home), (parts.metadata.deployments.count(), tuple(names))
    known = _read_before.get(home)
    if known is None or known[0] != state:
        known = _read_before[home] = (state, parts.metadata.deployments.latest(_MOVES, names))
    return known[1]


def _judged(
    model: Model, history: Sequence[Deployment], scored: pl.DataFrame, known: pl.DataFrame, contract: Contract, now: datetime
) -> Verdict:
    last, rollout, challenger = history[-1], model.rollout, challenger_of(history[-1])
    if not rollout.lacking:
        # A member may never get the requests that a verdict takes; nor its fleet's shared model, where members answer most.
        rollout = replace(rollout, lacking="promote" if key_of(model.name) or model.each else "stay")
    other, leads = (former_of(last), True) if challenger is None else (champion_of(last), False)
    assert other is not None
    losses = paired(scored, known, model, contract, champion=other, challenger=last.to_version, now=now)
    numeric = model.task == "regression"
    service = weigh_service(rollout, scored, judged=last.to_version, other=other, leads=leads, numeric=numeric)
    if challenger is None:
        return watch_verdict(rollout, last, started=began(history), losses=losses, service=service, now=now)
    return canary_verdict(rollout, last, step_started=_stepped(history), losses=losses, service=service, now=now)


def _moved(
    parts: Parts, model: Model, history: Sequence[Deployment], verdict: Verdict, now: datetime, effective_at: datetime
) -> tuple[Deployment | None, list[Happening]]:
    last, rollout = history[-1], model.rollout
    if verdict.action == "rollback":
        return _gone_back(parts, history, verdict, now, effective_at)
    causes = (Cause(type="deployment", id=last.id, why=verdict.reason),)
    decision = Decision(by="loop", causes=causes, now=now, effective_at=effective_at, evidence=verdict.evidence)
    action = "await" if verdict.action == "promote" and rollout.approval else verdict.action
    noted = {d.action for d in _release(history)}
    # Said once; and what waits for a person does not run out of time.
    impatient = "await" in noted and verdict.evidence["verdict"].startswith("not enough")
    if action == "wait" or impatient or (action in ("await", "hold") and action in noted):
        return None, []
    if action == "step":
        made = step_canary(rollout, last, decision)
    elif action == "promote":
        made = promote(last, decision, watched=bool(rollout.watch))
    elif action in ("await", "hold"):
        made = note(last, action, decision)
    else:
        made = (settle if action == "settle" else hold_back)(last, decision)
    asked = f"; `mulle promote {model.name}` releases it" if action == "await" else ""
    return made, [(made.action, model.name, f"{model.name}@{last.to_version}: {verdict.reason}{asked}")]


def _gone_back(
    parts: Parts, history: Sequence[Deployment], verdict: Verdict, now: datetime, effective_at: datetime
) -> tuple[Deployment | None, list[Happening]]:
    """Go back to the former champion; where its files are not what was registered to the newest before it, or stay and say so."""
    last, why, to = history[-1], verdict.reason, former_of(history[-1])
    assert to is not None
    try:
        check_whole(parts, last.model, to)
    except BundleError as error:
        to, why = whole_before(parts, history, now), f"{verdict.reason}; @{to} is not gone back to: {error.detail}"
    causes = (Cause(type="deployment", id=last.id, why=why),)
    decision = Decision(by="loop", causes=causes, now=now, effective_at=effective_at, evidence=verdict.evidence)
    if to is not None:
        made = roll_back(history, decision, to=to)
    elif "hold" in noted(history):
        return None, []  # said once
    else:
        made = note(last, "hold", decision)
        why += f"; no champion before it is whole: {alert_stuck(parts, last, why, now)}"
    return made, [(made.action, last.model, f"{last.model}@{last.to_version}: {why}")]


def close_stuck(parts: Parts, alerts: Sequence[Alert], now: datetime) -> list[Happening]:
    """Close the alerts on champions that could not be gone back from, where that is over: by the loop, or by a person."""
    said: list[Happening] = []
    for alert in alerts:
        if alert.signal == STUCK and "hold" not in noted(parts.metadata.deployments.of(alert.model)):
            id = derived_id(alert.created_at, "alert_event", alert.id, "close")
            parts.metadata.alerts.add_event(AlertEvent(id=id, alert=alert.id, at=now, kind="close"))
            said.append(("alert", alert.model, "an alert closed"))
    return said


def _release(history: Sequence[Deployment]) -> Sequence[Deployment]:
    # What belongs to the release, or to the watch, that the last deployment is in.
    last, begin = history[-1], len(history) - 1
    while begin > 0 and _beside(history[begin - 1]) == _beside(last):
        begin -= 1
    return history[begin:]


def noted(history: Sequence[Deployment]) -> dict[str, Deployment]:
    """Return what was noted in the release that a model's last deployment is in, by the note's word."""
    return {deployment.action: deployment for deployment in _release(history) if deployment.action in _NOTES}


def _beside(deployment: Deployment) -> tuple[int | None, int | None, int | None]:
    challenger = challenger_of(deployment)
    return champion_of(deployment), challenger.version if challenger else None, former_of(deployment)


def began(history: Sequence[Deployment]) -> datetime:
    """Return when the release or the watch began that a model's last deployment is in: its evidence counts from there."""
    # The least: the first may be dated by a clock that was ahead.
    return min(deployment.effective_at for deployment in _release(history))


def _stepped(history: Sequence[Deployment]) -> datetime:
    # Notes leave a step as it is; but the time that a person took away from it is given back.
    for deployment in reversed(_release(history)):
        if deployment.action == "resume" or deployment.action not in _NOTES:
            return deployment.effective_at
    return began(history)
