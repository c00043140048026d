"""Records in MLflow's words: figures, parameters, tags and dataset inputs, written in batches."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mulle.core.declare.candidates import Candidate
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.run import GateResult, Run, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

__all__ = [
    "Figure",
    "dataset_input",
    "gate_tags",
    "log_figures",
    "run_params",
    "trial_figures",
    "trial_params",
    "trial_tags",
    "write_pages",
]

_AT_ONCE = 100
"""MLflow takes 100 parameters, 100 tags and 1,000 metrics in one batch."""

_DIGEST = 36
"""Characters of a dataset's digest that MLflow keeps."""

_TYPES = {"String": "string", "Boolean": "boolean", "Float32": "float", "Float64": "double", "Int32": "integer", "Int64": "long"}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<script src="https://cdn.plot.ly/plotly-4.1.1.min.js" charset="utf-8"></script></head><body>{body}
<script>for (const [id, f] of Object.entries({figures})) Plotly.newPlot(id, f.data, f.layout)</script>
</body></html>
"""


class Figure(NamedTuple):
    """One number; those of one name make a curve over their steps."""

    name: str
    value: float
    step: int = 0


def run_params(run: Run) -> dict[str, object]:
    """Give what a run was started with."""
    return {"cutoff": run.cutoff.isoformat(), "code": run.code, "git": run.git or "", "seed": run.seed} | {
        f"option.{name}": value for name, value in run.options.items()
    }


def gate_tags(gates: Sequence[GateResult]) -> dict[str, str]:
    """Give each gate's verdict with its reason."""
    return {f"mulle.gate.{gate.gate}": f"{gate.verdict}: {gate.reason}" for gate in gates}


def trial_tags(trial: Trial) -> dict[str, str]:
    """Give a trial's candidate and state and, where it ended early, the kind of failure and the reason."""
    words = {"candidate": trial.candidate, "state": trial.state, "failure": trial.failure, "reason": trial.reason}
    return {f"mulle.{name}": str(word)[:5000] for name, word in words.items() if word}


def trial_params(trial: Trial) -> dict[str, object]:
    """Give a trial's settings."""
    past = {} if trial.train_on == "all" else {"train_on": trial.train_on}
    return {"candidate": trial.candidate, **Candidate(kind=trial.candidate, params=trial.params).chosen, **past}


def trial_figures(trial: Trial) -> list[Figure]:
    """Give a trial's score and seconds, and as curves its score on each fold and on each share of the rows."""
    scored = [] if trial.score is None else [Figure("score", trial.score)]
    folds = [Figure("fold_score", score, step) for step, score in enumerate(trial.folds)]
    rungs = [Figure("rung_score", score, step) for step, score in enumerate(trial.rungs) if score is not None]
    return [Figure("seconds", trial.seconds), *scored, *folds, *rungs]


def dataset_input(version: DatasetVersion) -> DatasetInput:
    """Give a dataset version as an input in MLflow's sense; its source names the table in the lake."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    columns = [{"name": name, "type": _TYPES.get(dtype, dtype)} for name, dtype in version.schema.items()]
    source = {name: getattr(version, name) for name in ("dataset", "version", "table", "lake_version")}
    dataset = Dataset(
        name=f"{version.dataset}@{version.version}",
        digest=version.hash[:_DIGEST],
        source_type="mulle",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": version.rows}),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", "training")])


def log_figures(
    client: MlflowClient,
    run_id: str,
    at: int,
    figures: Sequence[Figure],
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> None:
    """Write to a run in as few batches as MLflow allows.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
    at : int
        Milliseconds since the epoch. A metric is known by name, time, step and value: the same time each time makes a
        repeat the same metric.
    figures, params, tags
        What is written; figures that are no finite number are left out, long texts are cut to what MLflow takes.
    """
    from mlflow.entities import Metric, Param, RunTag

    values = [Metric(_allowed(f.name), float(f.value), at, f.step) for f in figures if math.isfinite(f.value)]
    settings = [Param(_allowed(name), str(value)[:6000]) for name, value in params.items()]
    words = [RunTag(_allowed(name), value[:5000]) for name, value in tags.items()]
    for start in range(0, max(len(values), len(settings), len(words)), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        client.log_batch(run_id, metrics=values[part], params=settings[part], tags=words[part])


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]


def write_pages(folder: Path, pages: Mapping[str, Mapping[str, Json]]) -> None:
    """Write figures as MLflow writes Plotly's: one HTML file a page, its figures inside, plotly.js from where Plotly keeps it.

    The library inside each page would be five megabytes a run; ``mulle runs show RUN --page FILE`` writes that one.
    """
    for name, figures in pages.items():
        drawn = json.dumps(figures).replace("</", "<\\/")
        body = "".join(f'<div id="{escape(figure)}"></div>' for figure in figures)
        page = _PAGE.format(title=escape(name), body=body, figures=drawn)
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
