"""What a repeated run does otherwise than the declaration says: the search's budget and shape, and the seed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

from mulle.core.declare.model import Model
from mulle.core.declare.project import Project
from mulle.core.declare.training import Search
from mulle.core.errors import DeclarationError, UsageError
from mulle.core.records.base import Json
from mulle.core.records.run import Run
from mulle.kernel.project import load_project

__all__ = ["CHANGES", "SEED", "changed", "declared", "read_changes"]

CHANGES = "set"
"""A run's option that holds what was changed, by name."""

SEED = "seed"

_NAMES = ("trials", "timeout", "ensemble", "parallel", "trial_timeout", "memory", "prune")
_NUMBERS = ("trials", "ensemble", "parallel", SEED)


def read_changes(given: Sequence[str]) -> Json:
    """Read ``name=value`` pairs.

    Raises
    ------
    UsageError
        When a name cannot be changed, or a value does not fit it.

    Examples
    --------
    >>> read_changes(["trials=50", "timeout=5m"])
    {'trials': 50, 'timeout': '5m'}
    """
    found: Json = {}
    for pair in given:
        name, mark, text = pair.partition("=")
        if not mark or name not in (*_NAMES, SEED):
            raise UsageError(f"'{pair}' changes nothing of a run", next=f"write NAME=VALUE with {', '.join((*_NAMES, SEED))}")
        try:
            found[name] = int(text) if name in _NUMBERS else text.lower() in {"true", "yes", "1"} if name == "prune" else text
        except ValueError:
            raise UsageError(f"{name} is '{text}', no number", next=f"write {name}=50") from None
    return found


def changed(model: Model, options: Mapping[str, object]) -> Model:
    """Give the model as a run with these options declares it.

    Raises
    ------
    UsageError
        When a value does not fit.
    """
    given = options.get(CHANGES)
    if not isinstance(given, Mapping):
        return model
    asked = {name: value for name, value in given.items() if name in _NAMES}
    known = {f.name: getattr(model.search, f.name) for f in fields(Search)}
    try:
        search = Search(**{**known, **asked})
    except DeclarationError as error:
        raise UsageError(error.detail, next=error.next) from error
    made = copy.copy(model)
    object.__setattr__(made, "search", search)
    return made


def declared(project: Project, home: Path, run: Run) -> Model:
    """Give a run's model as it was declared when the run was asked for, whatever this process has loaded, and changed since."""
    snapshot = home / "code" / run.code
    same = run.code == project.code or not snapshot.is_dir()
    return changed((project if same else _loaded(snapshot)).model(run.model), run.options)


@lru_cache(maxsize=4)
def _loaded(snapshot: Path) -> Project:
    return load_project(snapshot)
