"""The feature registry: every feature that is declared, with its definition, sources, consumers and freshness."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from mulle.core.clock import rfc3339
from mulle.core.declare.features import AsOf, Features, History, Join
from mulle.core.declare.model import Model
from mulle.core.errors import MulleError, NotFound
from mulle.core.records.base import Json
from mulle.core.records.bundle import JoinSpec
from mulle.core.records.model import ModelVersion
from mulle.lifecycle.features.catalogue import Described, describe
from mulle.lifecycle.features.join import join_specs
from mulle.loop.parts import Parts

__all__ = ["features_view", "selection_of"]

_Consumers = list[tuple[Model, ModelVersion | None]]


def features_view(parts: Parts) -> Json:
    """List every feature of every declared function.

    Returns
    -------
    dict
        ``items`` with ``id`` (function.feature), ``function``, ``name``, ``models`` (declared models that take it: all of
        the function's, but for those whose last version left it out), ``definition``, ``file``, ``line``, ``hash``,
        ``dtype``, ``sources`` (column and the ``dataset.column`` it reads), ``joins``, ``data`` (dataset to its current
        version), ``freshness`` (join to until, version and age_seconds of its online table; null while it is empty) and
        ``created_at`` (of the last model version that takes it, null while there is none); and ``unread``, functions
        that cannot be described, with the reason.
    """
    items: list[Json] = []
    unread: list[Json] = []
    for features in parts.project.features.values():
        try:
            items += _function(parts, features)
        except MulleError as error:
            unread.append({"function": features.name, "why": error.detail, "next": error.next})
    return {"items": items, "next": None, "unread": unread}


def selection_of(parts: Parts, run: str) -> Json | None:
    """Give what a run's search kept: ``by``, ``kept`` and ``scores``; None when its model selects nothing.

    It is read from the search's own answer while the run's folder is there, else from the bundle that the run made.
    """
    path = parts.settings.home / "runs" / run / "search.json"
    if path.is_file():
        found = json.loads(path.read_text()).get("selection")
    else:
        version = parts.metadata.models.of_run(run)
        bundle = None if version is None else Path(version.address) / "bundle.json"
        found = json.loads(bundle.read_text())["settings"].get("selection") if bundle and bundle.is_file() else None
    return None if found is None else dict(found)


def _function(parts: Parts, features: Features) -> list[Json]:
    datasets = dict.fromkeys([features.dataset.name, *(join.dataset.name for _, join in features.joins)])
    versions = {name: parts.metadata.datasets.get(name) for name in datasets}
    schemas = {name: v.schema for name, v in versions.items() if v is not None}
    missing = [name for name in datasets if name not in schemas]
    if missing:
        raise NotFound(f"dataset {missing[0]} has no published version", next=f"`mulle data ingest {missing[0]}`")
    consumers = _consumers(parts, features)
    visible = [set(model.hidden) for model, _ in consumers]
    hidden = tuple(set.intersection(*visible)) if visible else None
    specs = {spec.name: spec for spec in join_specs(features, schemas)}
    now, joins = parts.clock.now(), dict(features.joins)
    freshness = {name: _freshness(parts, spec, now) for name, spec in specs.items()}
    items = []
    for found in describe(features, schemas, hidden=hidden):
        used = dict.fromkeys([features.dataset.name, *(specs[j].dataset for j in found.joins)])
        items.append(
            {
                **_feature(found, consumers),
                "file": _relative(found.file, parts.project.folder),
                "joins": [_join(name, joins[name], specs[name]) for name in found.joins],
                "data": {name: v.version for name in used if (v := versions[name]) is not None},
                "freshness": {name: freshness[name] for name in found.joins},
            }
        )
    return items


def _consumers(parts: Parts, features: Features) -> _Consumers:
    models = [m for m in parts.project.models.values() if m.features is features]
    return [(m, next(iter(parts.metadata.models.list(m.name, 1)), None)) for m in models]


def _feature(found: Described, consumers: _Consumers) -> Json:
    taken = [version for _, version in consumers if version is not None and found.name in version.features]
    last = max((version.created_at for version in taken), default=None)
    return {
        "id": found.id,
        "created_at": None if last is None else rfc3339(last),
        "name": found.name,
        "function": found.function,
        "models": [model.name for model, version in consumers if version is None or version in taken],
        "definition": found.definition,
        "line": found.line,
        "hash": found.hash,
        "dtype": found.dtype,
        "sources": [{"column": s.column, "reads": list(s.reads)} for s in found.sources],
    }


def _relative(file: str, folder: Path) -> str:
    path = Path(file)
    return path.relative_to(folder.resolve()).as_posix() if path.is_relative_to(folder.resolve()) else path.name


def _join(name: str, join: Join, spec: JoinSpec) -> Json:
    told: Json = {"name": name, "kind": spec.kind, "dataset": spec.dataset, "on": list(spec.on)}
    if isinstance(join, AsOf):
        told["within_seconds"] = join.within.total_seconds()
    if isinstance(join, History):
        told |= {
            "by": list(join.by),
            "window_seconds": join.window.total_seconds(),
            "every_seconds": join.every.total_seconds(),
            "values": {value: str(expression) for value, expression in join.values},
        }
    return told


def _freshness(parts: Parts, spec: JoinSpec, now: datetime) -> Json | None:
    mark = parts.online.marked(spec.table)
    if mark is None:
        return None
    return {
        "until": rfc3339(mark.until),
        "version": mark.version,
        "age_seconds": max(now - mark.until, timedelta(0)).total_seconds(),
    }
