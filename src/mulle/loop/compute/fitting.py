"""What search, evaluation and bundle share: the run's split, its target, and the fit on all rows."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.hashing import hash_json
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.encode import encode, feature_specs
from mulle.kernel.fitted import Estimator, answers
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.split import split_rows
from mulle.loop.compute.work import TIME, Work, read_features

__all__ = ["Index", "Refit", "begin_refit", "end_refit", "kept_specs", "said", "split", "target_of"]

Index = npt.NDArray[np.int64]

Refit = tuple[Any, tuple[FeatureSpec, ...], pl.DataFrame, npt.NDArray[Any], pl.Series]
"""What was fitted on all rows, the features' specs and rows, the target, and the rows' times."""

_beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refit")
_refits: dict[str, Future[Refit]] = {}


def split(work: Work) -> tuple[Index, Index]:
    """Give the positions of the run's training rows and of its holdout."""
    rows = pl.read_parquet(work.folder / "rows.parquet", columns=[TIME])
    time = None if rows[TIME].null_count() else TIME
    return split_rows(rows, time=time, holdout=work.model.split, seed=work.seed)


def target_of(work: Work, target: pl.Series) -> npt.NDArray[Any]:
    """Give a target as the task's estimators take it: float64, or classes as text."""
    return target.cast(pl.Float64).to_numpy() if work.model.task == "regression" else target.cast(pl.String).to_numpy()


def kept_specs(specs: tuple[FeatureSpec, ...], settings: Json) -> tuple[FeatureSpec, ...]:
    """Leave out the specs of features that were not selected; all stay when nothing was."""
    selection = settings.get("selection")
    return specs if selection is None else tuple(s for s in specs if s.name in set(selection["kept"]))


def said(
    fitted: Estimator, matrix: npt.NDArray[np.float32], task: str, classes: tuple[str, ...]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]:
    """Give a fitted pipeline's answers, and for classes the probability of each, shape (n, classes)."""
    found = answers(fitted, matrix, task)
    if task == "regression":
        return found[:, 0], None
    return np.array(classes, dtype=object)[found.argmax(axis=1)], found


def begin_refit(work: Work, settings: Json) -> Future[Refit]:
    """Start the fit on all rows beside whatever else this process does, or find the one under way.

    Evaluation and refit are the two long fits of a run and do not wait for each other; when this process dies between
    their steps, the next one fits again and gets the same.
    """
    key = hash_json([work.run, settings])
    if key not in _refits:
        _refits.clear()
        _refits[key] = _beside.submit(_refit, work, settings)
    return _refits[key]


def end_refit(work: Work, settings: Json) -> Refit:
    """Wait for the fit on all rows, and let go of it."""
    found = begin_refit(work, settings).result()
    _refits.clear()
    return found


def _refit(work: Work, settings: Json) -> Refit:
    features, target, time = read_features(work, train=None)
    specs = kept_specs(feature_specs(features), settings)
    truth = target_of(work, target)
    fitted = fit(settings, encode(features, specs), truth, task=work.model.task, specs=specs, seed=work.seed)
    return fitted, specs, features, truth, time
