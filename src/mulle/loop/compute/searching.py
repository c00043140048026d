"""Stage 3 of a run as compute: search candidates on the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import polars as pl

from mulle.core.records.base import Json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.encode import encode, feature_specs
from mulle.lifecycle.features.select import choose_features
from mulle.lifecycle.training.fit import refuse_untrainable
from mulle.lifecycle.training.search import search
from mulle.loop.compute.fitting import kept_specs, split, target_of
from mulle.loop.compute.work import Work, read_features

__all__ = ["search_model"]


def search_model(work: Work, timeout: float | None, warm: list[Json]) -> Json:
    """Search candidates on the training rows; the holdout is not touched.

    Returns
    -------
    dict
        ``trials``, the winner's ``settings`` and, where the model selects, the ``selection`` (by, kept, scores), which is
        among the settings too: evaluation, refit and bundle follow it.
    """
    train, _ = split(work)
    features, target, time = read_features(work, train=train)
    chosen, truth = features[train], target_of(work, target)[train]
    specs = feature_specs(chosen)
    selection = _selection(work, chosen, specs, truth)
    specs = kept_specs(specs, selection)
    found = search(
        encode(chosen, specs),
        truth,
        None if time.null_count() else time.to_physical().to_numpy()[train],
        task=work.model.task,
        candidates=work.model.search.candidates,
        specs=specs,
        trials=work.model.search.trials,
        timeout=timeout,
        seed=work.seed,
        warm=warm,
    )
    answer = {"trials": to_json(found.trials), "settings": {**to_json(found.settings), **selection}}
    return answer | selection


def _selection(work: Work, features: pl.DataFrame, specs: Sequence[FeatureSpec], truth: npt.NDArray[Any]) -> Json:
    select = work.model.select
    if select is None:
        return {}
    matrix = encode(features, specs)
    refuse_untrainable(matrix, truth, task=work.model.task, specs=specs)
    return {"selection": to_json(choose_features(matrix, truth, specs, task=work.model.task, select=select, seed=work.seed))}
