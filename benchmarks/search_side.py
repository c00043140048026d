"""Mulle's side of the search: a project as a user writes it, and the tasks of a run as the loop calls them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.cell import Task, given, leave
from benchmarks.side import Work

__all__ = ["opened", "publish", "search"]

_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
"""As the loop gives them to the process that computes."""

_WARM = ("sklearn.pipeline", "lightgbm", "optuna", *(f"mulle.loop.compute.{n}" for n in ("searching", "evaluating", "bundling")))
"""What that process has imported before it is given a task."""

_SHARE = 0.8
"""Of the time, for the search: the fit on all rows, its proof and the bundle need the rest."""

_FEW_ROWS = 10_000
"""Tables of fewer rows are scored on folds, as the guide says."""

_PROJECT = """
import mulle as ml

table = ml.Dataset("table", ml.Files("table.parquet"), key="row", outcome="{target}")


@ml.features(table)
def columns(rows):
    return rows.select({columns})
"""

_MODEL = """
{variable} = ml.Model(
    "{name}", features=columns, target="{target}", task="{task}", {model}, search=ml.Search({search})
)
"""

RunTask = Callable[..., dict[str, Any]]


def search(folder: Path) -> Work:
    """Do what a run does with published rows: features, search, fit on all rows, compile, prove, bundle."""
    os.environ.update(_THREADS)
    import polars as pl

    task = given(folder)
    rows = pl.read_parquet(folder / "train.parquet")
    settings = _settings(task, rows.height)
    publish(folder, rows, task.target, task.kind, task.seed, {"model": settings})
    run_task = opened(folder, "model")

    def run() -> dict[str, Any]:
        run_task("features")
        found = run_task("search", search_timeout=_SHARE * task.seconds, warm=[])
        return {**found, "bundle": run_task("bundle", settings=found["settings"], metrics={})}

    def keep(found: dict[str, Any], path: Path) -> None:
        leave(folder, path, _predicted(folder, Path(found["bundle"]["address"]), task), settings, _said(found))

    return Work(run=run, keep=keep)


def _settings(task: Task, rows: int) -> dict[str, str]:
    number = task.kind == "regression"
    linear = "ml.ridge(), ml.lasso(), ml.elastic_net()" if number else "ml.logistic(), ml.naive_bayes()"
    others = "ml.lightgbm(), ml.hist_gradient_boosting(), ml.extra_trees(), ml.random_forest(), ml.knn(), ml.svm()"
    folds = "ml.stratified(5)" if rows < _FEW_ROWS else "None"
    limits = f'trials=100_000, timeout="{_SHARE * task.seconds:g}s", parallel={task.cores}'
    return {
        "model": f"split=ml.holdout(0.1), calibrate={not number}",
        "search": f"[{linear}, {others}], {limits}, ensemble=6, validation={folds}",
    }


def publish(folder: Path, rows: Any, target: str, kind: str, seed: int, models: Mapping[str, Mapping[str, str]]) -> None:
    """Write a project and publish its rows as a run would.

    Parameters
    ----------
    folder : Path
    rows : polars.DataFrame
    target : str
    kind : str
        Of task.
    seed : int
    models : mapping
        By name, the source of ``model`` and ``search``: what is declared beyond features, target and task.
    """
    from mulle.bootstrap.parts import wire
    from mulle.core.records.base import to_json
    from mulle.core.settings import Settings
    from mulle.loop.data.ingest import ingest

    source = _PROJECT.format(target=target, columns=[c for c in rows.columns if c != target])
    for number, (name, declared) in enumerate(models.items()):
        source += _MODEL.format(variable=f"m{number}", name=name, target=target, task=kind, **declared)
    code = folder / ".mulle" / "code" / "cell"
    code.mkdir(parents=True)
    for place in (folder, code):
        (place / "project.py").write_text(source)
    rows.with_row_index("row").write_parquet(folder / "table.parquet")
    now, parts = datetime(2026, 1, 1, tzinfo=UTC), wire(Settings(project=folder, seed=seed).resolved())
    version = to_json(ingest(parts, parts.project.datasets["table"], now=now, causes=())[0])
    arguments = {"code": "cell", "seed": seed, "cutoff": to_json(now), "options": {}}
    arguments["versions"] = {"table": {**version, "checks": []}}
    settings = {k: str(v) for k, v in to_json(parts.settings).items()}
    (folder / "published.json").write_text(json.dumps([settings, arguments]))


def opened(folder: Path, model: str, **changed: str) -> RunTask:
    """Give what runs a task of a model's run, as the loop's compute process does, with some settings changed."""
    os.environ.update(_THREADS)
    for name in _WARM:
        import_module(name)
    from mulle.bootstrap.tasks import run_task

    settings, fixed = json.loads((folder / "published.json").read_text())
    settings |= changed
    return lambda name, **arguments: run_task(name, settings, {**fixed, "run": model, "model": model, **arguments})


def _predicted(folder: Path, bundle: Path, task: Task) -> Any:
    import numpy as np
    import polars as pl

    from mulle.kernel.bundle import Predictor
    from mulle.kernel.rows import cast_inputs

    predictor = Predictor.open(bundle)
    asked = pl.read_parquet(folder / "test.parquet").with_row_index("row")
    inputs = [f for f in predictor.contract.inputs if f.name in asked.columns]
    scores = predictor.score(predictor.transform(cast_inputs(asked.select(f.name for f in inputs), inputs)))
    predictor.close()
    if scores.probabilities is None:
        return np.array(scores.values)
    return scores.probabilities[:, [predictor.contract.classes.index(c) for c in task.classes]]


def _said(found: Mapping[str, Any]) -> str:
    chosen, trials = found["settings"], found["trials"]
    members = [f"{m['weight']:.2f} {m['candidate']}" for m in chosen.get("members", ())] or [chosen["candidate"]]
    failed = sum(t["state"] == "failed" for t in trials)
    return f"{len(trials)} trials, {failed} failed; {found['bundle']['compiled']}: {', '.join(members)}"
