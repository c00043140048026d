"""Stage 4 of a run as compute: fit the winner on the training rows, measure it on the holdout."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.gates import AtLeast, AtMost, CalibrationGate, EachSlice, Fairness, Gate
from mulle.core.declare.metric import Metric
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.evaluation import Evaluation, Measured
from mulle.kernel.answered import Answers, answered
from mulle.kernel.encode import encode
from mulle.kernel.fitted import Estimator, classes_of
from mulle.kernel.metrics import ECE_BINS, losses
from mulle.lifecycle.evaluation.evaluate import by_slice, calibrate, measured
from mulle.lifecycle.evaluation.own import own_metrics
from mulle.lifecycle.evaluation.weak import weak_slices
from mulle.lifecycle.training.fit import latest
from mulle.loop.compute.fitting import Index, begin_refit, fit_on, order_of, said, split, target_of
from mulle.loop.compute.inspecting import Winner, inspect_winner
from mulle.loop.compute.work import HOLDOUT, Work, read_features, read_rows, write_frame

__all__ = ["evaluate_model", "read_evaluation", "read_slices"]

_EVALUATION = "evaluation.json"

_TRAIN_ROWS = 4_000
"""Training rows that are answered for the generalisation gap, evenly spaced."""


def evaluate_model(work: Work, settings: Json, spent: float = 0.0) -> Json:
    """Fit the winner on the training rows and measure it on the holdout.

    Parameters
    ----------
    work : Work
    settings : dict
        The winner's.
    spent : float
        Seconds that the run's trials took; a look at what the answers rest on takes a share of all there was.

    Returns
    -------
    dict
        ``metrics``, ``intervals`` and ``failed`` of the holdout, its ``rows``, ``slices`` (column, value, what was
        measured), ``weak_slices``, ``train`` (what was measured on rows it was fitted on), ``calibrations`` (by bins),
        ``inspection`` (unless the run's options leave it out), ``classes``, ``data_cutoff``. The same is left in the run's
        folder, for people.
    """
    begin_refit(work, settings)
    train, last = split(work)
    features, target, time = read_features(work, train=train)
    truth, task = target_of(work, target), work.model.task
    began = clock.thread_time()
    fitted, specs = fit_on(work, settings, features, truth, time, train)
    seconds = clock.thread_time() - began
    classes = classes_of(fitted, task)
    values, shares = said(fitted, encode(features[last], specs), task, classes)
    kept = pl.DataFrame({"row": last, "truth": truth[last], "value": values})
    kept = kept if shares is None else kept.hstack([pl.Series(f"share.{c}", shares[:, i]) for i, c in enumerate(classes)])
    write_frame(kept, work.folder / HOLDOUT)
    rows = read_rows(work).drop(work.hidden_columns)
    answers = answered(task, truth[last], values, shares, classes)
    order = order_of(time)
    fitted_on = train[latest(None if order is None else order[train], settings.get("train_on", "all"))]
    winner = Winner(fitted, specs, settings, features, truth, time, fitted_on, last, seconds)
    cutoff = time[train].max() if not time.null_count() else work.cutoff
    found = {
        **_figures(work, answers, rows[last], features[last]),
        "train": to_json(_on_train(work, fitted, specs, features, truth, rows, fitted_on)),
    }
    # The fit on all rows, beside this, takes about as long as this one did.
    spent += clock.thread_time() - began + seconds
    found |= {
        "inspection": to_json(inspect_winner(work, winner, spent=spent)),
        "classes": list(classes),
        "data_cutoff": to_json(cutoff),
    }
    temporary = work.folder / f"{_EVALUATION}.new"
    temporary.write_text(json.dumps(found))
    temporary.replace(work.folder / _EVALUATION)
    return found


def read_evaluation(work: Work) -> Evaluation | None:
    """Read back what `evaluate_model` measured, for the card; None when the run's folder was cleared."""
    path = work.folder / _EVALUATION
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    return replace(from_json(Evaluation, found), slices=read_slices(found))


def read_slices(evaluation: Json) -> dict[str, dict[str, Measured]]:
    """Read the slices of what `evaluate_model` gave: column to value to what was measured."""
    return {
        column: {value: from_json(Measured, found) for value, found in values.items()}
        for column, values in evaluation["slices"].items()
    }


def _figures(work: Work, answers: Answers, rows: pl.DataFrame, features: pl.DataFrame) -> Json:
    gates, seed = work.model.gates, work.seed
    own = own_metrics(gates)
    whole = measured(answers, rows=rows, own=own.values(), seed=seed)
    bins = {ECE_BINS, *(g.bins for g in gates if isinstance(g, CalibrationGate))}
    task, shares = work.model.task, answers.probabilities
    lost = losses(task, answers.truth, answers.values, shares, answers.classes)
    # A key names single rows; a feature that bears a raw column's name is shown as the raw column.
    seen = rows.drop(work.model.features.dataset.key, strict=False)
    seen = seen.hstack([c for c in features.get_columns() if c.name not in rows.columns])
    return {
        "metrics": dict(whole.metrics),
        "intervals": to_json(whole.intervals),
        "failed": dict(whole.failed),
        "rows": whole.rows,
        "slices": to_json(_slices(gates, own, answers, rows, seed)),
        "weak_slices": to_json(weak_slices(seen, lost, metric=work.model.metric)),
        "calibrations": {str(n): to_json(found) for n in sorted(bins) if (found := calibrate(answers, bins=n))},
    }


def _slices(
    gates: Sequence[Gate], own: Mapping[str, Metric], answers: Answers, rows: pl.DataFrame, seed: int
) -> dict[str, dict[str, Measured]]:
    asked: dict[str, set[str]] = {}
    for gate in gates:
        if isinstance(gate, (EachSlice, Fairness)) and gate.column in rows.columns:
            inner: AtMost | AtLeast | Fairness = gate.gate if isinstance(gate, EachSlice) else gate
            asked.setdefault(gate.column, set()).add(inner.metric)
    return {
        column: by_slice(
            rows[column], answers, rows=rows, own=[own[n] for n in sorted(names & own.keys())], sure_of=names, seed=seed
        )
        for column, names in sorted(asked.items())
    }


def _on_train(
    work: Work,
    fitted: Estimator,
    specs: tuple[FeatureSpec, ...],
    features: pl.DataFrame,
    truth: npt.NDArray[Any],
    rows: pl.DataFrame,
    train: Index,
) -> Measured:
    chosen = train[np.linspace(0, len(train) - 1, min(len(train), _TRAIN_ROWS)).astype(np.int64)]
    task = work.model.task
    classes = classes_of(fitted, task)
    values, shares = said(fitted, encode(features[chosen], specs), task, classes)
    answers = answered(task, truth[chosen], values, shares, classes)
    return measured(answers, rows=rows[chosen], own=own_metrics(work.model.gates).values(), sure_of=())
