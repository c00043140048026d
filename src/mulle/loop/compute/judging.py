"""The gates of a run as compute: the comparison with the champion, and every verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.gates import NoWorseThanChampion
from mulle.core.errors import DataError
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.evaluation import Calibration, Failures, Measured, Service, WeakSlice
from mulle.core.records.model import ModelVersion, Parity
from mulle.kernel.bundle import Predictor
from mulle.kernel.metrics import metrics_for
from mulle.lifecycle.evaluation.compare import Comparison, Side, compare
from mulle.lifecycle.evaluation.evidence import Evidence
from mulle.lifecycle.evaluation.gates import accepted, judge
from mulle.lifecycle.evaluation.own import own_metrics
from mulle.loop.compute.evaluating import read_slices
from mulle.loop.compute.unseen import logged_pairs, unseen
from mulle.loop.compute.work import HOLDOUT, Work, features_hash, joined_with, read_rows

__all__ = ["judge_model"]


def judge_model(work: Work, champion: Json | None, evaluation: Json, bundle: Json, replay: bool) -> Json:
    """Compare with the champion on rows that neither has seen (of the holdout, else of its log), and judge every gate.

    Returns
    -------
    dict
        ``gates`` and ``accepted``.
    """
    failed: dict[str, str] = dict(evaluation["failed"])
    comparisons = [] if champion is None else _compared(work, from_json(ModelVersion, champion), evaluation, bundle, failed)
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


@dataclass(frozen=True, slots=True)
class _Rows:
    """What both sides answered; `of` names the rows in verdicts."""

    raw: pl.DataFrame
    truth: npt.NDArray[np.generic]
    champion: Side
    challenger: Side
    of: str


def _compared(work: Work, champion: ModelVersion, evaluation: Json, bundle: Json, failed: dict[str, str]) -> list[Comparison]:
    asked = [g for g in work.model.gates if isinstance(g, NoWorseThanChampion)]
    wanted = max((g.min_rows for g in asked), default=1)
    rows = _answered(work, champion, evaluation, bundle, wanted)
    if isinstance(rows, str):
        failed |= dict.fromkeys((g.metric for g in asked), rows)
        return []
    own, found = own_metrics(work.model.gates), []
    for metric in dict.fromkeys([work.model.metric, *(g.metric for g in asked)]):
        if metric not in own and metric not in metrics_for(work.model.task):
            failed[metric] = f"{metric} does not fit the task {work.model.task}"
            continue
        sides = (rows.champion, rows.challenger)
        try:
            made = compare(work.model.task, metric, rows.truth, *sides, seed=work.seed, own=own.get(metric), rows=rows.raw)
        except DataError as error:
            failed[metric] = error.detail
        else:
            found.append(replace(made, of=rows.of))
    return found


def _answered(work: Work, champion: ModelVersion, evaluation: Json, bundle: Json, wanted: int) -> _Rows | str:
    """Choose what the two are compared on: the holdout's unseen rows, where too few the champion's log; or say why on nothing."""
    kept = pl.read_parquet(work.folder / HOLDOUT)
    rows = read_rows(work)[kept["row"].to_numpy()]
    fresh = unseen(work, champion, rows)
    predictor = Predictor.open(Path(champion.address), expected=champion.bundle)
    counted = ""
    if fresh.sum() < wanted:
        log = logged_pairs(work, champion, predictor, Predictor.open(Path(bundle["address"]), expected=bundle["hash"]))
        if log is not None and len(log.truth) >= wanted:
            return _Rows(log.rows, log.truth, log.champion, log.challenger, "of the champion's logged predictions")
        counted = "" if log is None else f" and {len(log.truth)} of the champion's logged predictions with a label"
    if not fresh.any():
        return f"the champion has seen all {rows.height} rows of the holdout" + counted.replace(" and ", ", and there are ", 1)
    rows, kept = rows.filter(fresh), kept.filter(fresh)
    classes = tuple(evaluation["classes"])
    shares = kept.select(f"share.{c}" for c in classes).to_numpy() if classes else None
    return _Rows(
        rows.drop(work.hidden_columns),
        kept["truth"].to_numpy(),
        _champion_side(work, predictor, rows),
        Side(kept["value"].to_numpy(), shares, classes),
        f"rows that neither has seen{counted}",
    )


def _champion_side(work: Work, predictor: Predictor, rows: pl.DataFrame) -> Side:
    if predictor.contract.transform["hash"] != features_hash(work.model):
        rows = joined_with(work, predictor.features, rows)
    said = predictor.score(predictor.transform(rows.drop(work.hidden_columns)))
    return Side(np.asarray(said.values), said.probabilities, predictor.contract.classes)
