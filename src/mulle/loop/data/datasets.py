"""What people do with a dataset besides ingesting it: check, compare, name, go back, look into, ask by SQL."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.dataset import Dataset
from mulle.core.errors import NotFound, UsageError
from mulle.core.hashing import new_id
from mulle.core.records.base import Cause, Json, to_json
from mulle.core.records.dataset import Audit, CheckResult, DatasetVersion, Quarantine, Tag, verdict_of
from mulle.core.records.exploration import Comparison, Exploration
from mulle.kernel.bookkeeping import data_columns
from mulle.kernel.dtypes import schema_text
from mulle.lifecycle.data.checks.check import Beside, check_batch
from mulle.lifecycle.data.checks.suggest import suggest
from mulle.lifecycle.data.exploration.compare import compare as compared
from mulle.lifecycle.data.exploration.diff import diff
from mulle.lifecycle.data.exploration.explore import explore
from mulle.lifecycle.data.publish import restore
from mulle.lifecycle.data.sql import answer
from mulle.lifecycle.data.version import read_version
from mulle.loop.data.ingest import audit, beside, last_version, stage_new
from mulle.loop.data.share import refresh_share
from mulle.loop.parts import Parts

__all__ = [
    "check_dataset",
    "check_history",
    "diff_versions",
    "explore_dataset",
    "find_data",
    "query",
    "read_rows",
    "restore_version",
    "suggest_checks",
    "tag_version",
]


def find_data(parts: Parts, name: str) -> tuple[Dataset, DatasetVersion]:
    """Find a version by ``DATASET``, ``DATASET@12`` or ``DATASET@tag``.

    Raises
    ------
    NotFound
        When there is no such dataset, version or tag, or an erasure took it.
    """
    dataset, _, asked = name.partition("@")
    declared = parts.project.dataset(dataset)
    store = parts.metadata.datasets
    number = int(asked) if asked.isdigit() else next((t.version for t in store.tags(dataset) if t.name == asked), None)
    version = None if asked and number is None else store.get(dataset, number) if asked else last_version(parts, dataset)
    if version is None:
        raise NotFound(
            f"no version '{asked or 'last'}' of dataset {dataset}", next=f"see `mulle data versions {dataset}`", dataset=dataset
        )
    for erasure in store.erasures(dataset):
        if version.version in erasure.lost:
            raise NotFound(
                f"{dataset}@{version.version} had been taken back, and went with the erasure of {rfc3339(erasure.created_at)}",
                next=f"see `mulle data versions {dataset}`",
                dataset=dataset,
            )
    return declared, version


def read_rows(parts: Parts, name: str) -> pl.LazyFrame:
    """Read a version's rows without bookkeeping columns."""
    dataset, version = find_data(parts, name)
    rows = read_version(parts.lake, dataset, version)
    return rows.select(data_columns(rows.collect_schema()))


def check_dataset(parts: Parts, name: str, *, causes: Sequence[Cause], fresh: bool = False) -> Json:
    """Run a dataset's checks without publishing anything, and keep the results.

    Parameters
    ----------
    name : str
        ``DATASET`` or ``DATASET@VERSION``.
    fresh : bool
        Look at what the source would bring instead of what is published; so it is too when nothing is published.

    Returns
    -------
    dict
        ``dataset``, ``version`` (None for rows of the source), ``rows``, ``verdict``, ``checks`` with samples.
    """
    dataset = parts.project.dataset(name.partition("@")[0])
    now = parts.clock.now()
    if fresh or last_version(parts, dataset.name) is None:
        version, (rows, results) = None, _checked_source(parts, dataset)
    else:
        _, found = find_data(parts, name)
        version, rows = found.version, found.rows
        frame = read_version(parts.lake, dataset, found)
        against = Beside(published=frame, version=found, references=beside(parts, dataset), whole=True)
        results = check_batch(dataset, frame, against, now=now)
    record = Audit(
        id=new_id(now),
        created_at=now,
        causes=tuple(causes),
        dataset=dataset.name,
        version=version,
        rows=rows,
        checks=results,
    )
    parts.metadata.datasets.add_audit(record)
    return {**to_json(record), "verdict": verdict_of(results)}


def _checked_source(parts: Parts, dataset: Dataset) -> tuple[int, tuple[CheckResult, ...]]:
    now = parts.clock.now()
    staged = stage_new(parts, dataset, batch=f"check-{new_id(now)}", now=now)
    if staged is None:
        return 0, ()
    try:
        return staged.rows, audit(parts, dataset, staged)
    finally:
        parts.lake.unpark(f"staging/{dataset.name}/{staged.batch}")


def check_history(parts: Parts, name: str, limit: int = 100) -> Json:
    """List how each check of a dataset went, oldest first: at every publish, refusal and audit.

    Returns
    -------
    dict
        ``items``: ``{id, created_at, kind (version, quarantine, audit), version, rows, verdict, checks}``.
    """
    store = parts.metadata.datasets
    parts.project.dataset(name)
    kept: list[tuple[str, int | None, DatasetVersion | Quarantine | Audit]] = [
        *(("version", v.version, v) for v in store.versions(name, limit)),
        *(("quarantine", None, q) for q in store.quarantines(name, limit)),
        *(("audit", a.version, a) for a in store.audits(name, limit)),
    ]
    items = [
        {
            "id": record.id,
            "created_at": rfc3339(record.created_at),
            "kind": kind,
            "version": version,
            "rows": record.rows,
            "verdict": verdict_of(record.checks),
            "checks": [{**to_json(c), "samples": []} for c in record.checks],
        }
        for kind, version, record in sorted(kept, key=lambda item: item[2].created_at)[-limit:]
    ]
    return {"items": items, "next": None}


def diff_versions(parts: Parts, before: str, after: str) -> Json:
    """Compare two versions of a dataset: rows, schema and distributions.

    Raises
    ------
    UsageError
        When they are of two datasets.
    """
    (dataset, first), (other, second) = find_data(parts, before), find_data(parts, after)
    if dataset.name != other.name:
        raise UsageError(f"{before} and {after} are two datasets", next="name two versions of one dataset")
    a, b = (read_version(parts.lake, dataset, v) for v in (first, second))
    found = to_json(diff(a, b, key=dataset.identity))
    head = {"id": f"{dataset.name}@{first.version}..{second.version}", "created_at": rfc3339(parts.clock.now())}
    return {**head, "dataset": dataset.name, "before": first.version, "after": second.version, **found}


def tag_version(parts: Parts, name: str, tag: str) -> Json:
    """Name a version; the newest use of a name wins.

    Raises
    ------
    UsageError
        On a tag that reads like a version number.
    """
    if tag.isdigit() or not tag or any(c in tag for c in "@/ "):
        raise UsageError(f"'{tag}' cannot be a tag", next="use a name such as 2013-q1: no number alone, no '@', '/' or space")
    dataset, version = find_data(parts, name)
    now = parts.clock.now()
    parts.metadata.datasets.tag(Tag(dataset=dataset.name, name=tag, version=version.version, created_at=now))
    refresh_share(parts, dataset.name)
    made = {"id": f"{dataset.name}@{tag}", "created_at": rfc3339(now)}
    return {**made, "dataset": dataset.name, "tag": tag, "version": version.version}


def restore_version(parts: Parts, name: str, *, causes: Sequence[Cause]) -> DatasetVersion:
    """Publish an earlier version's rows again, as the next version."""
    dataset, version = find_data(parts, name)
    made = restore(dataset, version, parts.lake, parts.metadata.datasets, now=parts.clock.now(), causes=causes)
    refresh_share(parts, dataset.name)
    return made


def suggest_checks(parts: Parts, name: str) -> Json:
    """Propose checks from a profile of the published rows, or of what the source gives where nothing is published."""
    dataset = parts.project.dataset(name.partition("@")[0])
    if last_version(parts, dataset.name) is not None:
        found = suggest(dataset, read_rows(parts, name), now=parts.clock.now())
    else:
        now = parts.clock.now()
        staged = stage_new(parts, dataset, batch=f"suggest-{new_id(now)}", now=now)
        if staged is None:
            raise NotFound(f"dataset {name}: its source has no rows", next="look at its path", dataset=name)
        try:
            found = suggest(dataset, parts.lake.parked(f"staging/{dataset.name}/{staged.batch}"), now=now)
        finally:
            parts.lake.unpark(f"staging/{dataset.name}/{staged.batch}")
    return {"id": dataset.name, "created_at": rfc3339(parts.clock.now()), **to_json(found), "text": found.text}


def query(parts: Parts, sql: str, limit: int = 1_000) -> Json:
    """Answer a SELECT over the project's published datasets, each a table of its name (DuckDB's SQL).

    Returns
    -------
    dict
        ``items``: a row each, as JSON values; ``columns`` with their types.

    Raises
    ------
    UsageError
        When the query fails; names the tables that there are.
    """
    names = [n for n in parts.project.datasets if last_version(parts, n) is not None]
    try:
        found = answer(sql, {name: read_rows(parts, name) for name in names if name in sql}, limit=limit)
    except UsageError as error:
        tables = f"tables: {', '.join(names) or 'none published'}"
        raise UsageError(error.detail, next=f"{error.next}; {tables}", **error.facts) from error
    return {"items": to_json(found.to_dicts()), "next": None, "columns": schema_text(found)}


def explore_dataset(
    parts: Parts, name: str, *, target: str | None = None, compare: str | None = None
) -> Exploration | Comparison:
    """Look into a version: what its columns hold, how they hang together, how they change over time.

    Parameters
    ----------
    target : str, optional
        The column that others are related to; the first outcome column by default.
    compare : str, optional
        Another version to lay beside it, as number, tag or ``DATASET@VERSION``.
    """
    dataset, version = find_data(parts, name)
    store = parts.metadata.datasets
    history: list[DatasetVersion | Quarantine | Audit] = [
        *store.versions(dataset.name),
        *store.quarantines(dataset.name),
        *store.audits(dataset.name),
    ]
    aim = target or next((c for c in dataset.outcome if c in version.schema), None)
    rows = read_version(parts.lake, dataset, version)
    if compare is None:
        called = f"{dataset.name}@{version.version}"
        return explore(rows, name=called, target=aim, time=dataset.time, facts=_facts(version), history=history)
    other, before = find_data(parts, compare if "@" in compare else f"{dataset.name}@{compare}")
    if other.name != dataset.name:
        raise UsageError(f"{name} and {compare} are two datasets", next="name two versions of one dataset")
    return compared(
        read_version(parts.lake, dataset, before),
        rows,
        names=(f"{dataset.name}@{before.version}", f"{dataset.name}@{version.version}"),
        key=dataset.identity,
        target=aim,
        time=dataset.time,
        facts=(_facts(before), _facts(version)),
        history=history,
    )


def _facts(version: DatasetVersion) -> dict[str, str]:
    return {"published": rfc3339(version.created_at), "content": version.hash}
