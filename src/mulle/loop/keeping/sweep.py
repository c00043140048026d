"""What no retained record needs: found by reading the records, removed by moving it aside first, safe beside a running loop.

Kept whatever its age: what an unfinished run works with, every version that was ever deployed and the latest of each model, with
their runs' code, bundle and MLflow run. The rest goes once it is older than the setting `keep`; what no record names at all, a
day after it was last written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mulle.core.clock import duration
from mulle.core.errors import NotFound, Unavailable
from mulle.core.hashing import new_id
from mulle.core.records.deployment import PRODUCTION, STAGING
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.core.records.run import Run
from mulle.kernel.faults import point
from mulle.lifecycle.data.version import table_name
from mulle.loop.data.ingest import publishing
from mulle.loop.engine import sweep_journal
from mulle.loop.parts import Parts
from mulle.loop.place import shared_journal

__all__ = ["JOURNAL", "LOGGED", "Leftover", "empty_trash", "leftovers"]

JOURNAL = "journal"
"""The kind that goes last: its rows say which runs have not been swept yet."""

LOGGED = (PREDICTIONS, LABELS, f"{PREDICTIONS}_{STAGING}", f"{LABELS}_{STAGING}")
"""Tables that logs are drained into."""

_ORPHAN = timedelta(days=1)
"""Age of what no record names: a run that is being recorded may name it in a moment."""

_MOST = 1_000_000
_RUNS_AT_ONCE = 10_000
_TRASH = "trash"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that may go.

    Attributes
    ----------
    kind : str
        ``scratch``, ``bundle``, ``code``, ``staging``, ``quarantine``, ``lake``, ``tracking`` or ``journal``.
    remove : callable
    waits : str
        Why it cannot go now; empty where it can.
    """

    kind: str
    address: str
    bytes: int
    why: str
    remove: Callable[[], object]
    waits: str = ""


@dataclass(frozen=True, slots=True)
class _Needed:
    """What the records need, whatever its age."""

    runs: frozenset[str]
    bundles: frozenset[str]
    code: frozenset[str]


def leftovers(parts: Parts) -> Iterator[Leftover]:
    """Find what may go, as the records stand now, and what may as soon as who holds it is back."""
    now = parts.clock.now()
    before = now - duration(parts.settings.keep)
    runs = {run.id: run for run in parts.metadata.runs.list(limit=_MOST)}
    needed = _needed(parts, runs, before)
    old = [run for run in parts.metadata.queue.finished(_id_at(before), _RUNS_AT_ONCE) if run in runs]
    yield from _scratch(parts, runs, now, before)
    yield from _bundles(parts, needed, now)
    yield from _code(parts, needed, now)
    yield from _parked(parts, runs, now, before)
    yield from _superseded(parts, before, now)
    gone = [run for run in old if run not in needed.runs]
    yield from _tracked(parts, gone)
    if old:
        words = f"{len(old)} runs that ended before {before:%Y-%m-%d}"
        yield Leftover(JOURNAL, "engine", 0, words, lambda: _forget(parts, old))


def empty_trash(home: Path) -> None:
    """Remove what was moved aside, also by a sweep that was killed."""
    shutil.rmtree(home / _TRASH, ignore_errors=True)


def _needed(parts: Parts, runs: dict[str, Run], before: datetime) -> _Needed:
    versions = parts.metadata.models.list(limit=_MOST, members=True)
    deployed = {
        (d.model, n)
        for environment in (PRODUCTION, STAGING)
        for d in parts.metadata.deployments.all(environment)
        for n in (d.to_version, d.from_version, *(route.version for route in d.routes))
    }
    latest: dict[str, int] = {}
    for version in versions:
        latest[version.model] = max(version.version, latest.get(version.model, 0))
    kept = [
        v
        for v in versions
        if (v.model, v.version) in deployed or latest[v.model] == v.version or v.created_at >= before
    ]  # fmt: skip
    unfinished = set(parts.metadata.queue.unfinished())
    young = {run.id for run in runs.values() if run.created_at >= before}
    needed = {v.run for v in kept} | unfinished | young
    code = {runs[run].code for run in needed if run in runs} | {parts.project.code}
    return _Needed(frozenset(needed), frozenset(v.bundle for v in kept), frozenset(code))


def _scratch(parts: Parts, runs: dict[str, Run], now: datetime, before: datetime) -> Iterator[Leftover]:
    unfinished = set(parts.metadata.queue.unfinished())
    for folder in _folders(parts.settings.home / "runs"):
        if folder.name in unfinished:
            continue
        run = runs.get(folder.name)
        if run is not None and run.created_at < before:
            yield _folder(parts, "scratch", folder, f"what the run of {run.model} on {run.created_at:%Y-%m-%d} worked with")
        elif run is None and _age(folder, now) > _ORPHAN:
            yield _folder(parts, "scratch", folder, "no run has this name")


def _bundles(parts: Parts, needed: _Needed, now: datetime) -> Iterator[Leftover]:
    known = {v.bundle: v for v in parts.metadata.models.list(limit=_MOST, members=True)}
    for folder in _folders(parts.settings.home / "bundles"):
        if folder.name in needed.bundles or _age(folder, now) <= _ORPHAN:
            continue
        version = known.get(folder.name)
        if version is None and parts.metadata.queue.unfinished():
            continue  # a run under way may have made the same one again
        why = "no version has it" if version is None else f"{version.model}@{version.version} was never deployed"
        yield _folder(parts, "bundle", folder, why)


def _code(parts: Parts, needed: _Needed, now: datetime) -> Iterator[Leftover]:
    for folder in _folders(parts.settings.home / "code"):
        if folder.name not in needed.code and _age(folder, now) > _ORPHAN:
            yield _folder(parts, "code", folder, "no run that is kept executed it")


def _parked(parts: Parts, runs: dict[str, Run], now: datetime, before: datetime) -> Iterator[Leftover]:
    unfinished = set(parts.metadata.queue.unfinished())
    for name in parts.lake.parkings("staging"):
        run = name.rsplit("/", 1)[-1][:26]
        # A batch bears its run's name; what else waits in staging is an ingest's own, whose name begins with its instant.
        if run not in unfinished and run < _id_at(now - _ORPHAN) and run.isalnum() and run.isupper():
            yield _parking(parts, "staging", name, "its run has ended" if run in runs else "its ingest was given up")
    old = {q.address: q for q in parts.metadata.datasets.quarantines(limit=_MOST) if q.created_at < before}
    for name in parts.lake.parkings("quarantine"):
        batch = next((q for address, q in old.items() if address.removesuffix(".parquet").endswith(name)), None)
        if batch is not None:
            yield _parking(parts, "quarantine", name, f"turned away on {batch.created_at:%Y-%m-%d}; its record and samples stay")


def _superseded(parts: Parts, before: datetime, now: datetime) -> Iterator[Leftover]:
    store = parts.metadata.datasets
    names = dict.fromkeys([*parts.project.datasets, *store.names()])
    tables = {table_name(name): [v.lake_version for v in store.versions(name, _MOST)] for name in names}
    for table, versions in {**tables, **{table: [] for table in LOGGED}}.items():
        try:
            files, size = parts.vacuum(table, older=now - before, needed=versions, dry_run=True)
        except NotFound:
            continue
        if files:

            def remove(table: str = table, versions: Sequence[int] = tuple(versions)) -> None:
                with publishing(parts):
                    parts.vacuum(table, older=now - before, needed=versions, dry_run=False)

            yield Leftover("lake", parts.lake.address(table), size, f"{files} files that no version is read from", remove)


def _tracked(parts: Parts, runs: Sequence[str]) -> Iterator[Leftover]:
    try:
        held = parts.tracking().held() if runs else {}
    except Unavailable as error:
        yield Leftover("tracking", f"{len(runs)} runs", 0, "no version of theirs was ever deployed", lambda: None, error.detail)
        return
    for run in (run for run in runs if run in held):
        why = "its run made no version that was ever deployed"
        yield Leftover("tracking", run, held[run], why, lambda run=run: parts.tracking().remove(run))  # type: ignore[misc]


def _forget(parts: Parts, runs: Sequence[str]) -> None:
    settings = parts.settings
    sweep_journal(settings.home, shared_journal(settings.journal, settings.database), runs)
    point("during:gc:journal")
    parts.metadata.queue.forget(runs)


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")) if place.is_dir() else []


def _age(path: Path, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _folder(parts: Parts, kind: str, folder: Path, why: str) -> Leftover:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Leftover(kind, str(folder), size, why, lambda: _away(parts, folder))


def _away(parts: Parts, folder: Path) -> None:
    # Moved before it is emptied: a bundle's name says that all of it is there.
    trash = parts.settings.home / _TRASH / new_id(parts.clock.now())
    trash.parent.mkdir(exist_ok=True)
    folder.rename(trash)
    point("during:gc:moved")
    shutil.rmtree(trash, ignore_errors=True)


def _parking(parts: Parts, kind: str, name: str, why: str) -> Leftover:
    address = parts.lake.address(name) + ".parquet"
    file = Path(address)
    return Leftover(kind, address, file.stat().st_size if file.exists() else 0, why, lambda: parts.lake.unpark(name))


def _id_at(moment: datetime) -> str:
    """Give what identifiers of a later instant sort above."""
    return new_id(moment)[:10]
