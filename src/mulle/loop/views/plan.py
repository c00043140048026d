"""``mulle plan``: what the declaration would change against what is deployed, and its checks on a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.errors import MulleError
from mulle.core.records.base import Json, to_json
from mulle.core.records.dataset import verdict_of
from mulle.core.records.deployment import champion_of
from mulle.kernel.bundle import read_contract
from mulle.kernel.dtypes import schema_text
from mulle.kernel.rows import cast_inputs, raw_inputs
from mulle.kernel.transform import prove_row_wise
from mulle.lifecycle.data.checks.check import Beside, check_batch
from mulle.lifecycle.data.typed import typed
from mulle.lifecycle.features.join import join_offline
from mulle.loop.compute.work import features_hash
from mulle.loop.data.ingest import all_datasets, beside
from mulle.loop.parts import Parts
from mulle.loop.views.chain import paused_view

__all__ = ["SAMPLE", "plan"]

SAMPLE = 2_000
"""Rows of each source that are checked."""


def plan(parts: Parts) -> Json:
    """Tell what would change, without changing anything.

    Returns
    -------
    dict
        ``datasets`` (``dataset action rows verdict checks problem``), ``models`` (``model action changes features
        problem``) and ``verdict`` (``pass`` or ``fail``).
    """
    samples: dict[str, pl.DataFrame] = {}
    datasets = [_plan_dataset(parts, dataset, samples) for dataset in all_datasets(parts.project)]
    models = [_plan_model(parts, model, samples) for model in parts.project.models.values()]
    failed = any(d["verdict"] == "fail" for d in datasets) or any(m["problem"] for m in models)
    return {"datasets": datasets, "models": models, "verdict": "fail" if failed else "pass"}


def _plan_dataset(parts: Parts, dataset: Dataset, samples: dict[str, pl.DataFrame]) -> Json:
    version = parts.metadata.datasets.get(dataset.name)
    told: Json = {
        "dataset": dataset.name,
        "version": version.version if version else None,
        "rows": 0,
        "checks": [],
        "problem": "",
    }
    try:
        batch = parts.source(dataset).read(dict(version.positions) if version else {})
    except MulleError as error:
        return {**told, "action": "read", "verdict": "fail", "problem": error.detail}
    if batch is None:
        return {**told, "action": "nothing new" if version else "no rows at the source", "verdict": "pass" if version else "fail"}
    rows = typed(batch.frame(), dataset, version.schema if version else {})
    # A reference is needed whole: a sample of it would call known codes unknown.
    references = {**beside(parts, dataset), **{name: frame.lazy() for name, frame in samples.items()}}
    samples[dataset.name] = rows if dataset.time is None else rows.head(SAMPLE)
    checks = check_batch(dataset, rows.head(SAMPLE).lazy(), Beside(version=version, references=references), now=parts.clock.now())
    return {
        **told,
        "action": "publish version 1" if version is None else f"publish version {version.version + 1}",
        "rows": rows.height,
        "verdict": verdict_of(checks),
        "checks": to_json(checks),
    }


def _plan_model(parts: Parts, model: Model, samples: dict[str, pl.DataFrame]) -> Json:
    history = parts.metadata.deployments.of(model.name)
    champion = champion_of(history[-1]) if history else None
    problem = _prove(model, samples)
    if champion is None:
        return {
            "model": model.name,
            "champion": None,
            "action": "train and deploy the first version",
            "changes": [],
            "problem": problem,
            "paused": None,
        }
    changes = _changes(parts, model, champion)
    action = "train a challenger" if changes else "nothing"
    paused = paused_view(parts, model.name)
    return {
        "model": model.name, "champion": champion, "action": action, "changes": changes, "problem": problem, "paused": paused,
    }  # fmt: skip


def _prove(model: Model, samples: dict[str, pl.DataFrame]) -> str:
    dataset = model.features.dataset
    rows = samples.get(dataset.name)
    tables = {join.dataset.name: samples.get(join.dataset.name) for _, join in model.features.joins}
    known = {name: frame for name, frame in tables.items() if frame is not None}
    if rows is None or len(known) < len(tables):
        return ""
    try:
        inputs = raw_inputs(schema_text(rows), hidden=model.hidden, key=dataset.key, time=dataset.time)
        asked = cast_inputs(rows.head(200).select(f.name for f in inputs), inputs)
        prove_row_wise(model.features, join_offline(asked, model.features, known))
    except MulleError as error:
        return error.detail
    return ""


def _changes(parts: Parts, model: Model, champion: int) -> Sequence[str]:
    record = parts.metadata.models.get(model.name, champion)
    if record is None:
        return ["the champion is not registered here"]
    contract = read_contract(Path(record.address))
    found = []
    if contract.transform["hash"] != features_hash(model):
        found.append("the feature function or its joins changed")
    if contract.target != model.target or contract.task != model.task:
        found.append(f"target {contract.target} ({contract.task}) becomes {model.target} ({model.task})")
    if not found and contract.transform["code"] != parts.project.code:
        found.append("the project changed, the features did not")
    for name, version in contract.data.items():
        latest = parts.metadata.datasets.get(name)
        if latest is not None and latest.version > version:
            found.append(f"{name}@{latest.version} is newer than {name}@{version}, which the champion saw")
    return found
