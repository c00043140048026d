"""AutoGluon's side of the search: its preset for the best quality where the time allows, with the models that need no torch."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor

from benchmarks.cell import given, leave
from benchmarks.side import Work

__all__ = ["search"]

_BAGGED_ROWS = 10_000
_STACKED_SECONDS = 60


def search(folder: Path) -> Work:
    """Search within the time; the answer predicts the test rows."""
    for name in ("lightgbm", "catboost", "xgboost"):
        import_module(name)  # it would do so within its time
    os.chdir(folder)  # CatBoost leaves files wherever it is
    task = given(folder)
    rows, asked = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    number = task.kind == "regression"
    problem = {"problem_type": task.kind, "eval_metric": "mean_absolute_error" if number else "log_loss"}
    settings = {**_preset(task.seconds, len(rows)), "time_limit": task.seconds, "num_cpus": task.cores, "num_gpus": 0}

    def run() -> TabularPredictor:
        # It takes no seed for the whole: its folds and models are seeded by itself, and numpy's is all that is left to set.
        np.random.seed(task.seed)
        predictor = TabularPredictor(label=task.target, path=str(folder / "autogluon"), verbosity=0, **problem)
        return predictor.fit(rows, **settings)

    def keep(predictor: TabularPredictor, path: Path) -> None:
        predicted = predictor.predict(asked) if number else predictor.predict_proba(asked)[list(task.classes)]
        leave(folder, path, predicted.to_numpy(), {**problem, **settings}, predictor.model_best)

    return Work(run=run, keep=keep)


def _preset(seconds: float, rows: int) -> dict[str, object]:
    # Eight folds of a large table are not done in half a minute, and a preset that trains no model is nobody's best. Its
    # own advice when the time is short is to leave out the trial of stacking, a quarter of the time.
    if rows >= _BAGGED_ROWS:
        return {"presets": "medium_quality"}
    return {"presets": "best_quality", "dynamic_stacking": "auto" if seconds >= _STACKED_SECONDS else False}
