"""Stage 3 of a run as compute: search candidates on the training rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.gates import AtLeast, AtMost, EachSlice, Fairness, Gate, GeneralisationGap, NoWorseThanChampion
from mulle.core.errors import DataError
from mulle.core.ports.compute import Compute
from mulle.core.records.base import Json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.encode import encode, feature_specs
from mulle.lifecycle.evaluation.own import own_metrics
from mulle.lifecycle.features.select import choose_features
from mulle.lifecycle.training.fit import refuse_metrics, refuse_untrainable
from mulle.lifecycle.training.folds import Narrow
from mulle.lifecycle.training.importance import parameter_importance
from mulle.lifecycle.training.search import Plan, search
from mulle.lifecycle.training.split import group_codes
from mulle.loop.compute.fitting import Index, kept_specs, order_of, raw_columns, split, target_of
from mulle.loop.compute.work import Work, read_features

__all__ = ["search_model"]

Matrix = npt.NDArray[np.float32]

_TOLD = 10
"""Features that a note names, at most."""


def search_model(work: Work, timeout: float | None, warm: list[Json], workers: Callable[[int], Compute] | None = None) -> Json:
    """Search candidates on the training rows; the holdout is not touched.

    Parameters
    ----------
    work : Work
    timeout : float or None
        Seconds.
    warm : list of dict
        Settings of earlier winners.
    workers : callable, optional
        Makes a compute of so many processes, for trials at once and for limits of one trial.

    Returns
    -------
    dict
        ``trials``, the winner's ``settings``, ``notes`` (what was decided on the way, a sentence each), ``importance`` (of
        parameters, by candidate) and, where the model selects, the
        ``selection`` (by, kept, scores). Selection and ``dropped`` (features null on every training row) are
        among the settings too: evaluation, refit and bundle follow them.
    """
    _refuse_metrics(work)
    train, _ = split(work)
    features, target, time = read_features(work, train=train)
    chosen, truth = features[train], target_of(work, target)[train]
    specs = feature_specs(chosen)
    known: Json = {"dropped": empty} if (empty := _empty(chosen)) else {}
    if len(empty) == chosen.width:
        raise DataError("every feature is null on every row", next="look at the joins and the transform with `mulle plan`")
    specs = kept_specs(specs, known)
    matrix = encode(chosen, specs)
    selection = _selection(work, matrix, truth, specs)
    order = order_of(time)
    found = search(
        matrix,
        truth,
        None if order is None else order[train],
        task=work.model.task,
        candidates=work.model.search.candidates,
        specs=specs,
        trials=work.model.search.trials,
        timeout=timeout,
        seed=work.seed,
        warm=warm,
        plan=_plan(work, train, workers),
    )
    trials: list[Json] = to_json(found.trials)
    answer = {"trials": trials, "settings": {**to_json(found.settings), **known, **selection}}
    answer["importance"] = parameter_importance(trials, seed=work.seed)
    return answer | selection | {"notes": [*_notes(empty, chosen), *found.notes]}


def _plan(work: Work, train: Index, workers: Callable[[int], Compute] | None) -> Plan:
    declared = work.model.search
    for left in work.folder.glob("search-*"):  # by a process that was killed in its search
        shutil.rmtree(left, ignore_errors=True)
    by = () if declared.validation is None else declared.validation.by
    return Plan(
        validation=declared.validation,
        groups=group_codes(raw_columns(work, by)[train], by) if by else None,
        windows=tuple(w.label for w in work.model.train_on),
        narrow=_narrow(work),
        parallel=declared.parallel,
        trial_timeout=None if declared.trial_timeout is None else declared.trial_timeout.total_seconds(),
        memory=declared.memory,
        prune=declared.prune,
        ensemble=declared.ensemble,
        calibrate=work.model.calibrate,
        workers=workers,
        folder=work.folder,
        project=work.project.folder,
    )


def _refuse_metrics(work: Work) -> None:
    """Refuse metrics that could not be measured, before any time is spent on trials."""
    own_metrics(work.model.gates)
    watched = work.model.monitor.performance
    judged = [*work.model.gates, *([] if watched is None else [watched])]
    refuse_metrics([m for gate in judged for m in _metrics(gate)], work.model.task)


def _metrics(gate: Gate) -> tuple[str, ...]:
    if isinstance(gate, EachSlice):
        return _metrics(gate.gate)
    if isinstance(gate, (AtMost, AtLeast, NoWorseThanChampion, GeneralisationGap, Fairness)) and gate.own is None:
        return (gate.metric,)
    return ()


def _empty(features: pl.DataFrame) -> list[str]:
    return [c.name for c in features if c.null_count() == features.height]


def _notes(empty: Sequence[str], features: pl.DataFrame) -> list[str]:
    notes = [f"left out, null on every training row: {', '.join(empty[:_TOLD])}"] if empty else []
    infinite = {c.name: int(c.is_infinite().sum() or 0) for c in features if c.dtype.is_float()}
    return notes + [f"{name}: {count} infinite values are read as missing" for name, count in infinite.items() if count]


def _selection(work: Work, matrix: Matrix, truth: npt.NDArray[Any], specs: Sequence[FeatureSpec]) -> Json:
    if work.model.select is None:
        return {}
    refuse_untrainable(matrix, truth, task=work.model.task, specs=specs)
    return {"selection": _selected(work, matrix, truth, specs)}


def _selected(work: Work, matrix: Matrix, truth: npt.NDArray[Any], specs: Sequence[FeatureSpec]) -> Json:
    select = work.model.select
    assert select is not None
    found: Json = to_json(choose_features(matrix, truth, specs, task=work.model.task, select=select, seed=work.seed))
    return found


def _narrow(work: Work) -> Narrow | None:
    """Let each fold choose its features by itself: those that all training rows choose have seen what it is scored on."""
    if work.model.select is None:
        return None
    return lambda matrix, truth, specs: _selected(work, matrix, truth, specs)["kept"]
