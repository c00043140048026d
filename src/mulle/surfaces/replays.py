"""A replay as a person asks for it: each policy in a home of its own below the project's, and their accounts side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mulle.core.records.base import Json
from mulle.core.settings import Settings

if TYPE_CHECKING:
    from mulle.core.declare.project import Project
    from mulle.loop.lock import Lock
    from mulle.loop.replay.history import Past
    from mulle.loop.replay.play import ReplayOptions, Said
    from mulle.loop.replay.policy import Policy

__all__ = ["play", "replay_settings"]

_QUESTION, _ANSWER = "question.json", "answer.json"


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


def play(
    settings: Settings,
    project: Project,
    model: str,
    start: datetime,
    end: datetime,
    said: Said,
    policies: Sequence[str] = (),
    step: timedelta = timedelta(days=1),
) -> Json:
    """Play a model's past once per policy, each in a home of its own, and give the accounts side by side.

    A replay that was killed goes on when the same is asked again of the same project and data: policies that were played
    to their end are not played again.

    Parameters
    ----------
    settings, project
        The project's own.
    model : str
    start, end : datetime
        The first instant that is asked about, and the first that is not.
    said : callable
        Told what happens.
    policies : sequence of str
        As `loop.replay.policy.read_policies` takes them; by default what is declared, beside a frozen model.
    step : timedelta
        Between two looks of the loop.

    Returns
    -------
    dict
        ``policies``, ``by_month``, and ``accounts`` with every run, alert and deployment by policy; ``home`` is where every
        record of the last policy can be looked at.

    Raises
    ------
    UsageError
        When the end is not after the start, or a policy cannot be read.
    Refused
        When the first model does not pass its own gates.
    """
    from mulle.core.clock import rfc3339
    from mulle.core.errors import UsageError
    from mulle.loop.replay.compare import compared
    from mulle.loop.replay.play import ReplayOptions
    from mulle.loop.replay.policy import read_policies, varied

    if end <= start:
        raise UsageError(f"the replay would end at {rfc3339(end)}, before it starts", next="give --to after --from")
    if step <= timedelta(0):
        raise UsageError("the loop would look for ever without a step between two looks", next="give --step 1d")
    asked = read_policies(policies or ["declared"])
    projects = {policy.name: varied(project, model, policy) for policy in asked}
    past = _past(settings, project, model)
    options = ReplayOptions(start=start, end=end, step=step)
    question = _question(settings, project, model, options, asked, past)
    folder, lock = _opened(settings, question)
    try:
        accounts = {
            p.name: _played(settings, folder, projects[p.name], model, replace(options, policy=p), past, said) for p in asked
        }
    finally:
        lock.release()
    first = accounts[asked[0].name]
    told = {"id": folder.name, "created_at": json.loads((folder / _QUESTION).read_text())["created_at"], "html": None}
    told |= {"home": str(folder / asked[-1].name)}
    told |= {name: first[name] for name in ("model", "metric", "from", "to", "rows", "labelled", "never", "connections")}
    answer = {**told, "seed": settings.seed, **compared(accounts), "accounts": accounts}
    _write(folder / _ANSWER, answer)
    return answer


def _question(
    settings: Settings, project: Project, model: str, options: ReplayOptions, asked: Sequence[Policy], past: Past
) -> Json:
    """Say what was asked, so that a replay that was killed is known again."""
    from mulle.core.clock import rfc3339

    return {
        "model": model,
        "from": rfc3339(options.start),
        "to": rfc3339(options.end),
        "step": options.step.total_seconds(),
        "policies": [[p.name, p.every_window, [list(c) for c in p.changes]] for p in asked],
        "seed": settings.seed,
        "code": project.code,
        "data": past.fingerprint(),
    }


def _past(settings: Settings, project: Project, model: str) -> Past:
    from mulle.bootstrap.parts import wire
    from mulle.loop.replay.history import read_past

    # Only to read the sources, which lie where the project says.
    inner = replay_settings(settings, ".reading")
    parts = wire(inner, project=project)
    try:
        return read_past(parts, project.model(model))
    finally:
        parts.online.close()
        shutil.rmtree(inner.home)


def _played(
    settings: Settings,
    folder: Path,
    project: Project,
    model: str,
    options: ReplayOptions,
    past: Past,
    said: Said,
) -> Json:
    """Play one policy, or give what was found when it was played before."""
    from mulle.bootstrap.parts import wire
    from mulle.core.clock import ReplayClock, rfc3339
    from mulle.loop.replay.play import replay
    from mulle.loop.server import end_left_server

    start, policy = options.start, options.policy
    path, inner = folder / f"{policy.name}.json", replay_settings(settings, f"{folder.name}/{policy.name}")
    if path.exists():
        said({"kind": "policy", "at": rfc3339(start), "text": f"policy {policy.name} was played before", "requests": 0})
        return dict(json.loads(path.read_text()))
    if inner.home.exists():
        end_left_server(inner.home)
        shutil.rmtree(inner.home)
    said({"kind": "policy", "at": rfc3339(start), "text": f"policy {policy.name}", "requests": 0})
    parts = wire(inner, clock=ReplayClock(start), project=project)
    try:
        account = replay(parts, model, options, said, past)
    finally:
        parts.online.close()
    _write(path, {**account, "home": str(inner.home)})
    return dict(json.loads(path.read_text()))


def _opened(settings: Settings, question: Json) -> tuple[Path, Lock]:
    """Take up the newest replay that asked the same and has no answer yet, or begin one; nobody else may be at it."""
    from mulle.core.clock import WallClock, rfc3339
    from mulle.core.errors import Conflict
    from mulle.core.hashing import new_id
    from mulle.loop.lock import hold

    root = settings.home / "replays"
    for path in sorted(root.glob(f"*/{_QUESTION}"), reverse=True):
        if (path.parent / _ANSWER).exists() or not _same(json.loads(path.read_text()), question):
            continue
        try:
            return path.parent, hold(path.parent / "replay.lock")
        except Conflict:
            continue
    now = WallClock().now()
    folder = root / new_id(now)
    folder.mkdir(parents=True)
    lock = hold(folder / "replay.lock")
    _write(folder / _QUESTION, {"created_at": rfc3339(now), **question})
    return folder, lock


def _same(found: Mapping[str, object], question: Json) -> bool:
    return {name: value for name, value in found.items() if name != "created_at"} == question


def _write(path: Path, document: Json) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    temporary.replace(path)
