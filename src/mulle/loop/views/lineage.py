"""Why a prediction is what it is: its whole chain, from features and route back to run and data, on to label and alerts."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from mulle.core.clock import EPOCH, instant, rfc3339
from mulle.core.declare.fleet import fleet_of
from mulle.core.errors import MulleError, NotFound
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.bundle import Contract
from mulle.core.records.deployment import current
from mulle.core.records.model import ModelVersion
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.window import Window
from mulle.kernel.encode import encode
from mulle.kernel.project import load_features
from mulle.kernel.reads import columns_read
from mulle.kernel.worker import Worker
from mulle.lifecycle.monitoring.decode import decode_features
from mulle.lifecycle.serving.explain import explained_members
from mulle.lifecycle.serving.log import log_folder
from mulle.lifecycle.serving.undrained import undrained
from mulle.loop.data.predictions import logged_rows
from mulle.loop.monitoring.windows import window_view
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import rows_of
from mulle.loop.views.chain import alert_view, deployment_view, run_view, version_view

__all__ = ["explain_view"]

_JSON = ("key", "row", "features", "probabilities", "freshness", "unseen")


def explain_view(parts: Parts, prediction_id: str, *, contributions: bool = False) -> Json:
    """Give a prediction with everything before and after it in the chain.

    Parameters
    ----------
    contributions : bool
        Also tell what each feature did to the answer (slow: a child process reads the bundle).

    Returns
    -------
    dict
        ``prediction``, ``features`` (value, source, tick, freshness by name), ``route``, ``label``, ``window``,
        ``alerts``, ``run``, ``model_version`` and ``data``; with `contributions` those, ``base``, ``explains`` and ``by``.

    Raises
    ------
    NotFound
        When neither the lake nor the log of this home has such a prediction.
    """
    prediction = _prediction(parts, prediction_id)
    model, time = prediction["model"], instant(prediction["time"])
    number = prediction["version"]  # of a refusal None
    version = parts.metadata.models.get(model, number) if number is not None else None
    window = _window(parts, model, time) or _window(parts, fleet_of(model), time)
    return {
        "id": prediction_id,
        **(_explained(prediction, version) if contributions else {}),
        "created_at": prediction["created_at"],
        "causes": [{"type": "model_version", "id": f"{model}@{number}", "why": "it answered the request"}] if number else [],
        "prediction": prediction,
        "features": _features(prediction, version),
        "route": _route(parts, prediction),
        "label": _label(parts, prediction),
        "window": window_view(window) if window else None,
        "alerts": _alerts(parts, window),
        "run": run_view(parts, version.run) if version and parts.metadata.runs.get(version.run) else None,
        "model_version": to_json(version) if version else None,
        "data": _data(parts, version),
    }


def _decoded(row: Json) -> Json:
    decoded = to_json(row)
    for name in _JSON:
        if isinstance(decoded.get(name), str):
            decoded[name] = json.loads(decoded[name])
    return dict(decoded)


def _prediction(parts: Parts, prediction_id: str) -> Json:
    missing = NotFound(
        f"no prediction '{prediction_id}' in the lake or in this home's log",
        next="check the id; a model that declares ml.Log(sample=...) logs only some of its answers",
        prediction=prediction_id,
    )
    mine = pl.col("id") == prediction_id
    try:
        rows = parts.lake.scan(PREDICTIONS).filter(mine).head(1).collect()
    except NotFound:
        rows = pl.DataFrame()
    if rows.is_empty():
        # Given a moment ago: still in the log.
        rows = undrained(log_folder(parts.settings.home), parts.lake, PREDICTIONS).filter(mine)
    if rows.is_empty():
        raise missing
    row = _decoded(rows.to_dicts()[0])
    return _with_value(row, numeric=not row.get("probabilities"))


def _with_value(row: Json, *, numeric: bool) -> Json:
    # The log keeps numbers and classes in one text column; only the numbers of a regression are numbers.
    if numeric and isinstance(row.get("value"), str):
        with contextlib.suppress(ValueError):
            row["value"] = float(row["value"])
    return row


def _features(prediction: Json, version: ModelVersion | None) -> Json:
    contract = _contract(version)
    columns = _columns(contract, version) if contract and version else {}
    every = {j.name: timedelta(microseconds=j.every_us) for j in contract.joins if j.every_us} if contract else {}
    time, freshness, found = instant(prediction["time"]), prediction.get("freshness") or {}, {}
    for name, value in (prediction.get("features") or {}).items():
        used = columns.get(name, [])
        joins = [c.split(".", 1)[0] for c in used if "." in c]
        join = joins[0] if joins else None
        ticks = every.get(join) if join else None
        found[name] = {
            "value": value,
            "source": join or ("request" if used else "unknown"),
            "columns": used,
            "tick": rfc3339(EPOCH + (time - EPOCH) // ticks * ticks) if ticks else None,
            "freshness": freshness.get(join) if join else None,
            "unseen": name in (prediction.get("unseen") or ()),
        }
    return found


def _explained(prediction: Json, version: ModelVersion | None) -> Json:
    contract = _contract(version)
    if contract is None or version is None or prediction["route"] == "refused":
        return {"contributions": None, "base": None}
    features = decode_features(pl.Series([json.dumps(prediction.get("features") or {})]), contract.features)
    worker = Worker()
    try:
        told = worker.call("explain", Path(version.address), encode(features, contract.features))
    finally:
        worker.close()
    return dict(explained_members(*told)[0])


def _contract(version: ModelVersion | None) -> Contract | None:
    path = Path(version.address) / "bundle.json" if version else None
    if path is None or not path.is_file():
        return None
    return from_json(Contract, json.loads(path.read_text()))


def _columns(contract: Contract, version: ModelVersion) -> dict[str, list[str]]:
    schema: dict[str, str] = {f.name: f.dtype for f in contract.inputs}
    schema |= {f"{join.name}.{column}": dtype for join in contract.joins for column, dtype in join.columns.items()}
    try:
        features = load_features(Path(version.address) / "transform", contract.transform["function"])
    except MulleError:
        return {}
    return columns_read(features, schema, version.features)


def _route(parts: Parts, prediction: Json) -> Json:
    # In force when the answer was given; a server on its rows' clock goes by the row's own time.
    moments = (instant(prediction["created_at"]), instant(prediction["time"]))
    deployments = parts.metadata.deployments.of(prediction["model"])
    found = None
    for moment in moments:
        deployment = current(deployments, moment)
        if deployment and any(r.version == prediction["version"] for r in deployment.routes):
            found = deployment
            break
    share = next((r.share for r in found.routes if r.version == prediction["version"]), None) if found else None
    view = deployment_view(found) if found else None
    return {"mode": prediction["route"], "version": prediction["version"], "share": share, "deployment": view}


def _label(parts: Parts, prediction: Json) -> Json | None:
    by_id = pl.col("prediction_id") == prediction["id"]
    time = instant(prediction["time"])
    named = pl.lit(prediction.get("key_text"), dtype=pl.String)  # null where rows have no key: nothing equals it
    by_key = (pl.col("key_text") == named) & (pl.col("time").is_null() | (pl.col("time") == time))
    # A label by key may name the fleet, whose member answered; one by prediction need not name a model.
    mine = rows_of(fleet_of(prediction["model"])) | (pl.col("model") == "")
    told = logged_rows(parts, LABELS, mine & (by_id.fill_null(False) | by_key.fill_null(False)))
    # As windows take them: what names the prediction goes first, then key and time, then the key alone.
    whom = by_id.fill_null(False).cast(pl.Int8) * 2 + pl.col("time").is_not_null().cast(pl.Int8)
    found = told.sort(whom, "known_at", "created_at").tail(1).to_dicts() if told.height else []
    return _with_value(_decoded(found[0]), numeric=not prediction.get("probabilities")) if found else None


def _window(parts: Parts, model: str, time: datetime) -> Window | None:
    last = parts.metadata.windows.last(model, mature=False)
    if last is None:
        return None
    span = last.end - last.start
    around = parts.metadata.windows.of(model, start=time - span, end=time + span * 2)
    return next((w for w in around if w.start <= time < w.end), None)


def _alerts(parts: Parts, window: Window | None) -> list[Json]:
    if window is None:
        return []
    about = (a for a in parts.metadata.alerts.list(window.model, None, 1000) if any(c.id == window.id for c in a.causes))
    return [alert_view(parts, a) for a in about]


def _data(parts: Parts, version: ModelVersion | None) -> list[Json]:
    if version is None:
        return []
    found = [parts.metadata.datasets.get(name, number) for name, number in version.data.items()]
    return [version_view(parts, v) for v in found if v is not None]
