"""Judges releases that are under way, and new champions that are watched; moves pointers by the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import IMMEDIATE
from mulle.core.records.base import Cause
from mulle.core.records.bundle import Contract
from mulle.core.records.deployment import Deployment, challenger_of, champion_of, former_of
from mulle.lifecycle.rollout.plan import hold_back, note, promote, roll_back, settle, step_canary
from mulle.lifecycle.rollout.service import weigh_service
from mulle.lifecycle.rollout.verdict import Verdict, canary_verdict, watch_verdict
from mulle.loop.monitoring.seen import Happening, bundle_of, contract_at, logged_between, version_at
from mulle.loop.operate import add_deployment, add_deployments
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import paired

__all__ = ["began", "hold_from_now", "judge_member_releases", "judge_release", "noted"]

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
    add_deployment(parts, note(last, "resume", now=now, by="loop", causes=causes))
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
    made, said = _moved(model, history, verdict, now, effective_at)
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
        made, told = _moved(member, history, verdict, now, effective_at)
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
    model: Model, history: Sequence[Deployment], verdict: Verdict, now: datetime, effective_at: datetime
) -> tuple[Deployment | None, list[Happening]]:
    last, rollout = history[-1], model.rollout
    told = (Cause(type="deployment", id=last.id, why=verdict.reason),)
    action = "await" if verdict.action == "promote" and rollout.approval else verdict.action
    noted = {d.action for d in _release(history)}
    # Said once; and what waits for a person does not run out of time.
    impatient = "await" in noted and verdict.evidence["verdict"].startswith("not enough")
    if action == "wait" or impatient or (action in ("await", "hold") and action in noted):
        return None, []
    if action == "rollback":
        made = roll_back(
            history, now=now, by="loop", causes=told, to=former_of(last), evidence=verdict.evidence, effective_at=effective_at
        )  # fmt: skip
    elif action == "step":
        made = step_canary(
            rollout, last, now=now, by="loop", causes=told, evidence=verdict.evidence, effective_at=effective_at
        )  # fmt: skip
    elif action == "promote":
        made = promote(
            last, now=now, by="loop", causes=told, evidence=verdict.evidence, effective_at=effective_at,
            watched=bool(rollout.watch),
        )  # fmt: skip
    elif action in ("await", "hold"):
        made = note(last, action, now=now, by="loop", causes=told, evidence=verdict.evidence, effective_at=effective_at)
    else:
        end = settle if action == "settle" else hold_back
        made = end(last, now=now, by="loop", causes=told, evidence=verdict.evidence, effective_at=effective_at)
    asked = f"; `mulle promote {model.name}` releases it" if action == "await" else ""
    return made, [(made.action, model.name, f"{model.name}@{last.to_version}: {verdict.reason}{asked}")]


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
