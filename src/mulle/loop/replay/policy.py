"""A replay's policies: when a model is trained anew on history, and how what was trained is released."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from mulle.core.declare.model import Model
from mulle.core.declare.monitor import Monitor
from mulle.core.declare.names import plain_name
from mulle.core.declare.project import Project
from mulle.core.declare.retrain import Retrain
from mulle.core.declare.rollout import immediate
from mulle.core.errors import MulleError, UsageError

__all__ = ["DECLARED", "EVERY_WINDOW", "FROZEN", "Policy", "read_policies", "unhurried", "varied"]

_WATCHED = ("window", "delay", "min_rows")
_CAUSES = tuple(f.name for f in fields(Retrain))
_WORDS = (*_CAUSES, *_WATCHED, "rollout")
_LIST, _NEXT = "+", re.compile(r",(?=\w+=)")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a replay does with a model.

    Attributes
    ----------
    name : str
    every_window : bool
        Search and train at the end of each window of the monitor, and release what was trained at once, whatever the gates say.
    changes : tuple of (str, str)
        What differs from the declaration: words of `Retrain`, ``window``, ``delay`` and ``min_rows`` of `Monitor`, and
        ``rollout``, with their values as text.
    """

    name: str
    every_window: bool = False
    changes: tuple[tuple[str, str], ...] = ()


_NEVER = tuple((word, "") for word in ("on", "cron", "new_rows", "max_age", "new_labels", "after"))
"""Nothing causes a run."""

DECLARED = Policy("declared")
FROZEN = Policy("frozen", changes=_NEVER)
EVERY_WINDOW = Policy("every-window", every_window=True, changes=(*_NEVER, ("search", "")))
"""Each of its runs searches, as runs do unless a declaration says otherwise: to search seldom is the declared policy's own."""
_KNOWN = {p.name: p for p in (DECLARED, FROZEN, EVERY_WINDOW)}


def read_policies(texts: Sequence[str]) -> tuple[Policy, ...]:
    """Read policies as they are asked for.

    Parameters
    ----------
    texts : sequence of str
        ``declared``, ``frozen``, ``every-window``, or ``NAME:WORD=VALUE,...`` for a variant of the declaration; several
        causes are joined by ``+``.

    Raises
    ------
    UsageError
        When one cannot be read, or two have one name.

    Examples
    --------
    >>> read_policies(["frozen", "slow:cooldown=7d,on=drift+performance"])[1].changes
    (('cooldown', '7d'), ('on', 'drift+performance'))
    """
    policies = tuple(_policy(text) for text in texts)
    names = [p.name for p in policies]
    if len(set(names)) < len(names):
        raise UsageError(f"two policies are named alike: {', '.join(names)}", next="give each a name of its own")
    return policies


def varied(project: Project, name: str, policy: Policy) -> Project:
    """Return the project with one model's loop as the policy wants it; what is learned, and from what, stays.

    Raises
    ------
    UsageError
        When a value cannot be read.
    """
    if not policy.changes:
        return project
    try:
        model = _varied(project.model(name), dict(policy.changes))
    except (MulleError, TypeError, ValueError) as error:
        detail = error.detail if isinstance(error, MulleError) else str(error)
        raise UsageError(f"policy {policy.name}: {detail}", next=f"it varies {', '.join(_WORDS)}") from error
    return replace(project, models={**project.models, name: model})


def unhurried(project: Project, name: str) -> Project:
    """Return the project with a model whose release is not judged by latency: a replay loads the machine in its own way."""
    made = copy.copy(project.model(name))
    object.__setattr__(made, "rollout", replace(made.rollout, slower=math.inf))
    return replace(project, models={**project.models, name: made})


def _policy(text: str) -> Policy:
    name, colon, rest = text.partition(":")
    if not colon:
        if name not in _KNOWN:
            raise UsageError(f"no policy '{name}'", next=f"there are {', '.join(_KNOWN)}, and variants like slow:cooldown=7d")
        return _KNOWN[name]
    if name in _KNOWN:
        raise UsageError(f"'{name}' is a policy already", next="give the variant a name of its own")
    pairs = [part.partition("=") for part in _NEXT.split(rest)]
    unknown = [word for word, mark, _ in pairs if not mark or word not in _WORDS]
    if unknown:
        raise UsageError(f"policy {name}: '{unknown[0]}' cannot be varied", next=f"vary {', '.join(_WORDS)}, as in cooldown=7d")
    return Policy(plain_name(name, "policy"), changes=tuple((word, value) for word, _, value in pairs))


def _varied(model: Model, changes: dict[str, str]) -> Model:
    made = copy.copy(model)
    told: dict[str, object] = {
        "retrain": _again(model.retrain, {w: v for w, v in changes.items() if w in _CAUSES}),
        "monitor": _again(model.monitor, {w: v for w, v in changes.items() if w in _WATCHED}),
    }
    if changes.get("rollout") == "immediate":
        told["rollout"] = immediate()
    elif changes.get("rollout", "declared") != "declared":
        raise ValueError(f"rollout is '{changes['rollout']}', not 'immediate' or 'declared'")
    for attribute, value in told.items():
        object.__setattr__(made, attribute, value)
    return made


def _again(declared: Retrain | Monitor, changes: dict[str, str]) -> Retrain | Monitor:
    if not changes:
        return declared
    now: dict[str, Any] = {f.name: getattr(declared, f.name) for f in fields(declared)}
    return type(declared)(**now | {word: _value(now[word], text) for word, text in changes.items()})


def _value(declared: object, text: str) -> object:
    """Read a value of the kind that stands in the declaration."""
    if isinstance(declared, tuple):
        return tuple(part for part in text.split(_LIST) if part)
    if text in {"", "none"}:
        return None
    if isinstance(declared, timedelta) or not text.isdecimal():
        return text
    return int(text)
