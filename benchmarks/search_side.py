"""Mulle's side of the search: a project as a user writes it, and the tasks of a run as the loop calls them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cell import Task, given, leave
from benchmarks.side import Work

__all__ = ["published", "search"]

_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
"""As the loop gives them to the process that computes."""

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


model = ml.Model("model", features=columns, target="{target}", task="{task}", {model}, search=ml.Search({search}))
"""


def search(folder: Path) -> Work:
    """Do what a run does with published rows: features, search, fit on all rows, compile, prove, bundle."""
    import polars as pl

    task = given(folder)
    rows = pl.read_parquet(folder / "train.parquet")
    names = [c for c in rows.columns if c != task.target]
    settings = _settings(task, rows.height)
    run_task = published(folder, rows, task, names, settings)

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
        "search": f"[{linear}, {others}], {limits}, ensemble=20, validation={folds}",
    }


def published(folder: Path, rows: Any, task: Task, names: list[str], declared: Mapping[str, str]) -> Any:
    """Publish the rows as a run would, and give what runs a task of a run, as its compute process does."""
    os.environ.update(_THREADS)
    from mulle.bootstrap import run_task, wire
    from mulle.core.records.base import to_json
    from mulle.core.settings import Settings
    from mulle.loop.ingest import ingest

    now, code = datetime(2026, 1, 1, tzinfo=UTC), folder / ".mulle" / "code" / "cell"
    code.mkdir(parents=True)
    source = _PROJECT.format(target=task.target, columns=names, task=task.kind, **declared)
    for place in (folder, code):
        (place / "project.py").write_text(source)
    rows.with_row_index("row").write_parquet(folder / "table.parquet")
    parts = wire(Settings(project=folder, seed=task.seed).resolved())
    version = ingest(parts, parts.project.datasets["table"], now=now, causes=())[0]
    settings = {k: str(v) for k, v in to_json(parts.settings).items()}
    fixed = {"run": "cell", "model": "model", "code": "cell", "seed": task.seed, "cutoff": to_json(now), "options": {}}
    fixed["versions"] = {"table": {**to_json(version), "checks": []}}
    return lambda name, **arguments: run_task(name, settings, {**fixed, **arguments})


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
