"""The gates of a run as compute: the comparison with the champion, and every verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from mulle.core.declare.gates import NoWorseThanChampion
from mulle.core.errors import DataError
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.evaluation import Calibration, Failures, Measured, Service, WeakSlice
from mulle.core.records.model import ModelVersion, Parity
from mulle.kernel.bookkeeping import VERSION
from mulle.kernel.bundle import Predictor
from mulle.kernel.metrics import metrics_for
from mulle.kernel.rows import cast_inputs, raw_inputs
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.evaluation.compare import Comparison, Side, compare
from mulle.lifecycle.evaluation.evidence import Evidence
from mulle.lifecycle.evaluation.gates import accepted, judge
from mulle.lifecycle.evaluation.own import own_metrics
from mulle.loop.compute.evaluating import read_slices
from mulle.loop.compute.work import HOLDOUT, SINCE, TIME, Work, features_hash, joined_with, read_rows

__all__ = ["judge_model"]


def judge_model(work: Work, champion: Json | None, evaluation: Json, bundle: Json, replay: bool) -> Json:
    """Compare with the champion on rows that neither has seen, and judge every gate.

    Returns
    -------
    dict
        ``gates`` and ``accepted``.
    """
    failed: dict[str, str] = dict(evaluation["failed"])
    comparisons = [] if champion is None else _compared(work, from_json(ModelVersion, champion), evaluation, failed)
    main = next((c for c in comparisons if c.metric == work.model.metric), comparisons[0] if comparisons else None)
    hostile = bundle["bad_input"]
    evidence = Evidence(
        metrics=evaluation["metrics"],
        rows=evaluation["rows"],
        intervals=evaluation["intervals"],
        failed=failed,
        slices=read_slices(evaluation),
        weak_slices=tuple(from_json(WeakSlice, found) for found in evaluation["weak_slices"]),
        train=from_json(Measured, evaluation["train"]),
        calibrations={int(bins): from_json(Calibration, found) for bins, found in evaluation["calibrations"].items()},
        parity=None if bundle["parity"] is None else from_json(Parity, bundle["parity"]),
        service=from_json(Service, bundle["service"]),
        bad_input=None if hostile is None else from_json(Failures, hostile),
        has_champion=champion is not None,
        comparison=main,
        further=tuple(c for c in comparisons if c is not main),
    )
    results = judge(work.model.gates, evidence, replay=replay)
    return {"gates": to_json(results), "accepted": accepted(results)}


def _compared(work: Work, champion: ModelVersion, evaluation: Json, failed: dict[str, str]) -> list[Comparison]:
    kept = pl.read_parquet(work.folder / HOLDOUT)
    rows = read_rows(work)[kept["row"].to_numpy()]
    unseen, asked = _unseen(work, champion, rows), [g.metric for g in work.model.gates if isinstance(g, NoWorseThanChampion)]
    if not unseen.any():
        failed |= dict.fromkeys(asked, f"the champion has seen all {rows.height} rows of the holdout")
        return []
    rows, kept = rows.filter(unseen), kept.filter(unseen)
    classes = tuple(evaluation["classes"])
    shares = kept.select(f"share.{c}" for c in classes).to_numpy() if classes else None
    before, after = _champion_side(work, champion, rows), Side(kept["value"].to_numpy(), shares, classes)
    own, raw, found = own_metrics(work.model.gates), rows.drop(work.hidden_columns), []
    truth = kept["truth"].to_numpy()
    for metric in dict.fromkeys([work.model.metric, *asked]):
        if metric not in own and metric not in metrics_for(work.model.task):
            failed[metric] = f"{metric} does not fit the task {work.model.task}"
            continue
        try:
            found.append(compare(work.model.task, metric, truth, before, after, seed=work.seed, own=own.get(metric), rows=raw))
        except DataError as error:
            failed[metric] = error.detail
    return found


def _unseen(work: Work, champion: ModelVersion, rows: pl.DataFrame) -> pl.Series:
    """Tell which of the holdout's rows the champion was not fitted on: it was refitted on all rows there were."""
    if not rows[TIME].null_count():
        return rows[TIME] > champion.refit_cutoff
    dataset = work.model.features.dataset
    if work.member:
        return rows[SINCE] > champion.data.get(dataset.name, 0)
    version = work.versions[dataset.name]
    inputs = raw_inputs(version.schema, hidden=work.model.hidden, key=dataset.key, time=dataset.time)
    told_by = [f.name for f in inputs if f.name in dataset.key or not dataset.key]
    before = read_version(work.lake, dataset, version, superseded=True)
    seen = before.filter(pl.col(VERSION) <= champion.data.get(dataset.name, 0)).select(told_by).collect()
    marked = cast_inputs(seen, inputs).unique().with_columns(pl.lit(True).alias("_seen"))
    found = rows.select(told_by).join(marked, on=told_by, how="left", nulls_equal=True, maintain_order="left")
    return found["_seen"].is_null()


def _champion_side(work: Work, champion: ModelVersion, rows: pl.DataFrame) -> Side:
    predictor = Predictor.open(Path(champion.address), expected=champion.bundle)
    if predictor.contract.transform["hash"] != features_hash(work.model):
        rows = joined_with(work, predictor.features, rows)
    said = predictor.score(predictor.transform(rows.drop(work.hidden_columns)))
    return Side(np.asarray(said.values), said.probabilities, predictor.contract.classes)
