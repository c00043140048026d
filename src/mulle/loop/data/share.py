"""Sharing: a document beside the tables names a dataset's published versions, and another project reads them by its URL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Shared
from mulle.core.errors import NotFound, UsageError
from mulle.core.ports.lake import Lake
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.bookkeeping import VERSION, data_columns
from mulle.lifecycle.data.version import read_version
from mulle.loop.parts import Parts

__all__ = ["SharedReader", "open_shared", "read_shared", "refresh_share", "share", "unshare"]

_ALL = 1_000_000
_NAMED = 20
Opened = Callable[[str], tuple[Lake, str]]
"""Opens a lake by the URL of a document in it; gives the lake and the document's name."""


def share(parts: Parts, name: str) -> Json:
    """Let other projects read a dataset's published versions.

    Returns
    -------
    dict
        ``dataset``, ``url`` (what ``ml.Shared`` and ``ml.read`` take) and the ``versions`` that are there.

    Raises
    ------
    NotFound
        When nothing is published.
    """
    dataset = parts.project.dataset(name)
    if parts.metadata.datasets.get(name) is None:
        raise NotFound(f"dataset {name} has no published version", next=f"run `mulle data ingest {name}` first", dataset=name)
    listed = _listed(parts, dataset)
    address = parts.lake.write_document(_document(name), listed)
    url = address if "://" in address else f"file://{address}"
    versions = [v["version"] for v in reversed(listed["versions"])]
    return {"id": name, "created_at": rfc3339(parts.clock.now()), "dataset": name, "url": url, "versions": versions}


def unshare(parts: Parts, name: str) -> Json:
    """Stop telling other projects of a dataset; the tables stay where they are."""
    if parts.lake.read_document(_document(name)) is not None:
        parts.lake.write_document(_document(name), {"dataset": name, "stopped": True, "versions": []})
    return {"id": name, "created_at": rfc3339(parts.clock.now()), "dataset": name, "url": None, "versions": []}


def refresh_share(parts: Parts, name: str) -> None:
    """Bring a shared dataset's document up to date; nothing happens to one that is not shared."""
    known = parts.lake.read_document(_document(name))
    if known is not None and not known.get("stopped") and name in parts.project.datasets:
        parts.lake.write_document(_document(name), _listed(parts, parts.project.dataset(name)))


@dataclass(frozen=True, slots=True)
class OpenShare:
    """Another project's dataset at one version."""

    dataset: Dataset
    version: DatasetVersion
    lake: Lake


def open_shared(opened: Opened, url: str) -> OpenShare:
    """Open ``URL``, ``URL@12`` or ``URL@tag``.

    Raises
    ------
    NotFound
        When nothing is shared there, or not that version.
    """
    place, asked = _split(url)
    lake, document = opened(place)
    listed = lake.read_document(document)
    if listed is None or not listed["versions"]:
        raise NotFound(
            f"nothing is shared at {place}", next="run `mulle data share DATASET` in the other project, and use the URL it prints"
        )
    number = int(asked) if asked.isdigit() else listed["tags"].get(asked) if asked else listed["versions"][-1]["version"]
    found = next((v for v in listed["versions"] if v["version"] == number), None)
    if found is None:
        there = f"versions: {', '.join(str(v['version']) for v in listed['versions'][-_NAMED:])}"
        tags = f"; tags: {', '.join(listed['tags'])}" if listed["tags"] else ""
        raise NotFound(f"{place} has no version '{asked}'", next=there + tags)
    dataset = Dataset(
        listed["dataset"],
        Shared(place),
        key=listed["key"],
        time=listed["time"],
        known_at=listed["known_at"],
        outcome=listed["outcome"],
    )
    return OpenShare(dataset, from_json(DatasetVersion, found), lake)


def read_shared(opened: Opened, url: str) -> pl.DataFrame:
    """Read another project's published rows, without bookkeeping columns."""
    found = open_shared(opened, url)
    rows = read_version(found.lake, found.dataset, found.version)
    return rows.select(data_columns(rows.collect_schema())).collect()


class SharedReader:
    """Reads what another project has published since; implements `SourceReader`.

    Positions are ``{"version", "hash", "spans", "given"}``: the version read last, the versions whose rows it is made of, and
    all versions whose rows were ever given. After a restore everything is given again, with `repeats` set, so that rows
    that it brought back arrive. A row that only the versions it took back had stays in what was read of them before.
    """

    def __init__(self, source: Shared, opened: Opened) -> None:
        self._source, self._opened = source, opened

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return the rows of the batches published after `positions`, or None."""
        del until
        found = open_shared(self._opened, self._source.url)
        last, version = positions.get("version", 0), found.version
        if version.version == last:
            return None
        before = _numbers(positions.get("spans", [[1, last]]))
        given = _numbers(positions.get("given", [[1, last]]))
        now = _numbers(version.spans or [(1, version.version)])
        fresh = now - before
        again = bool(before - now or fresh & given)
        rows = read_version(found.lake, found.dataset, version, superseded=not again)
        if not again:
            # In the order of their publishing: of two versions of a row the later one must come last here too.
            rows = rows.filter(pl.col(VERSION).is_in(sorted(fresh))).sort(VERSION, maintain_order=True)
        return Batch(
            pieces=rows.select(data_columns(rows.collect_schema())).collect_batches(),
            positions={"version": version.version, "hash": version.hash, "spans": _runs(now), "given": _runs(given | now)},
            origin=f"{self._source.url} version {version.version}",
            repeats=pl.lit(True) if again else None,
        )


def _numbers(spans: Iterable[Sequence[int]]) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}


def _runs(numbers: set[int]) -> list[list[int]]:
    """Write numbers as runs of neighbours, as `_numbers` reads them."""
    firsts = sorted(n for n in numbers if n - 1 not in numbers)
    lasts = sorted(n for n in numbers if n + 1 not in numbers)
    return [[first, last] for first, last in zip(firsts, lasts, strict=True)]


def _listed(parts: Parts, dataset: Dataset) -> Json:
    store = parts.metadata.datasets
    lost = {number for erasure in store.erasures(dataset.name, _ALL) for number in erasure.lost}
    kept = [v for v in store.versions(dataset.name, _ALL) if v.version not in lost]
    versions = [{**to_json(v), "checks": [], "positions": {}} for v in kept]
    return {
        "format": 1,
        "dataset": dataset.name,
        "key": list(dataset.key),
        "time": dataset.time,
        "known_at": dataset.known_at,
        "outcome": list(dataset.outcome),
        "tags": {tag.name: tag.version for tag in store.tags(dataset.name) if tag.version not in lost},
        "versions": versions[::-1],
    }


def _document(dataset: str) -> str:
    return f"shared/{dataset}"


def _split(url: str) -> tuple[str, str]:
    place, mark, asked = url.partition(".json")
    if not mark or (asked and not asked.startswith("@")):
        raise UsageError(
            f"'{url}' is no URL of a shared dataset", next="it ends in shared/DATASET.json, with @VERSION or @TAG after it"
        )
    return place + mark, asked.removeprefix("@")
