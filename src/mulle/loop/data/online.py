"""Keeping the online store up to date: the same definitions as training, written ahead of the rows that read them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features
from mulle.core.errors import NotFound
from mulle.core.ports.online import Mark
from mulle.core.records.bundle import JoinSpec
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.bookkeeping import VERSION
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.features.join import join_specs
from mulle.lifecycle.features.materialise import KEPT, Published, materialise, trim
from mulle.loop.parts import Parts

__all__ = ["deployed_features", "feeding", "published_tables", "refresh_online", "specs_of", "take_back"]

_AHEAD = timedelta(days=1)
"""A table that is filled further ahead than this was so by a clock that has gone back since."""

_TRIMMED = timedelta(hours=1)
"""How often what nobody asks for any more is deleted; to find it, the whole store is walked through."""

Versions = dict[str, DatasetVersion]


def specs_of(parts: Parts, features: Features) -> tuple[JoinSpec, ...]:
    """Return the joins of a feature function as serving reads them."""
    return join_specs(features, {name: version.schema for name, version in _versions(parts, features).items()})


def published_tables(parts: Parts, features: Features) -> dict[str, Published]:
    """Give the published rows that a feature function joins, by dataset name; nothing is read yet."""
    return _tables(parts, features, _versions(parts, features))


def deployed_features(parts: Parts) -> tuple[Features, ...]:
    """List the feature functions of every declared model that has joins, each once."""
    found = {m.features.name: m.features for m in parts.project.models.values() if m.features.joins}
    return tuple(found.values())


def refresh_online(
    parts: Parts, now: datetime, *, until: datetime | None = None, tables: dict[str, pl.DataFrame] | None = None
) -> int:
    """Materialise every tick and row available up to `until` that is not in the online store yet.

    Nothing falls between two refreshes. The dataset versions are read first, and each table is marked with the version
    that was read. A batch that is published meanwhile, or whose record was not written yet, has a later version than the
    mark, and rows of a later version are new to the next refresh whatever their instants: those available by `until`
    correct the ticks that were computed without them. Rows of a version that was read and that become available after
    `until` are found by that. What is read of the lake is what is new and the windows it touches.

    Parameters
    ----------
    now : datetime
        The clock's now.
    until : datetime, optional
        Defaults to `now`; later where ticks are wanted before their time. A tick sees what is published by now and, at
        the next refresh, what was published since and known by then.
    tables : dict of DataFrame, optional
        Published rows by dataset, when they are at hand.

    Returns
    -------
    int
        Entries written.
    """
    with feeding(parts):
        return sum(_refresh(parts, features, now, until or now, tables or {}) for features in deployed_features(parts))


def take_back(parts: Parts, now: datetime) -> None:
    """Let what a clock that was ahead has filled by its own time, and trimmed by it, be filled again at the next refresh."""
    for features in deployed_features(parts):
        for spec in specs_of(parts, features) if _whole(features, _versions(parts, features)) else ():
            mark = parts.online.marked(spec.table)
            if mark is not None and mark.until - now > _AHEAD:
                parts.online.mark(spec.table, Mark(now - KEPT, mark.version))


@contextmanager
def feeding(parts: Parts) -> Iterator[None]:
    """Hold off every other feed of this home: one that read earlier must not write, or write again, what is erased, later."""
    path = parts.settings.home / "online.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _refresh(parts: Parts, features: Features, now: datetime, until: datetime, tables: dict[str, pl.DataFrame]) -> int:
    versions = _versions(parts, features)
    if not _whole(features, versions):
        return 0
    specs = join_specs(features, {name: version.schema for name, version in versions.items()})
    marks = [parts.online.marked(spec.table) for spec in specs]
    published = _tables(parts, features, versions)
    for name, rows in tables.items():
        if name in published:
            published[name] = Published(rows.lazy(), published[name].version, published[name].changed)
    written = sum(materialise(features, published, specs, parts.online, until=until, now=now).values())
    if any(mark is None or _hour(mark.until) != _hour(until) for mark in marks):
        trim(specs, parts.online, until=now)
    return written


def _whole(features: Features, versions: Versions) -> bool:
    return all(join.dataset.name in versions for _, join in features.joins)


def _versions(parts: Parts, features: Features) -> Versions:
    names = {features.dataset.name, *(join.dataset.name for _, join in features.joins)}
    found = {name: parts.metadata.datasets.get(name) for name in sorted(names)}
    return {name: version for name, version in found.items() if version is not None}


def _tables(parts: Parts, features: Features, versions: Versions) -> dict[str, Published]:
    tables = {}
    for _, join in features.joins:
        version = versions[join.dataset.name]
        rows = read_version(parts.lake, join.dataset, version, superseded=True)
        tables[join.dataset.name] = Published(rows, version.version, partial(_changed, parts, join.dataset, version))
    return tables


def _changed(parts: Parts, dataset: Dataset, version: DatasetVersion, fed: int) -> tuple[int, pl.LazyFrame | None]:
    """Say what a restore put in and took out since the store was fed; see `Published`."""
    earlier = parts.metadata.datasets.get(dataset.name, fed) if 0 < fed < version.version else None
    if earlier is None:
        return min(fed, version.version), None
    base = _agree(_spans(earlier), _spans(version))
    if base >= _spans(earlier)[-1][1]:
        return base, None
    try:
        return base, read_version(parts.lake, dataset, earlier, superseded=True).filter(pl.col(VERSION) > base)
    except NotFound:  # an erasure took those rows, and what the store had of them
        return base, None


def _spans(version: DatasetVersion) -> tuple[tuple[int, int], ...]:
    return version.spans or ((1, version.version),)


def _agree(one: tuple[tuple[int, int], ...], other: tuple[tuple[int, int], ...]) -> int:
    """Give the number up to which two versions hold the same batches.

    Examples
    --------
    >>> _agree(((1, 5),), ((1, 9),)), _agree(((1, 5),), ((1, 3), (7, 7))), _agree(((1, 3),), ((1, 3), (7, 7)))
    (5, 3, 6)
    """
    for (first, last), (other_first, other_last) in zip(one, other, strict=False):
        if first != other_first:
            return min(first, other_first) - 1
        if last != other_last:
            return min(last, other_last)
    if len(one) == len(other):
        return one[-1][1]
    return max(one, other, key=len)[min(len(one), len(other))][0] - 1


def _hour(moment: datetime) -> int:
    return (moment - EPOCH) // _TRIMMED
