"""Erasure: the one edit of the past. Rows of a key go from every place that Mulle keeps, and that they went is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.errors import DataError, NotFound, UsageError
from mulle.core.hashing import hash_json, new_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.dataset import DatasetVersion, Erasure
from mulle.core.records.deployment import STAGING
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.run import run_state
from mulle.kernel.dtypes import dtype_of
from mulle.kernel.faults import point
from mulle.kernel.keys import key_expr, key_text
from mulle.kernel.redact import hide
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.features.materialise import forget as forget_entries
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.data.ingest import last_version, publishing
from mulle.loop.data.online import deployed_features, feeding, published_tables, specs_of
from mulle.loop.data.share import refresh_share
from mulle.loop.keeping.backup import known_backups
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import rows_of

__all__ = ["forget", "keys_of"]

_FINISHED = {"succeeded", "rejected", "failed", "cancelled"}


def keys_of(dataset: Dataset, version: DatasetVersion, given: Iterable[str | Mapping[str, Any]]) -> pl.DataFrame:
    """Read keys as a frame in the dataset's own types.

    Parameters
    ----------
    given : iterable
        A mapping of every key column; or text: the value of a single key column, ``origin=JFK,dest=LAX`` for several.

    Raises
    ------
    UsageError
        When the dataset declares no key, a column is missing, or a value does not fit its type.
    """
    if not dataset.key:
        raise UsageError(f"dataset {dataset.name} declares no key", next="declare key= to say what names a row's subject")
    rows = []
    for item in given:
        row = dict(item) if isinstance(item, Mapping) else _parsed(item, dataset)
        if set(row) != set(dataset.key):
            raise UsageError(
                f"a key of {dataset.name} has the columns {', '.join(dataset.key)}; given: {', '.join(map(str, row))}",
                next="name each of them, such as origin=JFK,dest=LAX",
            )
        rows.append({name: row[name] for name in dataset.key})
    if not rows:
        raise UsageError("no key was given", next="name at least one")
    try:
        frame = pl.DataFrame(rows, infer_schema_length=None)
        return frame.select(pl.col(name).cast(dtype_of(version.schema[name]), strict=True) for name in dataset.key).unique()
    except (pl.exceptions.PolarsError, DataError) as error:
        raise UsageError(
            f"a key does not fit {dataset.name}: {str(error).splitlines()[0]}",
            next=f"types: {', '.join(f'{n} {version.schema[n]}' for n in dataset.key)}",
        ) from error


def _parsed(text: str, dataset: Dataset) -> dict[str, Any]:
    if len(dataset.key) == 1:
        return {dataset.key[0]: text}
    return {name: value for name, _, value in (pair.partition("=") for pair in text.split(","))}


def forget(parts: Parts, name: str, given: Sequence[str | Mapping[str, Any]], *, by: str, causes: Sequence[Cause]) -> Erasure:
    """Remove rows by key: table and its past, batches that wait or failed, samples, log, labels, online store, scratch.

    A process that dies on the way has recorded nothing; doing it again finishes the work. Bundles hold no rows: their
    samples are made of shuffled columns without keys. Backups are not opened: the record names them.
    Copies that other projects made of a shared dataset are theirs to
    erase, and a source that still holds the rows brings them again.

    Raises
    ------
    NotFound
        When nothing is published.
    UsageError
        When a key does not fit.
    """
    dataset = parts.project.dataset(name)
    version = last_version(parts, name)
    if version is None:
        raise NotFound(f"dataset {name} has no published version", next="there is nothing to forget", dataset=name)
    keys = keys_of(dataset, version, given)
    removed: dict[str, int] = {}
    with publishing(parts):
        gone = _rows_of(parts, dataset, version, keys)
        removed["rows"] = parts.lake.erase(version.table, keys)
        point("during:forget:rows")
        for place in ("staging", "quarantine", "pending"):
            removed[place] = sum(_thinned(parts, parked, keys) for parked in parts.lake.parkings(f"{place}/{name}"))
        texts = {key_text(row) for row in keys.rows()}
        removed["samples"] = parts.metadata.datasets.redact(name, lambda sample: _names(sample, dataset, texts))
        models = [m for m in parts.project.models.values() if name in _read_by(m)]
        asked = [m for m in models if m.features.dataset.name == name]
        removed |= _logged(parts, asked, keys, dataset)
        point("during:forget:log")
        removed["online"] = _online(parts, dataset, gone)
        removed["scratch"] = _scratch(parts, {m.name for m in models})
    now = parts.clock.now()
    id = new_id(now)
    record = Erasure(
        id=id,
        created_at=now,
        causes=tuple(causes),
        dataset=name,
        keys=tuple(hash_json([id, text]) for text in sorted(t for t in texts if t)),
        removed=removed,
        by=by,
        lost=_lost(parts, version),
        backups=tuple(str(kept["file"]) for kept in known_backups(parts.settings.home)),
    )
    parts.metadata.datasets.add_erasure(record)
    refresh_share(parts, name)
    return record


def _thinned(parts: Parts, parked: str, keys: pl.DataFrame) -> int:
    rows = parts.lake.parked(parked).collect()
    if not set(keys.columns) <= set(rows.columns):
        return 0
    try:
        kept = rows.join(keys.cast({n: rows.schema[n] for n in keys.columns}), on=keys.columns, how="anti")
    except pl.exceptions.PolarsError:  # a quarantined key column may hold anything
        texts = keys.select(k=key_expr(keys.columns))["k"]
        kept = rows.filter(~key_expr(keys.columns).is_in(texts.implode()).fill_null(False))
    if kept.height < rows.height:
        parts.lake.park(parked, kept) if kept.height else parts.lake.unpark(parked)
    return rows.height - kept.height


def _names(sample: Json, dataset: Dataset, texts: set[str | None]) -> bool:
    # Whose row a sample without its key is, nobody can tell; it goes as well.
    return any(c not in sample for c in dataset.key) or key_text([sample[c] for c in dataset.key]) in texts


def _logged(parts: Parts, models: Sequence[Model], keys: pl.DataFrame, dataset: Dataset) -> dict[str, int]:
    removed = {"predictions": 0, "labels": 0}
    for place, environment in ((parts.settings.home, ""), (parts.settings.home / STAGING, STAGING)):
        drain(log_folder(place), parts.lake, now=parts.clock.now(), environment=environment)
        tables = [f"{table}_{environment}" if environment else table for table in (PREDICTIONS, LABELS)]
        for model in models:
            texts = keys.with_columns(hide(dataset.key, model.log.redact)).select(key_text=key_expr(dataset.key))
            predictions, labels = _erased(parts, tables, model, texts)
            removed["predictions"] += predictions
            removed["labels"] += labels
    return removed


def _erased(parts: Parts, tables: Sequence[str], model: Model, texts: pl.DataFrame) -> tuple[int, int]:
    predictions, labels = tables
    try:
        mine = parts.lake.scan(predictions).filter(rows_of(model.name))
        asked = mine.filter(pl.col("key_text").is_in(texts["key_text"].implode())).select("model", prediction_id="id").collect()
    except NotFound:
        return 0, 0
    # A fleet's members answer under names of their own.
    named = texts.join(pl.DataFrame({"model": sorted({model.name, *asked["model"]})}), how="cross")
    told = parts.lake.erase(labels, asked.select("prediction_id")) + parts.lake.erase(labels, named)
    return parts.lake.erase(predictions, named), told


def _rows_of(parts: Parts, dataset: Dataset, version: DatasetVersion, keys: pl.DataFrame) -> pl.DataFrame:
    rows = read_version(parts.lake, dataset, version, superseded=True)
    return rows.join(keys.lazy(), on=keys.columns, how="semi").collect()


def _online(parts: Parts, dataset: Dataset, gone: pl.DataFrame) -> int:
    removed = 0
    # A refresh under way would write back what it has read already.
    with feeding(parts):
        for features in deployed_features(parts):
            if gone.is_empty() or dataset.name not in {join.dataset.name for _, join in features.joins}:
                continue
            left = published_tables(parts, features)[dataset.name]
            specs = specs_of(parts, features)
            removed += forget_entries(features, dataset.name, specs, parts.online, gone, left, now=parts.clock.now())
    return removed


def _scratch(parts: Parts, models: set[str]) -> int:
    """Remove what finished runs left of the rows they worked with; a run under way is left to end."""
    found = 0
    for model in models:
        for run in parts.metadata.runs.list(model, limit=100_000):
            folder = parts.settings.home / "runs" / run.id
            if folder.is_dir() and run_state(parts.metadata.runs.events(run.id)) in _FINISHED:
                found += sum(1 for _ in folder.glob("*.parquet"))
                shutil.rmtree(folder)
    return found


def _read_by(model: Model) -> set[str]:
    return {model.features.dataset.name, *(join.dataset.name for _, join in model.features.joins)}


def _lost(parts: Parts, last: DatasetVersion) -> tuple[int, ...]:
    have = {n for first, end in last.spans for n in range(first, end + 1)}
    versions = parts.metadata.datasets.versions(last.dataset, 1_000_000)
    return tuple(v.version for v in versions if not {n for a, b in v.spans for n in range(a, b + 1)} <= have)
