"""Keeping the online store up to date: the same definitions as training, written ahead of the rows that read them."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features, Lookup
from mulle.core.records.bundle import JoinSpec
from mulle.lifecycle.features.join import join_specs
from mulle.lifecycle.features.materialise import materialise, trim
from mulle.loop.ingest import published
from mulle.loop.parts import Parts

__all__ = ["deployed_features", "feature_tables", "refresh_online", "specs_of"]


def specs_of(parts: Parts, features: Features) -> tuple[JoinSpec, ...]:
    """Return the joins of a feature function as serving reads them."""
    names = {features.dataset.name, *(join.dataset.name for _, join in features.joins)}
    versions = {name: parts.metadata.datasets.get(name) for name in names}
    return join_specs(features, {name: v.schema for name, v in versions.items() if v is not None})


def feature_tables(parts: Parts, features: Features) -> dict[str, pl.DataFrame]:
    """Read the published rows that a feature function joins, by dataset name."""
    joined: dict[str, Dataset] = {join.dataset.name: join.dataset for _, join in features.joins}
    return {name: published(parts, dataset) for name, dataset in joined.items()}


def deployed_features(parts: Parts) -> tuple[Features, ...]:
    """List the feature functions of every declared model that has joins, each once."""
    found = {m.features.name: m.features for m in parts.project.models.values() if m.features.joins}
    return tuple(found.values())


def refresh_online(
    parts: Parts, now: datetime, *, until: datetime | None = None, tables: dict[str, pl.DataFrame] | None = None
) -> int:
    """Materialise every tick and row available up to `until` that is not in the online store yet.

    Parameters
    ----------
    now : datetime
        The clock's now.
    until : datetime, optional
        Defaults to `now`; a replay goes ahead of its clock, the ticks themselves see only what was known by then.
    tables : dict of DataFrame, optional
        Published rows by dataset, when they are at hand.

    Returns
    -------
    int
        Entries written.
    """
    written = 0
    until = until or now
    for features in deployed_features(parts):
        if any(parts.metadata.datasets.get(d.name) is None for d in _joined(features)):
            continue
        specs = specs_of(parts, features)
        since = _complete_until(parts, specs)
        if since is not None and since >= until and not _has_lookup(features):
            continue
        rows = tables or feature_tables(parts, features)
        written += sum(materialise(features, rows, specs, parts.online, since=since, until=until).values())
        trim(specs, parts.online, until=now)
    return written


def _joined(features: Features) -> tuple[Dataset, ...]:
    return tuple(join.dataset for _, join in features.joins)


def _has_lookup(features: Features) -> bool:
    return any(isinstance(join, Lookup) for _, join in features.joins)


def _complete_until(parts: Parts, specs: tuple[JoinSpec, ...]) -> datetime | None:
    marks = [parts.online.marked(spec.table) for spec in specs if spec.kind != "lookup"]
    known = [m for m in marks if m is not None]
    return min(known) if known and len(known) == len(marks) else None
