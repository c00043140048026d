"""The account of a replay, recomputed from lake and database alone: nothing here is remembered from the run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from mulle.core.declare.model import Model
from mulle.core.records.base import Json, to_json
from mulle.core.records.prediction import ASIDE
from mulle.core.records.run import run_state
from mulle.core.records.window import alert_closed_at, alert_state
from mulle.kernel.bundle import Predictor
from mulle.kernel.metrics import losses
from mulle.lifecycle.monitoring.decode import decode_features
from mulle.lifecycle.monitoring.outcomes import with_outcomes
from mulle.loop.operate import version_of
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import labels_between, predictions_between

__all__ = ["scored_rows", "summarise"]


def summarise(
    parts: Parts, model: Model, *, frozen: int, start: datetime, end: datetime, score_from: datetime | None = None
) -> Json:
    """Give the account of a model's history between two instants.

    Parameters
    ----------
    frozen : int
        The first version: what would have answered had nothing been retrained. It is scored on the same logged
        features.
    score_from : datetime, optional
        The headline scores cover rows from here.

    Returns
    -------
    dict
        ``rows``, ``labelled``, ``never``, ``promotions``, ``held_back``, ``{metric}_frozen``, ``{metric}_mulle``,
        ``improvement`` (share, 0 to 1), ``by_month``, ``by_day``, ``policies``, ``runs``, ``alerts``, ``deployments``.
    """
    rows = scored_rows(parts, model, frozen=frozen, start=start, end=end)
    metric = model.metric
    chosen = rows.filter(pl.col("labelled"), pl.col("time") >= (score_from or start))
    before, after = _mean(chosen, "frozen_loss"), _mean(chosen, "loss")
    runs, deployments = _runs(parts, model), _deployments(parts, model)
    # The first deployment is where the replay begins; one without a canary takes all traffic at once.
    promotions = [d for d in deployments[1:] if d["action"] in ("promote", "deploy") and d["by"] == "loop"]
    held_back = _held_back(parts, runs, deployments)
    alerts = _alerts(parts, model)
    counts = {"retrainings": len(runs) - 1, "promotions": len(promotions), "held_back": len(held_back), "alerts": len(alerts)}
    policies = {"frozen": {"score": before, **dict.fromkeys(counts, 0)}, "declared": {"score": after, **counts}}
    return {
        "model": model.name,
        "metric": metric,
        "from": to_json(start),
        "to": to_json(end),
        "score_from": to_json(score_from or start),
        "rows": rows.height,
        "labelled": int(rows["labelled"].sum()) if rows.height else 0,
        "never": int(rows["never"].sum()) if rows.height else 0,
        "promotions": len(promotions),
        "held_back": held_back,
        f"{metric}_frozen": before,
        f"{metric}_mulle": after,
        "improvement": None if not before or after is None else 1 - after / before,
        "by_month": _by_month(rows),
        "by_day": _by_day(rows),
        "policies": policies,
        "runs": runs,
        "alerts": alerts,
        "deployments": deployments,
    }


def scored_rows(parts: Parts, model: Model, *, frozen: int, start: datetime, end: datetime) -> pl.DataFrame:
    """Return every answered row with its outcome, its loss and the frozen version's loss.

    Returns
    -------
    DataFrame
        ``id``, ``time``, ``version``, ``value``, ``truth``, ``labelled``, ``never``, ``loss``, ``frozen``,
        ``frozen_loss``; in time order.
    """
    fleet = model.each is not None
    logged = predictions_between(parts.lake, model.name, start, end, members=fleet)
    if logged.is_empty():
        names = ("time", "labelled", "never", "loss", "frozen_loss")
        kinds = (pl.Datetime("us", "UTC"), pl.Boolean(), pl.Boolean(), pl.Float64(), pl.Float64())
        return pl.DataFrame(schema=dict(zip(names, kinds, strict=True)))
    answered = logged.filter(~pl.col("route").is_in(ASIDE)).sort("time", "id")
    labels = labels_between(parts.lake, model.name, start, end + timedelta(days=3650), members=fleet)
    joined = with_outcomes(answered, labels, end + timedelta(days=3650))
    record = version_of(parts, model.name, frozen)
    predictor = Predictor.open(Path(record.address), expected=record.bundle)
    said = predictor.score(decode_features(joined["features"], predictor.contract.features))
    joined = joined.with_columns(pl.Series("frozen", [str(v) for v in said.values]))
    known = joined["labelled"].to_numpy()
    for name, column in (("loss", "value"), ("frozen_loss", "frozen")):
        # A fleet's first members would have answered too, and the shared model alone says nothing of them.
        told = None if fleet and column == "frozen" else _losses(joined, column, model, predictor, known, said.probabilities)
        joined = joined.with_columns(pl.Series(name, told or [None] * joined.height, dtype=pl.Float64))
    kept = ["id", "time", "version", "value", "truth", "labelled", "never", "loss", "frozen", "frozen_loss"]
    return joined.select(kept)


def _losses(
    rows: pl.DataFrame,
    column: str,
    model: Model,
    predictor: Predictor,
    known: np.ndarray,
    shares: np.ndarray | None,
) -> list[float | None]:
    found: list[float | None] = [None] * rows.height
    labelled = rows.filter(known)
    if model.task == "regression":
        truth, values = (labelled[c].cast(pl.Float64).to_numpy() for c in ("truth", column))
        measured = losses(model.task, truth, values, None, ())
    else:
        truth = labelled["truth"].to_numpy()
        chosen = shares[known] if column == "frozen" and shares is not None else _logged_shares(labelled, predictor)
        measured = losses(model.task, truth, labelled[column].to_numpy(), chosen, predictor.contract.classes)
    for row, loss in zip(np.flatnonzero(known), measured, strict=True):
        found[row] = float(loss)
    return found


def _logged_shares(rows: pl.DataFrame, predictor: Predictor) -> np.ndarray:
    import orjson

    decoded = [orjson.loads(t) if t else {} for t in rows["probabilities"].to_list()]
    return np.array([[d.get(c, 0.0) for c in predictor.contract.classes] for d in decoded])


def _by_month(rows: pl.DataFrame) -> list[Json]:
    return [] if rows.is_empty() else _scores(rows, "month", "%Y-%m").to_dicts()


def _by_day(rows: pl.DataFrame) -> list[Json]:
    """Give each day's scores and how many rows each version answered."""
    if rows.is_empty():
        return []
    day = pl.col("time").dt.strftime("%Y-%m-%d").alias("day")
    answered: dict[str, Json] = {}
    for at, version, count in rows.group_by(day, "version").len().sort("day", "version").rows():
        answered.setdefault(at, {})[str(version)] = count
    return [{**scores, "versions": answered[scores["day"]]} for scores in _scores(rows, "day", "%Y-%m-%d").to_dicts()]


def _scores(rows: pl.DataFrame, name: str, form: str) -> pl.DataFrame:
    return (
        rows.filter("labelled")
        .group_by(pl.col("time").dt.strftime(form).alias(name))
        .agg(pl.len().alias("rows"), pl.col("frozen_loss").mean().alias("frozen"), pl.col("loss").mean().alias("mulle"))
        .sort(name)
    )


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    value = rows[column].mean() if rows.height else None
    return None if value is None else float(value)  # type: ignore[arg-type]


def _runs(parts: Parts, model: Model) -> list[Json]:
    found = []
    for run in reversed(parts.metadata.runs.list(model.name, limit=10_000)):
        events = parts.metadata.runs.events(run.id)
        version = parts.metadata.models.of_run(run.id)
        found.append(
            {
                "id": run.id,
                "created_at": to_json(run.created_at),
                "causes": to_json(run.causes),
                "state": run_state(events),
                "reason": "; ".join(str(e.detail["reason"]) for e in events if e.detail.get("reason")),
                "options": run.options,
                "model_version": version.version if version else None,
                "seconds": round(sum(e.seconds for e in events), 2),
                "gates": to_json(parts.metadata.runs.gates(run.id)),
            }
        )
    return found


def _deployments(parts: Parts, model: Model) -> list[Json]:
    return [to_json(d) for d in parts.metadata.deployments.of(model.name)]


def _alerts(parts: Parts, model: Model) -> list[Json]:
    found = []
    for alert in reversed(parts.metadata.alerts.list(model.name, limit=10_000)):
        events = parts.metadata.alerts.events(alert.id)
        found.append({**to_json(alert), "state": alert_state(events), "closed_at": to_json(alert_closed_at(events))})
    return found


def _held_back(parts: Parts, runs: Sequence[Json], deployments: Sequence[Json]) -> list[Json]:
    found = [
        {
            "what": "batch",
            "id": batch.id,
            "at": to_json(batch.created_at),
            "by": [c.name for c in batch.checks if c.verdict == "fail"],
            "why": "; ".join(c.why for c in batch.causes),
        }
        for batch in parts.metadata.datasets.quarantines(limit=1000)
    ]
    found += [
        {
            "what": "challenger",
            "id": run["id"],
            "at": run["created_at"],
            "by": [g["gate"] for g in run["gates"] if g["verdict"] in ("fail", "not_enough_evidence")],
            "why": "; ".join(c["why"] for c in run["causes"]),
        }
        for run in runs
        if run["state"] == "rejected"
    ]
    found += [
        {
            "what": "canary",
            "id": d["id"],
            "at": d["created_at"],
            "by": ["canary"],
            "why": "; ".join(c["why"] for c in d["causes"]),
        }
        for d in deployments
        if d["action"] == "hold_back"
    ]
    return sorted(found, key=lambda h: str(h["at"]))
