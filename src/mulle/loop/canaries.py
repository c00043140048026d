"""Judges running canaries by their paired losses, and moves pointers by the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import Canary
from mulle.core.records.base import Cause
from mulle.core.records.deployment import Deployment, champion_of
from mulle.lifecycle.rollout.plan import canary_of, hold_back, promote, step_canary
from mulle.lifecycle.rollout.verdict import canary_verdict
from mulle.loop.evidence import paired, paired_losses
from mulle.loop.operate import add_deployment, add_deployments
from mulle.loop.parts import Parts
from mulle.loop.seen import Happening, bundle_of, contract_at, logged_between, version_at

__all__ = ["judge_member_rollouts", "judge_rollouts"]

_CANARY_MOVES = 12

"""Last moves of a member that are read: a canary has fewer steps."""

_NO_PAIRS = pl.DataFrame(schema={"cluster": pl.String, "champion": pl.Float64, "challenger": pl.Float64})


_read_before: dict[str, tuple[tuple[int, tuple[str, ...]], dict[str, Sequence[Deployment]]]] = {}


def judge_rollouts(parts: Parts, model: Model, now: datetime, effective_at: datetime) -> list[Happening]:
    """Judge a running canary by its paired losses and move the pointer by the verdict."""
    history = parts.metadata.deployments.of(model.name)
    last = history[-1]
    challenger = canary_of(last)
    champion = champion_of(last)
    if challenger is None or champion is None or not isinstance(model.rollout, Canary) or now < last.effective_at:
        return []
    contract, _ = bundle_of(version_at(parts, model.name, challenger.version).address)
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
    scored, known = logged_between(parts, fleet, min(started.values()), now + timedelta(microseconds=1), now)
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
            mine, contract = by_member[name].filter(pl.col("time") >= started[name]), contract_at(versions[name, challenger][1])
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


def _canary_started(history: Sequence[Deployment]) -> datetime:
    # Evidence counts from the first step: the champion's and the challenger's scores are paired since then.
    started = history[-1].effective_at
    for deployment in reversed(history):
        if canary_of(deployment) is None:
            break
        started = deployment.effective_at
    return started
