"""FLAML's side of the search: its own choice of learners, with its stacked ensemble after the search."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from flaml import AutoML

from benchmarks.cell import given, leave
from benchmarks.side import Work

__all__ = ["search"]


def search(folder: Path) -> Work:
    """Search within the time; the answer predicts the test rows."""
    os.chdir(folder)  # CatBoost leaves files wherever it is
    task = given(folder)
    rows, asked = (_read(folder / f"{name}.parquet") for name in ("train", "test"))
    number = task.kind == "regression"
    settings = {
        "task": "regression" if number else "classification",
        "metric": "mae" if number else "log_loss",
        "time_budget": task.seconds,
        "n_jobs": task.cores,
        "seed": task.seed,
        "ensemble": True,
        "verbose": 0,
    }

    def run() -> AutoML:
        model = AutoML()
        model.fit(X_train=rows.drop(columns=task.target), y_train=rows[task.target].to_numpy(), **settings)
        return model

    def keep(model: AutoML, path: Path) -> None:
        if number:
            predicted = model.predict(asked)
        else:
            order = [list(map(str, model.classes_)).index(c) for c in task.classes]
            predicted = model.predict_proba(asked)[:, order]
        found = f"{model.best_estimator}, then {type(model.model).__name__}"
        leave(folder, path, predicted, settings, found)

    return Work(run=run, keep=keep)


def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_parquet(path)
    text = [c for c in rows.columns if c.startswith("f") and not pd.api.types.is_numeric_dtype(rows[c])]
    return rows.astype(dict.fromkeys(text, "category"))
