"""An imported estimator becomes a graph, held against its own answers on the run's rows; or is kept to be run as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mulle.core.declare.candidates import FILE
from mulle.core.declare.gates import ParityGate
from mulle.core.errors import BundleError, Refused
from mulle.core.hashing import hash_bytes
from mulle.core.records.base import Json
from mulle.kernel.bundle import OUTPUT
from mulle.kernel.graph import open_graph
from mulle.lifecycle.registry.adopt import adopt, in_order
from mulle.lifecycle.registry.compile import compile_foreign
from mulle.lifecycle.registry.foreign import answers_of, classes_told, inner_estimators, input_names, open_foreign
from mulle.lifecycle.registry.native import dump_native
from mulle.loop.compute.fitting import target_of
from mulle.loop.compute.work import Work, read_features

__all__ = ["import_model"]

_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class _Opened:
    """An estimator with its inputs' names, rows for them, and what it said to those."""

    model: Any
    columns: list[str]
    rows: pl.DataFrame
    said: Any


def import_model(work: Work, given: Json) -> Json:
    """Convert an estimator and prove the graph; where that fails, keep it as it is.

    Parameters
    ----------
    work : Work
        Its features must be there: their rows are what is proved on.
    given : dict
        From `loop.imported.fetch_model`.

    Returns
    -------
    dict
        ``settings`` and ``notes``, as a search gives them.

    Raises
    ------
    Refused
        When it neither becomes a graph nor can be written without pickle, or knows other classes than the rows.
    """
    features, target, _ = read_features(work)
    opened = _open(work, given, features)
    order = _order(opened, work, target)
    folder, schema = work.home / "imports", features.columns
    graph = compile_foreign(opened.model, opened.columns, task=work.model.task)
    worst = None if graph is None else _distance(graph, opened, work, target)
    tolerance = next((g for g in work.model.gates if isinstance(g, ParityGate)), ParityGate(1e-4)).tolerance
    if graph is not None and worst is not None and worst <= tolerance:
        path = _write(folder, in_order(graph, order) if order else graph, "onnx")
        path = _write(folder, adopt(path, opened.columns, schema), "onnx")
        note = f"{given['from']} was converted: its graph answers {opened.rows.height} rows within {worst:.2g} of the scale"
        return {"settings": {"candidate": "onnx:imported", "params": {FILE: str(path)}}, "notes": [note]}
    why = "there is no graph for it" if worst is None else f"its graph is {worst:.2g} of the scale off"
    try:
        body = dump_native(opened.model)
    except BundleError as error:
        raise Refused(f"{given['from']} cannot be served: {why}, and {error.detail}", next=error.next) from error
    names = opened.columns if hasattr(opened.model, "feature_names_in_") else []
    params = {
        FILE: str(_write(folder, body, "skops")),
        "places": [schema.index(c) for c in opened.columns],
        "names": names,
        "order": order,
    }
    return {"settings": {"candidate": "kept:imported", "params": params}, "notes": [f"{given['from']} runs as it is: {why}"]}


def _open(work: Work, given: Json, features: pl.DataFrame) -> _Opened:
    model = open_foreign(work.home / given["file"], given["form"], given["kind"], trusted=given["trusted"])
    columns = input_names(model, given["columns"])
    missing = [c for c in columns if c not in features.columns]
    if missing or not columns:
        told = f"takes {', '.join(missing)}, which the feature function does not give" if columns else "does not name its inputs"
        raise Refused(
            f"{given['from']} {told}", next=f"its signature and the feature function must agree: {', '.join(features.columns)}"
        )
    chosen = features.gather_every(max(1, -(-features.height // _ROWS))).select(columns)
    # As the matrix has them: the model saw more digits where it was trained, and shall answer these.
    rows = chosen.select(pl.col(c).cast(pl.Float64).cast(pl.Float32).cast(pl.Float64) for c in columns)
    if hasattr(model, "predict_proba") or hasattr(model, "get_params") or type(model).__name__ == "Booster":
        return _Opened(model, columns, rows, answers_of(model, rows, work.model.task))
    for inner in inner_estimators(model):
        found = answers_of(inner, rows, work.model.task)
        if _same(model, rows, found):
            return _Opened(inner, columns, rows, found)
    raise Refused(
        f"{given['from']} is a {type(model).__name__}, a function of its own",
        next="write what it does as the feature function and ml.custom(...), or log the estimator inside it",
    )


def _same(shell: Any, rows: pl.DataFrame, found: Any) -> bool:
    """Tell whether a shell answers what the estimator inside it does, and nothing else."""
    try:
        said = np.asarray(shell.predict(None, rows.to_pandas()))
        numbers = said.astype(np.float64)
    except Exception:  # it may be any function
        return False
    asked = found[:, 0] if found.shape[1] == 1 else found if numbers.ndim == 2 else found[:, -1]
    return numbers.shape == asked.shape and bool(np.allclose(numbers, asked, rtol=1e-9, atol=1e-9))


def _order(opened: _Opened, work: Work, target: pl.Series) -> list[int]:
    """Give the places of the rows' classes, in alphabetical order, among the model's."""
    if work.model.task == "regression":
        return []
    told = classes_told(opened.model, work.model.task, opened.said.shape[1])
    known = sorted({str(c) for c in target_of(work, target)})
    if sorted(told) != known:
        raise Refused(
            f"the model knows the classes {', '.join(told[:10])}, the rows have {', '.join(known[:10])}",
            next="declare a target whose values are the model's",
        )
    return [told.index(c) for c in known]


def _distance(graph: bytes, opened: _Opened, work: Work, target: pl.Series) -> float:
    scale = float(target.cast(pl.Float64).std() or 1.0) if work.model.task == "regression" else 1.0  # type: ignore[arg-type]
    said = open_graph(graph).run(OUTPUT, np.ascontiguousarray(opened.rows.to_numpy(), dtype=np.float32))
    far = np.abs(said.reshape(opened.said.shape) - opened.said) / scale
    return float(np.where(np.isfinite(far), far, np.inf).max())


def _write(folder: Path, body: bytes, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hash_bytes(body)}.{kind}"
    temporary = path.with_suffix(".new")
    temporary.write_bytes(body)
    temporary.replace(path)
    return path
