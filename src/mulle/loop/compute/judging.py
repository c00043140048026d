"""The gates of a run as compute: the comparison with the champion, and every verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from mulle.core.declare.gates import NoWorseThanChampion
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.model import ModelVersion, Parity
from mulle.kernel.bundle import Predictor
from mulle.lifecycle.evaluation.compare import Comparison, Side, compare
from mulle.lifecycle.evaluation.gates import Evidence, accepted, judge
from mulle.loop.compute.work import HOLDOUT, TIME, Work, features_hash, joined_with, read_rows

__all__ = ["judge_model"]


def judge_model(work: Work, champion: Json | None, evaluation: Json, bundle: Json, replay: bool) -> Json:
    """Compare with the champion on rows that neither has seen, and judge every gate.

    Returns
    -------
    dict
        ``gates`` and ``accepted``.
    """
    comparisons = [] if champion is None else _compared(work, from_json(ModelVersion, champion), evaluation)
    main = next((c for c in comparisons if c.metric == work.model.metric), comparisons[0] if comparisons else None)
    slices = {
        column: {value: (int(found[0]), found[1]) for value, found in values.items()}
        for column, values in evaluation["slices"].items()
    }
    evidence = Evidence(
        metrics=evaluation["metrics"],
        rows=evaluation["rows"],
        slices=slices,
        parity=None if bundle["parity"] is None else from_json(Parity, bundle["parity"]),
        p99_seconds=bundle["p99_seconds"],
        has_champion=champion is not None,
        comparison=main,
        further=tuple(c for c in comparisons if c is not main),
    )
    results = judge(work.model.gates, evidence, replay=replay)
    return {"gates": to_json(results), "accepted": accepted(results)}


def _compared(work: Work, champion: ModelVersion, evaluation: Json) -> list[Comparison]:
    kept = pl.read_parquet(work.folder / HOLDOUT)
    rows = read_rows(work)[kept["row"].to_numpy()]
    if not rows[TIME].null_count():
        unseen = (rows[TIME] > champion.refit_cutoff).to_numpy()
        rows, kept = rows.filter(unseen), kept.filter(unseen)
    if not rows.height:
        return []
    predictor = Predictor.open(Path(champion.address), expected=champion.bundle)
    if predictor.contract.transform["hash"] != features_hash(work.model):
        rows = joined_with(work, predictor.features, rows)
    said = predictor.score(predictor.transform(rows.drop(work.hidden_columns)))
    truth = kept["truth"].to_numpy()
    before = Side(np.asarray(said.values), said.probabilities, predictor.contract.classes)
    classes = tuple(evaluation["classes"])
    shares = kept.select(f"share.{c}" for c in classes).to_numpy() if classes else None
    after = Side(kept["value"].to_numpy(), shares, classes)
    metrics = dict.fromkeys([work.model.metric, *(g.metric for g in work.model.gates if isinstance(g, NoWorseThanChampion))])
    return [compare(work.model.task, metric, truth, before, after, seed=work.seed) for metric in metrics]
