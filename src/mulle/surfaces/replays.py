"""A replay as a person asks for it: a home of its own below the project's, a replay clock, and the account in the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mulle.core.settings import Settings

if TYPE_CHECKING:
    from mulle.core.declare.project import Project
    from mulle.loop.replay import Said

__all__ = ["play", "replay_settings"]


def replay_settings(settings: Settings, name: str) -> Settings:
    """Give the settings of a replay: every store in a folder of its own, whatever the project's own stores are.

    Examples
    --------
    >>> inner = replay_settings(Settings().resolved(), "x")
    >>> inner.home.parts[-3:], inner.database.endswith("x/mulle.db"), inner.clock
    (('.mulle', 'replays', 'x'), True, 'rows')
    """
    home = settings.home / "replays" / name
    return replace(settings, home=home, database="", lake="", tracking="", online="", clock="rows").resolved()


def play(settings: Settings, project: Project, model: str, start: datetime, end: datetime, said: Said) -> dict[str, Any]:
    """Play a model's past in a home of its own and give the account.

    Parameters
    ----------
    settings, project
        The project's own.
    model : str
    start, end : datetime
        The first instant that is asked about, and the first that is not.
    said : callable
        Told what happens.

    Returns
    -------
    dict
        ``policies``, ``by_month`` and the counts; ``home`` is where every record of the replay can be looked at.

    Raises
    ------
    UsageError
        When the end is not after the start.
    Refused
        When the first model does not pass its own gates.
    """
    from mulle.bootstrap.parts import wire
    from mulle.core.clock import ReplayClock, WallClock, rfc3339
    from mulle.core.errors import UsageError
    from mulle.core.hashing import new_id
    from mulle.loop.replay import ReplayOptions, replay

    if end <= start:
        raise UsageError(f"the replay would end at {rfc3339(end)}, before it starts", next="give --to after --from")
    now = WallClock().now()
    name = new_id(now)
    inner = replay_settings(settings, name)
    parts = wire(inner, clock=ReplayClock(start), project=project)
    account = replay(parts, model, ReplayOptions(start=start, end=end), said)
    policies = {policy: {**_cost(account, policy), **told} for policy, told in account["policies"].items()}
    return {"id": name, "created_at": rfc3339(now), "home": str(inner.home), **account, "policies": policies}


def _cost(account: dict[str, Any], policy: str) -> dict[str, Any]:
    # Only the declared policy was served; the frozen model is scored on the rows that were logged for it.
    if policy != "declared":
        return {"requests": 0, "failed_requests": 0, "compute_seconds": 0.0}
    return {name: account.get(name, 0) for name in ("requests", "failed_requests", "compute_seconds")}
