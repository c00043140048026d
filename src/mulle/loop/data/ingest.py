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
from mulle.core.errors import Conflict, MulleError
from mulle.core.hashing import hash_json
from mulle.core.ports.source import PartedReader, SourceReader
from mulle.core.records.base import Cause, Json, to_json
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, verdict_of
from mulle.lifecycle.data.checks.check import Beside, check_batch, referenced
from mulle.lifecycle.data.publish import publish, recover
from mulle.lifecycle.data.stage import Staged, stage, stage_labels, staged_rows
from mulle.lifecycle.data.version import read_version
from mulle.loop.data.share import refresh_share
from mulle.loop.parts import Parts

__all__ = [
    "all_datasets",
    "audit",
    "beside",
    "ingest",
    "ingest_all",
    "ingest_labels",
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
    references: dict[str, pl.LazyFrame] | None = None,
    anew: bool = False,
) -> Staged | None:
    """Read what is new and park it outside the table; None when there is nothing.

    A source that gives all its rows each time gives those again that were turned away. They are taken along when all of
    them now pass, since what kept them out may have been mended, and left out otherwise.

    Parameters
    ----------
    batch : str
        Names the parked rows; the same name gives the same place, so that repeating is harmless.
    until : datetime, optional
        On a replay clock: only rows known by then.
    reader : SourceReader, optional
        Instead of the dataset's own source.
    references : dict, optional
        See `audit`.
    anew : bool
        Also read again what was turned away since the last published version.
    """
    source = reader or parts.source(dataset)
    previous = last_version(parts, dataset.name)

    def staged(refused: bool) -> Staged | None:
        return stage(dataset, source, previous, parts.lake, batch=batch, now=now, until=until, refused=refused, anew=anew)

    found = staged(refused=True)
    if found is None or not found.again or verdict_of(audit(parts, dataset, found, references)) != "fail":
        return found
    return staged(refused=False)


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
            corrects=staged.labels,
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
    reader: SourceReader | None = None,
    until: datetime | None = None,
) -> DatasetVersion | Quarantine:
    """Publish an audited batch, or move it to quarantine when a check failed.

    Of a batch that several files made, those that pass by themselves are published; what is given back is then the
    first quarantine.

    A run and a tick may read the same new rows: the batch that comes second is left out, and what only it had is read
    again from where the published version ends.

    Parameters
    ----------
    bulk : bool, optional
        Whether the rows are history that is loaded later. By default those of the first publish are, and all that a
        replay loads; what comes afterwards on the wall clock arrives live.
    reader, until
        As for `stage_new`.
    """
    source = reader or parts.source(dataset)
    if verdict_of(results) == "fail" and len(staged.parts) > 1 and isinstance(source, PartedReader):
        if bulk is None:
            bulk = not _live(parts, last_version(parts, dataset.name))
        return _apart(parts, dataset, staged, source, until=until, causes=causes, bulk=bulk)
    with publishing(parts):
        last = last_version(parts, dataset.name)
        if last is not None and last.version != staged.after and last.id != staged.id:
            parts.lake.unpark(f"staging/{dataset.name}/{staged.batch}")
            return last
        live = _live(parts, last) if bulk is None else not bulk
        before = parts.metadata.datasets.get(dataset.name, staged.after) if staged.after else None
        # Under the lock, so that no reader can have looked between this instant and the commit.
        now = parts.clock.now()
        made = publish(dataset, staged, results, before, parts.lake, parts.metadata.datasets, now=now, causes=causes, live=live)
        refresh_share(parts, dataset.name)
        return made


def _live(parts: Parts, last: DatasetVersion | None) -> bool:
    return last is not None and isinstance(parts.clock, WallClock)


def _apart(
    parts: Parts,
    dataset: Dataset,
    staged: Staged,
    reader: PartedReader,
    *,
    until: datetime | None,
    causes: tuple[Cause, ...],
    bulk: bool,
) -> DatasetVersion | Quarantine:
    """Judge the halves of a batch that failed by themselves, and their halves, until only what is bad is turned away."""
    parts.lake.unpark(f"staging/{dataset.name}/{staged.batch}")
    middle, done = len(staged.parts) // 2, []
    for number, names in enumerate((staged.parts[:middle], staged.parts[middle:])):
        source = reader.only(names)
        half = stage_new(parts, dataset, batch=f"{staged.batch}-{number}", now=staged.at, until=until, reader=source)
        if half is not None:
            checks = audit(parts, dataset, half)
            done.append(publish_staged(parts, dataset, half, checks, causes=causes, bulk=bulk, reader=source, until=until))
    made = next((d for d in done if isinstance(d, Quarantine)), done[-1] if done else last_version(parts, dataset.name))
    if made is None:
        raise Conflict(f"dataset {dataset.name}: what was read has gone meanwhile", next="try again", dataset=dataset.name)
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
    anew: bool = False,
) -> tuple[DatasetVersion | Quarantine, ...]:
    """Stage, audit and publish what one dataset's source has, then what its labels have; empty when there is nothing new.

    Parameters
    ----------
    reader : SourceReader, optional
        Instead of the dataset's own source; labels are then left alone.
    anew : bool
        See `stage_new`.
    """
    made: list[DatasetVersion | Quarantine] = []
    last = last_version(parts, dataset.name)
    batch = hash_json([dataset.name, last.version if last else 0, str(now), str(until), [c.id for c in causes]])[:16]
    staged = stage_new(parts, dataset, batch=batch, now=now, until=until, reader=reader, anew=anew)
    if staged is not None:
        checks = audit(parts, dataset, staged)
        made.append(publish_staged(parts, dataset, staged, checks, causes=causes, bulk=bulk, reader=reader, until=until))
    if reader is None:
        # Labels that come with the very first rows are history like them.
        first = bulk is None and last is None
        done = ingest_labels(
            parts, dataset, batch=f"{batch}-labels", now=now, causes=causes, until=until, bulk=True if first else bulk
        )
        made += [] if done is None else [done]
    return tuple(made)


def ingest_labels(
    parts: Parts,
    dataset: Dataset,
    *,
    batch: str,
    now: datetime,
    causes: tuple[Cause, ...],
    until: datetime | None = None,
    bulk: bool | None = None,
) -> DatasetVersion | Quarantine | None:
    """Publish the outcomes that a dataset's labels bring to its published rows; None when they bring none."""
    reader, last = parts.labels(dataset), last_version(parts, dataset.name)
    if reader is None or last is None:
        return None
    staged = stage_labels(dataset, reader, last, parts.lake, batch=batch, now=now, until=until)
    if staged is None:
        return None
    return publish_staged(parts, dataset, staged, audit(parts, dataset, staged), causes=causes, bulk=bulk)


def ingest_all(
    parts: Parts,
    names: Sequence[str] | None = None,
    *,
    causes: tuple[Cause, ...],
    bulk: bool | None = None,
    anew: bool = False,
    progress: Callable[[str, str], None] = lambda *_: None,
) -> Json:
    """Bring in what is new of the datasets named, or of all; references before those whose checks name them.

    A source that fails keeps no other waiting.

    Parameters
    ----------
    bulk : bool, optional
        See `publish_staged`.
    anew : bool
        See `stage_new`.
    progress : callable
        Told a dataset's name and what is done with it.

    Returns
    -------
    dict
        ``items``: ``{id, created_at, dataset, action (published, quarantined, nothing new), version, added, replaced, rows,
        verdict, checks}``.

    Raises
    ------
    MulleError
        The first failure, once every dataset had its turn.
    """
    chosen = all_datasets(parts.project) if names is None else ordered([parts.project.dataset(n) for n in names])
    asked = {d.name for d in chosen} if names is None else set(names)
    items, failures = [], []
    for dataset in (d for d in chosen if d.name in asked):
        progress(dataset.name, "reading")
        try:
            made = ingest(parts, dataset, now=parts.clock.now(), causes=causes, bulk=bulk, anew=anew)
        except MulleError as error:
            failures.append(error)
            progress(dataset.name, "failed")
            continue
        items.append(_told(parts, dataset.name, made))
        progress(dataset.name, items[-1]["action"])
    if failures:
        raise failures[0]
    return {"items": items, "next": None}


def _told(parts: Parts, name: str, made: Sequence[DatasetVersion | Quarantine]) -> Json:
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
    if not made:
        return told
    published = [m for m in made if isinstance(m, DatasetVersion)]
    refused = next((m for m in made if isinstance(m, Quarantine)), None)
    shown = refused or published[0]
    told |= {"id": shown.id, "created_at": to_json(shown.created_at), "causes": to_json(shown.causes)}
    told |= {"verdict": verdict_of(shown.checks), "checks": to_json(shown.checks)}
    if refused is not None:
        return told | {"action": "quarantined", "added": refused.rows, "address": refused.address}
    return told | {
        "action": "published",
        "added": sum(m.added for m in published),
        "replaced": sum(m.replaced for m in published),
    }


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
