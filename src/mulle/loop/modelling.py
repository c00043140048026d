"""Stages 3 to 5 of a run as compute, in a child process: search, evaluate, bundle, and the gates' judgement.

`loop.tasks` left the joined rows and the features in the run's folder; each task here reads them and leaves its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.gates import EachSlice, NoWorseThanChampion, ParityGate
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.bundle import FORMAT, Contract, FeatureSpec
from mulle.core.records.model import ModelVersion, Parity
from mulle.kernel.bundle import Predictor
from mulle.kernel.encode import encode, feature_specs
from mulle.kernel.fitted import Estimator, answers, classes_of
from mulle.kernel.histograms import build_reference
from mulle.kernel.rows import raw_inputs
from mulle.lifecycle.evaluation.compare import Comparison, Side, compare
from mulle.lifecycle.evaluation.evaluate import by_slice, evaluate
from mulle.lifecycle.evaluation.gates import Evidence, accepted, judge
from mulle.lifecycle.features.join import join_specs
from mulle.lifecycle.features.select import choose_features
from mulle.lifecycle.registry.bundle import write_bundle
from mulle.lifecycle.registry.card import card
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.latency import measure_p99
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.registry.sample import make_sample
from mulle.lifecycle.training.fit import fit, refuse_untrainable
from mulle.lifecycle.training.search import search
from mulle.lifecycle.training.split import split_rows
from mulle.loop.tasks import HOLDOUT, TIME, Work, features_hash, joined_with, read_features, read_rows, write_frame

__all__ = ["bundle_model", "evaluate_model", "judge_model", "search_model"]

Index = npt.NDArray[np.int64]

Refit = tuple[Any, tuple[FeatureSpec, ...], pl.DataFrame, npt.NDArray[Any], pl.Series]
"""What was fitted on all rows, the features' specs and rows, the target, and the rows' times."""

_REFERENCE_ROWS = 50_000
_beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refit")
_refits: dict[str, Future[Refit]] = {}


def search_model(work: Work, timeout: float | None, warm: list[Json]) -> Json:
    """Search candidates on the training rows; the holdout is not touched.

    Returns
    -------
    dict
        ``trials``, the winner's ``settings`` and, where the model selects, the ``selection`` (by, kept, scores), which is
        among the settings too: evaluation, refit and bundle follow it.
    """
    train, _ = _split(work)
    features, target, time = read_features(work, train=train)
    chosen, truth = features[train], _target(work, target)[train]
    specs = feature_specs(chosen)
    selection = _selection(work, chosen, specs, truth)
    specs = _kept(specs, selection)
    found = search(
        encode(chosen, specs),
        truth,
        None if time.null_count() else time.to_physical().to_numpy()[train],
        task=work.model.task,
        candidates=work.model.search.candidates,
        specs=specs,
        trials=work.model.search.trials,
        timeout=timeout,
        seed=work.seed,
        warm=warm,
    )
    answer = {"trials": to_json(found.trials), "settings": {**to_json(found.settings), **selection}}
    return answer | selection


def _selection(work: Work, features: pl.DataFrame, specs: Sequence[FeatureSpec], truth: npt.NDArray[Any]) -> Json:
    select = work.model.select
    if select is None:
        return {}
    matrix = encode(features, specs)
    refuse_untrainable(matrix, truth, task=work.model.task, specs=specs)
    return {"selection": to_json(choose_features(matrix, truth, specs, task=work.model.task, select=select, seed=work.seed))}


def _kept(specs: tuple[FeatureSpec, ...], settings: Json) -> tuple[FeatureSpec, ...]:
    """Leave out the specs of features that were not selected; all stay when nothing was."""
    selection = settings.get("selection")
    return specs if selection is None else tuple(s for s in specs if s.name in set(selection["kept"]))


def evaluate_model(work: Work, settings: Json) -> Json:
    """Fit the winner on the training rows and measure it on the holdout.

    Returns
    -------
    dict
        ``metrics``, ``rows``, ``slices`` (column, value, rows and metrics), ``data_cutoff``.
    """
    _begin_refit(work, settings)
    train, last = _split(work)
    features, target, time = read_features(work, train=train)
    specs = _kept(feature_specs(features[train]), settings)
    fitted = fit(
        settings, encode(features[train], specs), _target(work, target)[train], task=work.model.task, specs=specs, seed=work.seed
    )
    classes = classes_of(fitted, work.model.task)
    values, shares = _said(fitted, encode(features[last], specs), work.model.task, classes)
    truth = _target(work, target)[last]
    rows = read_rows(work)[last]
    columns = sorted({g.column for g in work.model.gates if isinstance(g, EachSlice)})
    slices = {c: by_slice(rows[c], work.model.task, truth, values, shares, classes) for c in columns if c in rows.columns}
    kept = pl.DataFrame({"row": last, "truth": truth, "value": values})
    kept = kept if shares is None else kept.hstack([pl.Series(f"share.{c}", shares[:, i]) for i, c in enumerate(classes)])
    write_frame(kept, work.folder / HOLDOUT)
    cutoff = time[train].max() if not time.null_count() else work.cutoff
    return {
        "metrics": evaluate(work.model.task, truth, values, shares, classes),
        "rows": len(last),
        "slices": to_json(slices),
        "classes": list(classes),
        "data_cutoff": to_json(cutoff),
    }


def bundle_model(work: Work, settings: Json, metrics: dict[str, float], code: Path) -> Json:
    """Refit on all rows, compile, prove parity on the holdout rows and write the bundle.

    Returns
    -------
    dict
        ``hash``, ``address``, ``compiled``, ``parity``, ``features`` (those the model takes), ``size_bytes``,
        ``p99_seconds``, ``data_cutoff``.
    """
    train, last = _split(work)
    fitted, specs, features, truth, time = _begin_refit(work, settings).result()
    _refits.clear()
    compiled = compile_model(fitted, width=len(specs), task=work.model.task)
    cutoff = time[train].max() if not time.null_count() else work.cutoff
    contract = _contract(work, settings, metrics, specs, fitted, truth, cutoff)
    joined = read_rows(work)[last].drop(work.hidden_columns)
    contract, predictor = _proved(work, contract, compiled, fitted, joined)
    p99 = measure_p99(predictor, joined)
    hashed, address = write_bundle(
        work.home / "bundles",
        contract=contract,
        model=compiled if contract.compiled == "onnx" else None,
        native=fitted if contract.compiled == "native" else None,
        project_folder=code,
        reference=_reference(fitted, features, specs, contract),
        sample=make_sample(predictor, joined, seed=work.seed),
        card=card(contract, metrics, ()),
    )
    return {
        "hash": hashed,
        "address": str(address),
        "compiled": contract.compiled,
        "parity": to_json(contract.parity),
        "features": [s.name for s in specs],
        "size_bytes": sum(p.stat().st_size for p in address.rglob("*") if p.is_file()),
        "p99_seconds": p99,
        "data_cutoff": to_json(cutoff),
    }


def _begin_refit(work: Work, settings: Json) -> Future[Refit]:
    """Start the fit on all rows beside whatever else this process does, or find the one under way.

    Evaluation and refit are the two long fits of a run and do not wait for each other; when this process dies between
    their steps, the next one fits again and gets the same.
    """
    key = hash_json([work.run, settings])
    if key not in _refits:
        _refits.clear()
        _refits[key] = _beside.submit(_refit, work, settings)
    return _refits[key]


def _refit(work: Work, settings: Json) -> Refit:
    features, target, time = read_features(work, train=None)
    specs = _kept(feature_specs(features), settings)
    truth = _target(work, target)
    fitted = fit(settings, encode(features, specs), truth, task=work.model.task, specs=specs, seed=work.seed)
    return fitted, specs, features, truth, time


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


def _reference(fitted: Estimator, features: pl.DataFrame, specs: Sequence[FeatureSpec], contract: Contract) -> Json:
    # Answers are narrower than outcomes: drift of what is answered is held against what this model answers. An evenly
    # spaced sample gives the same quantiles as all rows, in a fraction of the time.
    sample = features.gather_every(-(-features.height // _REFERENCE_ROWS))
    said, _ = _said(fitted, encode(sample, specs), contract.task, contract.classes)
    return build_reference(sample, specs, pl.Series(said))


def _contract(
    work: Work, settings: Json, metrics: dict[str, float], specs: tuple[Any, ...], fitted: Estimator, truth: Any, cutoff: Any
) -> Contract:
    model, dataset = work.model, work.model.features.dataset
    schemas = {name: version.schema for name, version in work.versions.items()}
    return Contract(
        format=FORMAT,
        model=model.name,
        task=model.task,
        target=model.target,
        classes=classes_of(fitted, model.task),
        dataset=dataset.name,
        key=dataset.key,
        time=dataset.time,
        inputs=raw_inputs(schemas[dataset.name], hidden=model.hidden, key=dataset.key, time=dataset.time),
        joins=join_specs(model.features, schemas),
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


def _said(
    fitted: Estimator, matrix: npt.NDArray[np.float32], task: str, classes: tuple[str, ...]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]:
    found = answers(fitted, matrix, task)
    if task == "regression":
        return found[:, 0], None
    return np.array(classes, dtype=object)[found.argmax(axis=1)], found


def _split(work: Work) -> tuple[Index, Index]:
    rows = pl.read_parquet(work.folder / "rows.parquet", columns=[TIME])
    time = None if rows[TIME].null_count() else TIME
    return split_rows(rows, time=time, holdout=work.model.split, seed=work.seed)


def _target(work: Work, target: pl.Series) -> npt.NDArray[Any]:
    return target.cast(pl.Float64).to_numpy() if work.model.task == "regression" else target.cast(pl.String).to_numpy()
