"""What stands between the encoded matrix and an estimator that does not take it as it is; fitted inside each fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler, TargetEncoder

from mulle.core.declare.candidates import BOTH, MEANS
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.training.kinds.frequencies import Frequencies

__all__ = ["MANY", "as_it_is", "boosted", "filled", "scaled", "within"]

MANY = 200
"""A category of more values is told by its values' mean targets (of classes: their shares) or by how frequent they are, not by a
column or a code each."""

_GAP = -2.0
"""The code of a missing category: the encoding gives -1 to one never seen."""


def as_it_is(specs: Sequence[FeatureSpec], task: str, codes: str = MEANS) -> list[tuple[str, Any]]:
    """Leave the matrix alone."""
    del specs, task, codes
    return []


def boosted(specs: Sequence[FeatureSpec], task: str, codes: str = MEANS) -> list[tuple[str, Any]]:
    """Give mean targets for long categories: for boosted trees, which know gaps and split short codes."""
    if not _long(specs):
        return as_it_is(specs, task, codes)
    from skl2onnx.sklapi import CastTransformer

    # Two means that float32 cannot tell apart must not be told apart by a split either.
    return [*_columns(specs, task, codes, "passthrough", "passthrough"), ("narrow", CastTransformer(dtype=np.float32))]


def filled(specs: Sequence[FeatureSpec], task: str, codes: str = MEANS) -> list[tuple[str, Any]]:
    """Fill gaps: for forests, which take none once compiled. Numbers get the median, categories a code of their own."""
    return _columns(specs, task, codes, SimpleImputer(strategy="median", keep_empty_features=True), _gaps())


def scaled(specs: Sequence[FeatureSpec], task: str, codes: str = MEANS) -> list[tuple[str, Any]]:
    """Fill and scale numbers, and give each category a column: for linear models."""
    numbers = Pipeline([("fill", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())])
    return _columns(specs, task, codes, numbers, _one_hot(), scale_long=True)


def within(specs: Sequence[FeatureSpec], task: str, codes: str = MEANS) -> list[tuple[str, Any]]:
    """As `scaled`, with numbers held within the range seen in training: for models of distance and density.

    A value far outside would leave float32 once squared, and the compiled model would answer otherwise.
    """
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    numbers = Pipeline([("fill", fill), ("hold", MinMaxScaler(clip=True)), ("scale", StandardScaler())])
    return _columns(specs, task, codes, numbers, _one_hot(), scale_long=True)


def _long(specs: Sequence[FeatureSpec]) -> list[int]:
    return [i for i, s in enumerate(specs) if len(s.categories) > MANY]


def _columns(
    specs: Sequence[FeatureSpec], task: str, codes: str, numbers: Any, categories: Any, *, scale_long: bool = False
) -> list[tuple[str, Any]]:
    terms = [i for i, s in enumerate(specs) if s.kind == "term"]
    long = _long(specs)
    short = [i for i, s in enumerate(specs) if s.kind == "category" and i not in long]
    others = [i for i, s in enumerate(specs) if s.kind not in ("category", "term")]
    said_nothing = "passthrough" if numbers == "passthrough" else _constant(0.0)
    parts = [("numbers", numbers, others), ("categories", categories, short), ("terms", said_nothing, terms)]
    parts += [(name, _long_codes(encoder, scale=scale_long), long) for name, encoder in _encoders(task, codes)]
    return [("prepare", ColumnTransformer([part for part in parts if part[2]]))]


def _constant(value: float) -> SimpleImputer:
    return SimpleImputer(strategy="constant", fill_value=value, keep_empty_features=True)


def _gaps() -> SimpleImputer:
    return _constant(_GAP)


def _one_hot() -> Pipeline:
    return Pipeline([("fill", _gaps()), ("hot", OneHotEncoder(handle_unknown="ignore", dtype=np.float32))])


def _encoders(task: str, codes: str) -> list[tuple[str, Any]]:
    # The target's own rows never enter their mean: it is taken on other folds of the rows that are fitted on.
    kind = {"regression": "continuous"}.get(task, task)
    means, frequencies = ("means", TargetEncoder(target_type=kind, random_state=0)), ("frequencies", Frequencies())
    return [(name, encoder) for name, encoder in (means, frequencies) if codes in (name, BOTH)]


def _long_codes(encoder: Any, *, scale: bool) -> Pipeline:
    steps: list[tuple[str, Any]] = [("fill", _gaps()), ("told", encoder)]
    return Pipeline([*steps, ("scale", StandardScaler())] if scale else steps)
