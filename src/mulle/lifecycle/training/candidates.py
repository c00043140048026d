"""Candidates: what each kind of estimator searches over, and how it is built; the kinds themselves stand in `kinds/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sklearn.pipeline import Pipeline

from mulle.core.declare.candidates import CODES, MEANS, Candidate
from mulle.core.declare.ranges import Floats, Ints, Range
from mulle.core.errors import DeclarationError, TrialError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.training.kinds.extras import EXTRAS
from mulle.lifecycle.training.kinds.kept import KEPT
from mulle.lifecycle.training.kinds.kind import Kind
from mulle.lifecycle.training.kinds.linear import LINEAR
from mulle.lifecycle.training.kinds.near import NEAR
from mulle.lifecycle.training.kinds.own import CUSTOM, ONNX, prepared_as
from mulle.lifecycle.training.kinds.trees import TREE_ROWS, TREES

__all__ = ["TREE_ROWS", "SampledTrial", "build", "defaults", "space"]

_KINDS: dict[str, Kind] = {**LINEAR, **TREES, **NEAR, **EXTRAS}

_OWN = {"custom": CUSTOM, "onnx": ONNX, "kept": KEPT}

_ROWS = "@rows"
"""Among a trial's parameters: the rows it was suggested for, where the kind is only for so many."""


class SampledTrial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggest a number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggest a whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of several."""
        ...


def space(candidate: Candidate, trial: SampledTrial, task: str, rows: int, *, label: str = "") -> Json:
    """Suggest parameters for a candidate; what the user fixed is taken as it is.

    Parameters
    ----------
    candidate : Candidate
    trial : Optuna trial
        Parameters are named ``label.parameter``.
    task : str
    rows : int
        Rows of the training set; bounds the size of trees' leaves.
    label : str
        Tells candidates of one kind apart; by default the kind.

    Returns
    -------
    dict
        Parameters by the estimator's own names.
    """
    chosen: Json = {}
    for name, over in _ranges(candidate, task, rows).items():
        key = f"{label or candidate.kind}.{name}"
        if isinstance(over, Floats):
            chosen[name] = trial.suggest_float(key, over.low, over.high, log=over.log)
        elif isinstance(over, Ints):
            chosen[name] = trial.suggest_int(key, over.low, over.high, log=over.log)
        else:
            chosen[name] = trial.suggest_categorical(key, over.values)
    return {**chosen, **candidate.params, **_told(candidate, rows)}


def defaults(candidate: Candidate, task: str, rows: int) -> Json:
    """Give the parameters that a candidate is tried with first, the user's own among them."""
    starts = {name: over.start for name, over in _ranges(candidate, task, rows).items()}
    return {**starts, **candidate.params, **_told(candidate, rows)}


def build(settings: Mapping[str, Any], task: str, specs: Sequence[FeatureSpec], seed: int) -> Pipeline:
    """Build an unfitted pipeline from an encoded float32 matrix to answers; every one is fit for compiling.

    Parameters
    ----------
    settings : mapping
        ``candidate`` (kind) and ``params``.
    task : str
    specs : sequence of FeatureSpec, length k
        The matrix's columns. Linear models get numbers imputed and scaled and categories one-hot; trees get the codes
        as they are; forests, which take no gap once compiled, get gaps filled.
    seed : int

    Raises
    ------
    DeclarationError
        On an unknown kind or parameter.
    TrialError
        When the trial has more rows than the kind is for.
    """
    name, params = str(settings["candidate"]), dict(settings.get("params", {}))
    kind = _kind(name)
    rows, codes = params.pop(_ROWS, 0), str(params.pop(CODES, MEANS))
    if kind.most_rows is not None and rows > kind.most_rows:
        raise TrialError(f"{name} is for at most {kind.most_rows} rows, here are {rows}", next="leave it to smaller tables")
    try:
        model = kind.make(params, task, seed)
    except TypeError as error:
        raise DeclarationError(f"candidate {name}: {error}", next="use the estimator's own names") from error
    prepare = prepared_as(settings) if kind is CUSTOM else kind.prepare
    return Pipeline([*prepare(specs, task, codes), ("model", model)])


def _told(candidate: Candidate, rows: int) -> Json:
    # The rows of the trial, not of the later fit on all rows: that has a few more, and must not fail for them.
    return {} if _kind(candidate.kind).most_rows is None else {_ROWS: rows}


def _kind(name: str) -> Kind:
    family, _, own = name.partition(":")
    if own and family in _OWN:
        return _OWN[family]
    if name not in _KINDS:
        raise DeclarationError(f"no candidate of the kind '{name}'", next=f"choose from {', '.join(_KINDS)}")
    return _KINDS[name]


def _ranges(candidate: Candidate, task: str, rows: int) -> dict[str, Range]:
    kind = _kind(candidate.kind)
    ranges = {**kind.space(task), **candidate.space}
    if kind.leaf is not None:
        # A leaf of more than a tenth of the rows would leave a small table without a tree.
        most = max(2, min(200, rows // 10))
        ranges[kind.leaf] = Ints(min(5, most), most, min(20, most), log=True)
    return {name: over for name, over in ranges.items() if name not in candidate.params}
