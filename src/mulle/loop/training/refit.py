"""Runs that search for nothing: the champion's settings, trained again on the rows that there are now."""

from __future__ import annotations

from mulle.core.declare.model import Model
from mulle.core.records.base import Json
from mulle.core.records.run import Run
from mulle.loop.operate import champion
from mulle.loop.parts import Parts
from mulle.loop.training.fleet import settings_in_force
from mulle.loop.training.imported import OPTION

__all__ = ["settings_kept"]

_LOOKED_AT = 200
"""Earlier runs in which the last search is looked for."""


def settings_kept(parts: Parts, model: Model, run: Run) -> Json | None:
    """Give what a search would have found, where the last one is younger than `Retrain(search=...)` wants the next.

    Returns
    -------
    dict or None
        The champion's settings; None when it is time to search, a person asked for the run, features are selected by the
        search, or the champion was not trained here.
    """
    span = model.retrain.search
    if span is None or model.select is not None or any(cause.type == "person" for cause in run.causes):
        return None
    best = champion(parts, model)
    made = parts.metadata.runs.get(best.run) if best else None
    if best is None or made is None or OPTION in made.options:
        return None
    earlier = (r for r in parts.metadata.runs.list(model.name, limit=_LOOKED_AT) if r.id != run.id)
    last = next((r for r in earlier if parts.metadata.runs.trials(r.id)), None)
    if last is None or run.created_at - last.created_at >= span:
        return None
    told = f"{model.name}@{best.version}'s settings on the rows of now: the search of run {last.id} is younger than {span}"
    return {**settings_in_force(parts, model), "notes": [told]}
