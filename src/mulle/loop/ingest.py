"""Stage 1 composed: stage, check and publish what a source has to give. Called by runs, ticks and replays.

Stage, audit, publish: new rows land outside the table, checks run, and only audited rows are committed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import polars as pl

from mulle.core.clock import WallClock
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.declare.project import Project
from mulle.core.hashing import hash_json
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Cause, Json, to_json
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, verdict_of
from mulle.lifecycle.data.checks.check import Beside, check_batch, referenced
from mulle.lifecycle.data.ingest import Staged, publish, recover, stage, staged_rows
from mulle.lifecycle.data.version import read_version
from mulle.loop.parts import Parts
from mulle.loop.share import refresh_share

__all__ = [
    "all_datasets",
    "audit",
    "beside",
    "ingest",
    "ingest_all",
    "last_version",
    "needed",
    "ordered",
    "publish_staged",
    "published",
    "publishing",
    "stage_new",
]


def needed(model: Model) -> tuple[Dataset, ...]:
    """List the datasets a model reads, references before the datasets whose checks name them."""
    return ordered((model.features.dataset, *(join.dataset for _, join in model.features.joins)))


def ordered(datasets: Iterable[Dataset]) -> tuple[Dataset, ...]:
    """Put reference datasets before those whose checks name them; each dataset once."""
    found: dict[str, Dataset] = {}

    def visit(dataset: Dataset) -> None:
        if dataset.name in found:
            return
        for reference in referenced(dataset):
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
    labels = parts.labels(dataset) if reader is None else None
    previous = last_version(parts, dataset.name)
    return stage(dataset, source, previous, parts.lake, batch=batch, now=now, until=until, labels=labels)


def audit(
    parts: Parts, dataset: Dataset, staged: Staged, references: dict[str, pl.LazyFrame] | None = None
) -> tuple[CheckResult, ...]:
    """Check a staged batch against its declaration, its table and its references."""
    previous = parts.metadata.datasets.get(dataset.name)
    known = dict(references or {}) | beside(parts, dataset, without=references or {})
    return check_batch(
        dataset,
        staged_rows(staged, parts.lake),
        Beside(
            published=None if previous is None else read_version(parts.lake, dataset, previous),
            version=previous,
            references=known,
            counted=staged.counted,
        ),
        now=staged.at,
    )


def publish_staged(
    parts: Parts,
    dataset: Dataset,
    staged: Staged,
    results: tuple[CheckResult, ...],
    *,
    causes: tuple[Cause, ...],
    bulk: bool | None = None,
) -> DatasetVersion | Quarantine:
    """Publish an audited batch, or move it to quarantine when a check failed.

    A run and a tick may read the same new rows: the batch that comes second is left out, and what only it had is read
    again from where the published version ends.

    Parameters
    ----------
    bulk : bool, optional
        Whether the rows are history that is loaded later. By default those of the first publish are, and all that a
        replay loads; what comes afterwards on the wall clock arrives live.
    """
    with publishing(parts):
        last = last_version(parts, dataset.name)
        if last is not None and last.version != staged.after and last.id != staged.id:
            parts.lake.unpark(f"staging/{dataset.name}/{staged.batch}")
            return last
        live = last is not None and isinstance(parts.clock, WallClock) if bulk is None else not bulk
        before = parts.metadata.datasets.get(dataset.name, staged.after) if staged.after else None
        # Under the lock, so that no reader can have looked between this instant and the commit.
        now = parts.clock.now()
        made = publish(dataset, staged, results, before, parts.lake, parts.metadata.datasets, now=now, causes=causes, live=live)
        refresh_share(parts, dataset.name)
        return made


def ingest(
    parts: Parts,
    dataset: Dataset,
    *,
    now: datetime,
    causes: tuple[Cause, ...],
    until: datetime | None = None,
    reader: SourceReader | None = None,
    bulk: bool | None = None,
) -> DatasetVersion | Quarantine | None:
    """Stage, audit and publish one dataset; None when its source has nothing new."""
    last = last_version(parts, dataset.name)
    batch = hash_json([dataset.name, last.version if last else 0, str(now), str(until), [c.id for c in causes]])[:16]
    staged = stage_new(parts, dataset, batch=batch, now=now, until=until, reader=reader)
    if staged is None:
        return None
    return publish_staged(parts, dataset, staged, audit(parts, dataset, staged), causes=causes, bulk=bulk)


def ingest_all(
    parts: Parts,
    names: Sequence[str] | None = None,
    *,
    causes: tuple[Cause, ...],
    bulk: bool | None = None,
    progress: Callable[[str, str], None] = lambda *_: None,
) -> Json:
    """Bring in what is new of the datasets named, or of all; references before those whose checks name them.

    Parameters
    ----------
    bulk : bool, optional
        See `publish_staged`.
    progress : callable
        Told a dataset's name and what is done with it.

    Returns
    -------
    dict
        ``items``: ``{id, created_at, dataset, action (published, quarantined, nothing new), version, added, replaced, rows,
        verdict, checks}``.
    """
    chosen = all_datasets(parts.project) if names is None else ordered([parts.project.dataset(n) for n in names])
    asked = {d.name for d in chosen} if names is None else set(names)
    items = []
    for dataset in (d for d in chosen if d.name in asked):
        progress(dataset.name, "reading")
        made: DatasetVersion | Quarantine | None = None
        # Labels that waited for rows of this very batch find them once it is published.
        for _ in range(2 if dataset.labels is not None else 1):
            done = ingest(parts, dataset, now=parts.clock.now(), causes=causes, bulk=bulk)
            made = done or made
            if not isinstance(done, DatasetVersion):
                break
        items.append(_told(parts, dataset.name, made))
        progress(dataset.name, items[-1]["action"])
    return {"items": items, "next": None}


def _told(parts: Parts, name: str, made: DatasetVersion | Quarantine | None) -> Json:
    last = parts.metadata.datasets.get(name)
    told: Json = {"id": name, "created_at": to_json(parts.clock.now()), "dataset": name, "version": last and last.version}
    told |= {
        "rows": last.rows if last else 0,
        "added": 0,
        "replaced": 0,
        "verdict": "pass",
        "checks": [],
        "action": "nothing new",
    }
    if isinstance(made, DatasetVersion):
        told |= {"action": "published", "added": made.added, "replaced": made.replaced}
    if isinstance(made, Quarantine):
        told |= {"action": "quarantined", "added": made.rows, "address": made.address}
    if made is not None:
        told |= {"id": made.id, "created_at": to_json(made.created_at), "causes": to_json(made.causes)}
        told |= {"verdict": verdict_of(made.checks), "checks": to_json(made.checks)}
    return told


def last_version(parts: Parts, dataset: str) -> DatasetVersion | None:
    """Return the last published version, records of commits that lack one written first."""
    return recover(dataset, parts.lake, parts.metadata.datasets)


def beside(parts: Parts, dataset: Dataset, without: Collection[str] = ()) -> dict[str, pl.LazyFrame]:
    """Give the current rows of the datasets that a dataset's checks name."""
    found = {}
    for reference in referenced(dataset):
        version = parts.metadata.datasets.get(reference.name)
        if reference.name not in without and version is not None:
            found[reference.name] = read_version(parts.lake, reference, version)
    return found


def published(parts: Parts, dataset: Dataset) -> pl.DataFrame:
    """Read a dataset's current published rows; an empty frame when nothing was published."""
    version = parts.metadata.datasets.get(dataset.name)
    return pl.DataFrame() if version is None else read_version(parts.lake, dataset, version).collect()


def all_datasets(project: Project) -> tuple[Dataset, ...]:
    """List every dataset of a project, references first."""
    return ordered(project.datasets.values())


@contextmanager
def publishing(parts: Parts) -> Iterator[None]:
    """Hold off every other publisher of this home: between the last version and the record of the next none may append."""
    path = parts.settings.home / "publish.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
