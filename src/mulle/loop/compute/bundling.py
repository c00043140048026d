"""Stage 5 of a run as compute: fit on all rows, compile, prove parity, write the bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mulle.core.declare.gates import P50, P99, BadInput, ParityGate, PeakMemory, Throughput
from mulle.core.declare.model import Model
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json, to_json
from mulle.core.records.bundle import FORMAT, Contract, FeatureSpec, InputField, JoinSpec
from mulle.core.records.evaluation import Failures, Service
from mulle.kernel.bundle import Predictor
from mulle.kernel.encode import encode
from mulle.kernel.estimate import fit_calibration, fit_loss
from mulle.kernel.fitted import Estimator, answers, classes_of
from mulle.kernel.histograms import add_parts, build_reference
from mulle.kernel.reads import columns_read, only_from
from mulle.kernel.rows import raw_inputs
from mulle.lifecycle.features.join import join_specs
from mulle.lifecycle.registry.bundle import write_bundle
from mulle.lifecycle.registry.card import card
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.hostile import try_bad_input
from mulle.lifecycle.registry.latency import BATCH_ROWS, LATENCY_ROWS, measure_latency, measure_peak, measure_throughput
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.registry.sample import make_sample
from mulle.loop.compute.evaluating import read_evaluation
from mulle.loop.compute.fitting import end_refit, said, split
from mulle.loop.compute.work import HOLDOUT, Work, features_hash, read_rows

__all__ = ["bundle_model"]

_REFERENCE_ROWS = 50_000

_FEW_ANSWERS = 20


def bundle_model(
    work: Work, settings: Json, metrics: dict[str, float], code: Path, *, proved: pl.DataFrame | None = None
) -> Json:
    """Refit on all rows, compile, prove parity on the holdout rows and write the bundle.

    Parameters
    ----------
    work : Work
    settings : dict
    metrics : dict
        Of the evaluated fit.
    code : Path
        The project's snapshot.
    proved : polars.DataFrame, optional
        Rows of a sample that the feature function was proved with already.

    Returns
    -------
    dict
        ``hash``, ``address``, ``compiled``, ``parity``, ``features`` (those the model takes), ``size_bytes``,
        ``p99_seconds``, ``service``, ``bad_input`` (None unless a gate asks), ``data_cutoff``.
    """
    train, last = split(work)
    fitted, specs, features, truth, time = end_refit(work, settings)
    compiled = compile_model(fitted, width=len(specs), task=work.model.task)
    cutoff = time[train].max() if not time.null_count() else work.cutoff
    read = _read(work, specs)
    contract = _contract(work, settings, metrics, specs, fitted, truth, cutoff, read)
    joined = read_rows(work)[last].drop(work.hidden_columns)
    contract, predictor = _proved(work, contract, compiled, fitted, joined)
    hostile = _hostile(work, predictor, joined)
    p50, p99, timed = _latency(work, predictor, joined)
    hashed, address = write_bundle(
        work.home / "bundles",
        contract=contract,
        model=compiled if contract.compiled == "onnx" else None,
        native=fitted if contract.compiled == "native" else None,
        project_folder=code,
        reference={**_reference(work, fitted, features, specs, contract, time), "calendar": _calendar(work, read)},
        estimate=_estimate(work, features, specs, contract),
        sample=make_sample(predictor, joined, seed=work.seed, proved=proved),
        card=card(contract, metrics, (), read_evaluation(work)),
    )
    size = sum(p.stat().st_size for p in address.rglob("*") if p.is_file())
    service = Service(p50_seconds=p50, p99_seconds=p99, answers=timed, bundle_bytes=size)
    return {
        "hash": hashed,
        "address": str(address),
        "compiled": contract.compiled,
        "parity": to_json(contract.parity),
        "features": [s.name for s in specs],
        "size_bytes": size,
        "p99_seconds": p99,
        "service": to_json(_asked(work, service, predictor, address, joined)),
        "bad_input": None if hostile is None else to_json(hostile),
        "data_cutoff": to_json(cutoff),
    }


def _latency(work: Work, predictor: Predictor, joined: pl.DataFrame) -> tuple[float, float, int]:
    """Measure one-row answers; of a member, and of a model that is not looked into, few that are within the gates are enough."""
    bounds = tuple(
        min((g.bound.total_seconds() for g in work.model.gates if isinstance(g, kind)), default=math.inf) for kind in (P50, P99)
    )
    if work.member or not work.options.get("inspect", True):
        p50, p99 = measure_latency(predictor, joined, _FEW_ANSWERS)
        if p50 <= bounds[0] and p99 <= bounds[1]:
            return p50, p99, _FEW_ANSWERS
    return *measure_latency(predictor, joined, bounds=(bounds[0], bounds[1])), LATENCY_ROWS


def _asked(work: Work, service: Service, predictor: Predictor, address: Path, joined: pl.DataFrame) -> Service:
    """Add what takes longer to measure, where a gate asks for it."""
    gates = work.model.gates
    if any(isinstance(g, Throughput) for g in gates):
        service = replace(service, rows_per_second=measure_throughput(predictor, joined), batch_rows=BATCH_ROWS)
    if any(isinstance(g, PeakMemory) for g in gates):
        service = replace(service, peak_bytes=measure_peak(address, joined), batch_rows=BATCH_ROWS)
    return service


def _hostile(work: Work, predictor: Predictor, joined: pl.DataFrame) -> Failures | None:
    asked = any(isinstance(g, BadInput) for g in work.model.gates)
    return try_bad_input(predictor, joined, now=work.cutoff) if asked else None


def _proved(
    work: Work, contract: Contract, compiled: bytes | None, fitted: Estimator, joined: pl.DataFrame
) -> tuple[Contract, Predictor]:
    gate = next((g for g in work.model.gates if isinstance(g, ParityGate)), ParityGate(1e-4))
    if compiled is not None:
        predictor = Predictor.assemble(contract, work.model.features, compiled)
        parity = prove(fitted, predictor, joined, tolerance=gate.tolerance, now=work.cutoff)
        return replace(contract, parity=parity), predictor
    native = replace(contract, compiled="native")
    predictor = Predictor.assemble(native, work.model.features, lambda matrix: answers(fitted, matrix, work.model.task))
    parity = prove(fitted, predictor, joined, tolerance=gate.tolerance, now=work.cutoff)
    return replace(native, parity=parity), predictor


def _reference(
    work: Work, fitted: Estimator, features: pl.DataFrame, specs: Sequence[FeatureSpec], contract: Contract, time: pl.Series
) -> Json:
    # Answers are narrower than outcomes: drift of what is answered is held against what this model answers. An evenly
    # spaced sample gives the same quantiles as all rows, in a fraction of the time.
    step = -(-features.height // _REFERENCE_ROWS)
    sample, at = features.gather_every(step), time.gather_every(step)
    values, _ = said(fitted, encode(sample, specs), contract.task, contract.classes)
    answers, by = pl.Series(values), work.model.monitor.reference
    reference = build_reference(sample, specs, answers)
    if by == "training" or at.null_count() == at.len():
        return reference
    return add_parts(reference, sample, answers, by, at.dt.month() if by == "same_month" else at.dt.weekday())


def _estimate(work: Work, features: pl.DataFrame, specs: Sequence[FeatureSpec], contract: Contract) -> Json | None:
    """Learn from the holdout, which the evaluated fit had not seen, how well answers like its are."""
    path = work.folder / HOLDOUT
    if work.member or not path.is_file():
        return None
    kept = pl.read_parquet(path)
    if contract.task == "regression":
        watched = work.model.monitor.performance
        metric = watched.metric if watched else work.model.metric
        rows, values = kept["row"].to_numpy(), kept["value"].cast(pl.Float64).to_numpy()
        return fit_loss(encode(features[rows], specs), values, kept["truth"].cast(pl.Float64).to_numpy(), metric)
    shares = [f"share.{c}" for c in contract.classes]
    if not kept.height or not set(shares) <= set(kept.columns):
        return None
    return fit_calibration(kept.select(shares).to_numpy(), kept["truth"].cast(pl.String).to_list(), contract.classes)


def _contract(
    work: Work,
    settings: Json,
    metrics: dict[str, float],
    specs: tuple[Any, ...],
    fitted: Estimator,
    truth: Any,
    cutoff: Any,
    read: Mapping[str, Sequence[str]],
) -> Contract:
    model, dataset = work.model, work.model.features.dataset
    schemas = {name: version.schema for name, version in work.versions.items()}
    joins = join_specs(model.features, schemas)
    return Contract(
        format=FORMAT,
        model=model.name,
        task=model.task,
        target=model.target,
        classes=classes_of(fitted, model.task),
        dataset=dataset.name,
        key=dataset.key,
        time=dataset.time,
        inputs=_inputs(model, schemas, joins, read),
        joins=joins,
        features=specs,
        transform={"function": model.features.name, "hash": features_hash(model), "code": work.project.code},
        compiled="onnx",
        parity=None,
        scale=float(np.std(truth)) if model.task == "regression" else 1.0,
        run=work.run,
        data={name: version.version for name, version in work.versions.items()},
        data_cutoff=cutoff,
        refit_cutoff=work.cutoff,
        metrics=metrics,
        settings={**settings, "seed": work.seed, "data": hash_json([v.hash for v in work.versions.values()])},
    )


def _read(work: Work, specs: Sequence[FeatureSpec]) -> dict[str, list[str]]:
    """Tell which columns each feature is made from; nothing where the function cannot be looked into."""
    model, dataset = work.model, work.model.features.dataset
    schemas = {name: version.schema for name, version in work.versions.items()}
    inputs = raw_inputs(schemas[dataset.name], hidden=model.hidden, key=dataset.key, time=dataset.time)
    schema = {f.name: f.dtype for f in inputs}
    for join in join_specs(model.features, schemas):
        schema |= {f"{join.name}.{column}": dtype for column, dtype in join.columns.items()}
    return columns_read(model.features, schema, list(dict.fromkeys(s.column for s in specs)))


def _calendar(work: Work, read: Mapping[str, Sequence[str]]) -> list[str]:
    time = work.model.features.dataset.time
    return [] if time is None else only_from(read, time)


def _inputs(
    model: Model, schemas: Mapping[str, dict[str, str]], joins: Sequence[JoinSpec], read: Mapping[str, Sequence[str]]
) -> tuple[InputField, ...]:
    """Ask requests for what the model reads; the dataset's other columns may be sent and may be missing."""
    dataset = model.features.dataset
    inputs = raw_inputs(schemas[dataset.name], hidden=model.hidden, key=dataset.key, time=dataset.time)
    if not read:
        return inputs
    fleet = () if model.each is None else (model.each.column,)
    wanted = {*dataset.key, *fleet, *(c for columns in read.values() for c in columns), *(c for j in joins for c in j.on)}
    return tuple(f if f.name in wanted else replace(f, required=False) for f in inputs)
