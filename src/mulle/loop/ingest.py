"""Stage 1 composed: stage, check and publish what a source has to give. Called by runs, ticks and replays.

Stage, audit, publish: new rows land outside the table, checks run, and only audited rows are committed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import polars as pl

from mulle.core.declare.checks import OneOf
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.declare.project import Project
from mulle.core.hashing import derived_id, hash_json
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Cause
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine
from mulle.lifecycle.data.check import check_batch
from mulle.lifecycle.data.ingest import Staged, publish, stage, staged_rows
from mulle.lifecycle.data.version import read_version
from mulle.loop.parts import Parts

__all__ = ["all_datasets", "audit", "ingest", "needed", "ordered", "publish_staged", "published", "stage_new"]


def needed(model: Model) -> tuple[Dataset, ...]:
    """List the datasets a model reads, references before the datasets whose checks name them."""
    return ordered((model.features.dataset, *(join.dataset for _, join in model.features.joins)))


def ordered(datasets: Iterable[Dataset]) -> tuple[Dataset, ...]:
    """Put reference datasets before those whose checks name them; each dataset once."""
    found: dict[str, Dataset] = {}

    def visit(dataset: Dataset) -> None:
        if dataset.name in found:
            return
        for reference in _references(dataset):
            if reference.name != dataset.name:
                visit(reference)
        found[dataset.name] = dataset

    for dataset in datasets:
        visit(dataset)
    return tuple(found.values())


def stage_new(
    parts: Parts,
    dataset: Dataset,
    *,
    batch: str,
    now: datetime,
    until: datetime | None = None,
    reader: SourceReader | None = None,
) -> Staged | None:
    """Read what is new and park it outside the table; None when there is nothing.

    Parameters
    ----------
    batch : str
        Names the parked rows; the same name gives the same place, so that repeating is harmless.
    until : datetime, optional
        On a replay clock: only rows known by then.
    reader : SourceReader, optional
        Instead of the dataset's own source.
    """
    source = reader or parts.source(dataset)
    previous = parts.metadata.datasets.get(dataset.name)
    return stage(dataset, source, previous, parts.lake, batch=batch, now=now, until=until)


def audit(
    parts: Parts, dataset: Dataset, staged: Staged, references: dict[str, pl.DataFrame] | None = None
) -> tuple[CheckResult, ...]:
    """Check a staged batch against its declaration, its table and its references."""
    previous = parts.metadata.datasets.get(dataset.name)
    known = dict(references or {})
    for reference in _references(dataset):
        if reference.name not in known:
            known[reference.name] = published(parts, reference)
    return check_batch(
        dataset,
        staged_rows(staged, parts.lake),
        published=None if previous is None else read_version(parts.lake, dataset, previous),
        references=known,
        schema=None if previous is None else previous.schema,
    )


def publish_staged(
    parts: Parts,
    dataset: Dataset,
    staged: Staged,
    results: tuple[CheckResult, ...],
    *,
    now: datetime,
    causes: tuple[Cause, ...],
    bulk: bool = True,
) -> DatasetVersion | Quarantine:
    """Publish an audited batch, or move it to quarantine when a check failed.

    A run and a tick may read the same new rows: the batch that comes second is left out, and what only it had is read
    again from where the published version ends.
    """
    with _alone(parts.settings.home / "publish.lock"):
        last = parts.metadata.datasets.get(dataset.name)
        if last is not None and last.version != staged.after and not _made_by(last, staged, now):
            parts.lake.unpark(f"staging/{dataset.name}/{staged.batch}")
            return last
        return publish(dataset, staged, results, last, parts.lake, parts.metadata.datasets, now=now, causes=causes, bulk=bulk)


def ingest(
    parts: Parts,
    dataset: Dataset,
    *,
    now: datetime,
    causes: tuple[Cause, ...],
    until: datetime | None = None,
    reader: SourceReader | None = None,
) -> DatasetVersion | Quarantine | None:
    """Stage, audit and publish one dataset; None when its source has nothing new."""
    last = parts.metadata.datasets.get(dataset.name)
    batch = hash_json([dataset.name, last.version if last else 0, str(now), str(until), [c.id for c in causes]])[:16]
    staged = stage_new(parts, dataset, batch=batch, now=now, until=until, reader=reader)
    if staged is None:
        return None
    return publish_staged(parts, dataset, staged, audit(parts, dataset, staged), now=now, causes=causes)


def published(parts: Parts, dataset: Dataset) -> pl.DataFrame:
    """Read a dataset's current published rows; an empty frame when nothing was published."""
    version = parts.metadata.datasets.get(dataset.name)
    return pl.DataFrame() if version is None else read_version(parts.lake, dataset, version).collect()


def all_datasets(project: Project) -> tuple[Dataset, ...]:
    """List every dataset of a project, references first."""
    return ordered(project.datasets.values())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Between the look at the last version and the record of the next one nobody else may append.
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made_by(version: DatasetVersion, staged: Staged, now: datetime) -> bool:
    return version.id == derived_id(now, version.dataset, staged.batch)


def _references(dataset: Dataset) -> tuple[Dataset, ...]:
    return tuple(c.reference for c in dataset.checks if isinstance(c, OneOf) and c.reference is not None)
