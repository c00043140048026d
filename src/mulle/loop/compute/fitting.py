"""What search, evaluation and bundle share: the run's split, its target, and the fit on all rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.errors import DataError
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.encode import encode, feature_specs
from mulle.kernel.fitted import Estimator, answers
from mulle.lifecycle.training.fit import fit
from mulle.lifecycle.training.split import split_rows
from mulle.loop.compute.work import HELD, TIME, Work, read_features

__all__ = [
    "Index", "Refit", "begin_refit", "end_refit", "fit_on", "kept_specs", "order_of", "raw_columns", "said", "split", "target_of",
]  # fmt: skip

Index = npt.NDArray[np.int64]

Refit = tuple[Any, tuple[FeatureSpec, ...], pl.DataFrame, npt.NDArray[Any], pl.Series]
"""What was fitted on all rows, the features' specs and rows, the target, and the rows' times."""

_beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refit")
_refits: dict[str, Future[Refit]] = {}


def split(work: Work) -> tuple[Index, Index]:
    """Give the positions of the run's training rows and of its holdout; a member's are those of its fleet."""
    if work.member:
        held = raw_columns(work, [HELD])[HELD].to_numpy()
        return np.flatnonzero(~held), np.flatnonzero(held)
    rows = raw_columns(work, [TIME, *work.model.split.by])
    time = None if rows[TIME].null_count() else TIME
    return split_rows(rows, time=time, holdout=work.model.split, seed=work.seed)


def raw_columns(work: Work, names: Sequence[str]) -> pl.DataFrame:
    """Read some columns of the run's rows.

    Raises
    ------
    DataError
        When one is not there.
    """
    path = work.folder / "rows.parquet"
    there = pl.read_parquet_schema(path)
    for name in names:
        if name not in there:
            known = ", ".join(n for n in there if n not in work.hidden_columns)
            raise DataError(f"the rows have no column '{name}' to group by", next=f"name one of {known}", column=name)
    return pl.read_parquet(path, columns=list(dict.fromkeys(names)))


def order_of(time: pl.Series) -> npt.NDArray[np.int64] | None:
    """Give times as microseconds, for a window to be cut by; None when a row has none."""
    return None if time.null_count() else time.to_physical().to_numpy()


def target_of(work: Work, target: pl.Series) -> npt.NDArray[Any]:
    """Give a target as the task's estimators take it: float64, or classes as text."""
    return target.cast(pl.Float64).to_numpy() if work.model.task == "regression" else target.cast(pl.String).to_numpy()


def kept_specs(specs: tuple[FeatureSpec, ...], settings: Json) -> tuple[FeatureSpec, ...]:
    """Leave out the specs of features that were not selected, or that are null on every training row."""
    selection = settings.get("selection")
    kept = {s.name for s in specs} if selection is None else set(selection["kept"])
    return tuple(s for s in specs if s.name in kept and s.column not in settings.get("dropped", ()))


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
    key = hash_json([str(work.folder), work.run, work.model.name, settings])
    if key not in _refits:
        _refits.clear()
        _refits[key] = _beside.submit(_refit, work, settings)
    return _refits[key]


def end_refit(work: Work, settings: Json) -> Refit:
    """Wait for the fit on all rows, and let go of it."""
    found = begin_refit(work, settings).result()
    _refits.clear()
    return found


def fit_on(
    work: Work, settings: Json, features: pl.DataFrame, truth: npt.NDArray[Any], time: pl.Series, rows: Index | None
) -> tuple[Estimator, tuple[FeatureSpec, ...]]:
    """Fit settings on some of the run's rows, or on all: the features they keep, the window and the ensemble they name.

    Returns
    -------
    fitted : Estimator
    specs : tuple of FeatureSpec
        Of the features that it takes; categories are those of the rows.
    """
    order = order_of(time)
    if rows is not None:
        features, truth, order = features[rows], truth[rows], None if order is None else order[rows]
    specs = kept_specs(feature_specs(features), settings)
    matrix = encode(features, specs)
    return fit(settings, matrix, truth, task=work.model.task, specs=specs, seed=work.seed, order=order), specs


def _refit(work: Work, settings: Json) -> Refit:
    features, target, time = read_features(work, train=None)
    truth = target_of(work, target)
    fitted, specs = fit_on(work, settings, features, truth, time, None)
    return fitted, specs, features, truth, time
