"""What people and programs are shown of a fleet: its members summed up, and listed with the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.errors import NotFound
from mulle.core.records.base import Json, to_json
from mulle.core.records.deployment import challenger_of, champion_of
from mulle.core.records.run import OUTCOMES, Member
from mulle.loop.parts import Parts

__all__ = ["fleet_view", "members_view", "run_members_view", "summed"]

_WORST = 5
_REASONS = 10
_RANK = {name: rank for rank, name in enumerate(("failed", "held_back", "kept", "trained", "small"))}


def fleet_view(parts: Parts, fleet: str) -> Json | None:
    """Sum up what was last done with each member of a fleet; None for a model that is none.

    Returns
    -------
    dict or None
        ``column``, ``members`` (how many keys), ``outcomes`` (outcome to count), ``reasons`` (the most frequent, with their
        counts), ``canaries`` (members in one, by name), ``better`` (the middle of new over shared metric, of those that have
        their own) and ``worst``.
    """
    declared = parts.project.models.get(fleet)
    last = parts.metadata.runs.last_members(fleet)
    if (declared is None or declared.each is None) and not last:
        return None
    deployments = parts.metadata.deployments
    beside = [name for name in deployments.canaries() if fleet_of(name) == fleet and key_of(name)]
    canaries = [name for name, found in deployments.latest(1, beside).items() if challenger_of(found[-1])]
    column = declared.each.column if declared is not None and declared.each is not None else None
    return {"column": column, "canaries": canaries, **summed(last)}


def run_members_view(parts: Parts, run: str) -> Json | None:
    """Sum up what a run did with its members; None for a run that had none."""
    members = parts.metadata.runs.members(run)
    return summed(members) if members else None


def summed(members: Sequence[Member]) -> Json:
    """Count members by outcome and reason, and name the worst.

    Examples
    --------
    >>> summed([Member(run="r", model="m/1", outcome="failed", reason="one class")])["reasons"]
    [{'outcome': 'failed', 'reason': 'one class', 'members': 1}]
    """
    counted = Counter(m.outcome for m in members)
    reasons = Counter((m.outcome, _kind(m)) for m in members if m.reason)
    ratios = sorted(m.value / m.shared for m in members if m.outcome == "trained" and m.value is not None and m.shared)
    return {
        "members": len(members),
        "outcomes": {name: counted[name] for name in OUTCOMES},
        "reasons": [{"outcome": o, "reason": why, "members": n} for (o, why), n in reasons.most_common(_REASONS)],
        "better": ratios[len(ratios) // 2] if ratios else None,
        "worst": [_item(m) for m in sorted(members, key=_worst_first)[:_WORST] if m.outcome != "small"],
    }


def members_view(parts: Parts, fleet: str, *, limit: int = 50, after: str | None = None) -> Json:
    """List a fleet's members: failed ones first, then those held back, then by how they stand to the shared model.

    Parameters
    ----------
    parts : Parts
    fleet : str
    limit : int
    after : str, optional
        Name of the last member seen.

    Returns
    -------
    dict
        ``items`` (`Member`, with ``champion`` and ``canary``: versions or None), ``next``.

    Raises
    ------
    NotFound
        When the fleet has no members, or none of that name.
    """
    ranked = sorted(parts.metadata.runs.last_members(fleet), key=_worst_first)
    if not ranked:
        raise NotFound(f"'{fleet}' has no members", next=f"`mulle run {fleet}` trains them, where it declares each=", model=fleet)
    names = [m.model for m in ranked]
    if after is not None and after not in names:
        raise NotFound(f"no member '{after}' of {fleet} to continue after", next="start the listing again without `after`")
    start = 0 if after is None else names.index(after) + 1
    page = ranked[start : start + limit]
    latest = parts.metadata.deployments.latest(1, [m.model for m in page])
    items = []
    for member in page:
        last = latest[member.model][-1] if member.model in latest else None
        canary = challenger_of(last)
        items.append({**_item(member), "champion": champion_of(last), "canary": canary.version if canary else None})
    return {"items": items, "next": page[-1].model if start + limit < len(ranked) else None, "members": len(ranked)}


def _item(member: Member) -> Json:
    view: Json = to_json(member)
    return {"id": member.model, **view}


def _worst_first(member: Member) -> tuple[int, float, str]:
    ratio = member.value / member.shared if member.value is not None and member.shared else 0.0
    return (_RANK.get(member.outcome, len(_RANK)), -ratio, member.model)


def _kind(member: Member) -> str:
    # Figures differ from member to member; what they are about is counted.
    if member.outcome in ("held_back", "kept"):
        return "; ".join(part.split(":", 1)[0] for part in member.reason.split("; "))
    if member.outcome == "small" and member.reason.endswith(" are wanted"):
        return f"fewer than {member.reason.split()[-3]} training rows"
    return member.reason
