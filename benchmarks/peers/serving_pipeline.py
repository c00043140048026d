"""The same model as a scikit-learn pipeline, as its users would write it; each peer reads it in its own environment."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["mixed", "parts", "scorer", "text", "written"]

Rows = Sequence[dict[str, Any]] | pd.DataFrame


def mixed(numbers: list[str], categories: dict[str, list[str]]) -> Any:
    """Make a pipeline of numbers, coded categories, parts of a time, and two hundred LightGBM trees."""
    from lightgbm import LGBMRegressor
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

    codes = OrdinalEncoder(categories=list(categories.values()), handle_unknown="use_encoded_value", unknown_value=-1)
    columns = [
        ("numbers", "passthrough", numbers),
        ("codes", codes, list(categories)),
        ("time", FunctionTransformer(parts), ["at"]),
    ]
    fixed = {"n_estimators": 200, "num_leaves": 31, "learning_rate": 0.1, "min_child_samples": 20, "objective": "regression"}
    trees = LGBMRegressor(**fixed, n_jobs=1, random_state=0, deterministic=True, force_row_wise=True, verbose=-1)
    return Pipeline([("columns", ColumnTransformer(columns)), ("trees", trees)])


def text(terms: list[str], weights: list[float], texts: list[str], y: np.ndarray) -> Any:
    """Fit a pipeline of the TF-IDF of known terms and a ridge regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    words = TfidfVectorizer(vocabulary={term: i for i, term in enumerate(terms)}).fit(texts)
    words.idf_ = np.array(weights)  # theirs and ours differ by the rows that are held back while a model is judged
    # Learned in single precision, as ours: the last digits of its weights depend on it.
    ridge = Ridge(alpha=1.0).fit(words.transform(texts).toarray().astype(np.float32), y)
    return Pipeline([("column", FunctionTransformer(written)), ("words", words), ("ridge", ridge)])


def written(frame: pd.DataFrame) -> pd.Series:
    """Give the column of texts."""
    return frame["text"]


def parts(frame: pd.DataFrame) -> np.ndarray:
    """Give hour and weekday (Monday is 1) of the one column, times as text."""
    at = pd.to_datetime(frame.iloc[:, 0], format="ISO8601", utc=True)
    return np.column_stack([at.dt.hour, at.dt.isocalendar().day]).astype(np.float64)


def scorer(folder: Path, given: str) -> Callable[[Rows], list[float]]:
    """Give what answers rows: the pipeline, or the compiled graph with codes looked up by hand.

    Parameters
    ----------
    folder : Path
    given : {"pipeline", "onnx"}
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given == "onnx":
        from benchmarks.serving_codes import Graph

        return Graph(folder).score
    pipeline = pickle.loads((folder / "pipeline.pickle").read_bytes())

    def score(rows: Rows) -> list[float]:
        return pipeline.predict(pd.DataFrame(rows)).tolist()

    return score
