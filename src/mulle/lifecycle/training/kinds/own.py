"""Candidates of the user's own: any estimator that keeps scikit-learn's rules, and graphs that were trained elsewhere."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV

from mulle.core.declare.candidates import FACTORY, FILE, MATRIX
from mulle.core.errors import BundleError, DeclarationError
from mulle.core.records.base import Json
from mulle.kernel.graph import Graph, open_graph
from mulle.lifecycle.training.kinds.kind import Kind, Prepare, nothing_searched
from mulle.lifecycle.training.kinds.prepare import as_it_is, filled, scaled

__all__ = ["CUSTOM", "ONNX", "OnnxModel", "prepared_as"]

_PREPARED: dict[str, Prepare] = {"plain": as_it_is, "filled": filled, "scaled": scaled}
_SOME = 64
"""Training rows that a graph is tried on."""


def prepared_as(settings: Mapping[str, Any]) -> Prepare:
    """Give the preparation that settings of a custom candidate name."""
    return _PREPARED[str(settings.get("params", {}).get(MATRIX, "scaled"))]


def _custom(params: Json, task: str, seed: int) -> Any:
    factory = _found(str(params.pop(FACTORY)))
    params.pop(MATRIX, None)
    made = factory(**params)
    wanted = ("fit", "predict", "get_params")
    missing = [name for name in wanted if not callable(getattr(made, name, None))]
    if missing:
        raise DeclarationError(
            f"{type(made).__name__} has no {missing[0]}", next="return an estimator that keeps scikit-learn's rules"
        )
    if "random_state" in made.get_params() and "random_state" not in params and made.get_params()["random_state"] is None:
        made.set_params(random_state=seed)
    if task != "regression" and not hasattr(made, "predict_proba"):
        return CalibratedClassifierCV(made, cv=3, method="sigmoid")
    return made


def _found(address: str) -> Callable[..., Any]:
    module, _, name = address.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise DeclarationError(
            f"the factory {address} is not found: {error}",
            next="write it at the top of project.py itself, or take one of an installed package",
        ) from error
    return found  # type: ignore[no-any-return]


def _graph(params: Json, task: str, seed: int) -> OnnxModel:
    del seed
    return OnnxModel(task=task, file=params.pop(FILE, ""), factory=params.pop(FACTORY, ""), **params)


class OnnxModel(BaseEstimator):  # type: ignore[misc]
    """An estimator whose fit is a file that is read, or a function that is called, and whose answers are a graph's.

    Attributes
    ----------
    onnx_ : bytes
        The graph.
    output_ : str
        The output that answers.
    classes_ : numpy.ndarray
        In alphabetical order, for classes.
    """

    def __init__(self, task: str = "regression", file: str = "", factory: str = "") -> None:
        self.task, self.file, self.factory = task, file, factory

    def fit(self, X: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> OnnxModel:
        """Read or train the graph, and check that it takes this matrix and answers this task."""
        self.n_features_in_ = X.shape[1]
        if self.task != "regression":
            self.classes_ = np.unique(y)
        self.onnx_ = bytes(_found(self.factory)(X, y) if self.factory else _read(self.file))
        self._open = open_graph(self.onnx_)
        self.output_ = _checked(self._open, X[:_SOME], 1 if self.task == "regression" else len(self.classes_), self._said)
        return self

    def predict(self, X: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Answer with numbers or classes."""
        answer = self._answer(X)
        return answer[:, 0] if self.task == "regression" else self.classes_[answer.argmax(axis=1)]

    def predict_proba(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Give the probability of each class."""
        return self._answer(X)

    @property
    def _said(self) -> str:
        return self.factory or self.file

    def _answer(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        if getattr(self, "_open", None) is None:
            self._open = open_graph(self.onnx_)
        return self._open.run(self.output_, np.ascontiguousarray(X, dtype=np.float32)).reshape(len(X), -1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _read(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise DeclarationError(
            f"the graph {file} cannot be read: {error.strerror}", next="give the whole path, or start mulle where the path starts"
        ) from error


def _checked(graph: Graph, some: npt.NDArray[np.float32], columns: int, said: str) -> str:
    """Name the output that answers; refuses a graph that does not fit."""
    if len(graph.inputs) != 1 or graph.inputs[0][1] != "tensor(float)":
        raise BundleError(
            f"{said} takes {', '.join(f'{name} {kind}' for name, kind, _ in graph.inputs)}",
            next="one input of float32 is wanted, shape (rows, columns)",
        )
    shape = graph.inputs[0][2]
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != some.shape[1]) or isinstance(shape[0], int):
        raise BundleError(
            f"{said} takes {list(shape)}, the matrix is {[None, some.shape[1]]}",
            next="make it for this matrix, with the number of rows left open",
        )
    found = []
    for name, kind, _ in graph.outputs:
        if kind in ("tensor(float)", "tensor(double)"):
            answer = graph.run(name, some)
            if answer.size == len(some) * columns and len(answer) == len(some):
                _refuse_strange(answer.reshape(len(some), columns), said, columns)
                return name
            found.append(f"{name} {list(answer.shape)}")
    raise BundleError(
        f"{said} answers {len(some)} rows with {', '.join(found) or 'no floats'}",
        next=f"one output of floats is wanted, shape (rows, {columns})" + (": the probabilities" if columns > 1 else ""),
    )


def _refuse_strange(answer: npt.NDArray[np.float64], said: str, columns: int) -> None:
    if not np.isfinite(answer).all():
        raise BundleError(f"{said} answers training rows with NaN", next="gaps are NaN in the matrix: fill them inside the graph")
    if columns > 1 and np.abs(answer.sum(axis=1) - 1).max() > 1e-3:
        raise BundleError(f"{said} gives shares that do not add up to 1", next="end the graph with a softmax")


CUSTOM = Kind(scaled, _custom, nothing_searched)
"""Any estimator."""

ONNX = Kind(as_it_is, _graph, nothing_searched)
"""Any graph."""
