"""Settings in, wired parts out: the only place where adapters meet the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mulle.core.clock import Clock, WallClock
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.project import Project
from mulle.core.declare.sources import Files, Function, Http, Kafka, Shared, Source, Sql
from mulle.core.errors import UsageError
from mulle.core.ports.compute import Compute
from mulle.core.ports.lake import Lake
from mulle.core.ports.source import SourceReader
from mulle.core.ports.tracking import Tracking
from mulle.core.records.base import Json
from mulle.core.settings import Settings, load_settings
from mulle.loop.parts import Parts
from mulle.loop.share import SharedReader

if TYPE_CHECKING:
    from mulle.adapters.compute.local import LocalCompute
    from mulle.lifecycle.serving.runtime import Runtime

__all__ = ["run_task", "wire", "wire_inference"]

# What a compute child imports while it waits for its first task.
_WARM = (
    "mulle.loop.compute.work",
    "mulle.loop.compute.bundling",
    "mulle.loop.compute.evaluating",
    "mulle.loop.compute.judging",
    "mulle.loop.compute.searching",
    "mulle.adapters.lake.delta",
    "sklearn.pipeline",
    "lightgbm",
    "optuna",
)

# What a process of a search's trials imports.
_TRIALS = ("mulle.lifecycle.training.trial", "lightgbm")


def wire(settings: Settings, *, clock: Clock | None = None, project: Project | None = None) -> Parts:
    """Open the stores that the settings name.

    Parameters
    ----------
    settings : Settings
        Resolved.
    clock : Clock, optional
        Defaults to the wall clock.
    project : Project, optional
        Defaults to the one in the settings' folder, loaded now.

    Returns
    -------
    Parts
        Tracking and compute are made at first use: both are slow to start.

    Raises
    ------
    ProjectError
        When the project does not load.
    Unavailable
        When a store cannot be opened.
    """
    from mulle.adapters.metadata.connect import open_metadata
    from mulle.adapters.online.open import open_online
    from mulle.adapters.sources.frames import FrameReader
    from mulle.kernel.project import load_project

    declared = project or load_project(settings.project)
    settings.home.mkdir(parents=True, exist_ok=True)

    @lru_cache(maxsize=1)
    def tracking() -> Tracking:
        from mulle.adapters.tracking.mlflow import MlflowTracking

        return MlflowTracking(settings.tracking, settings.home / "artifacts")

    pools: list[LocalCompute] = []

    def compute() -> Compute:
        from mulle.adapters.compute.local import LocalCompute

        # An engine closes its pool when it ends; whoever comes next in this process gets another.
        if not pools or pools[-1].closed:
            pools[:] = [LocalCompute(settings.processes, warm=_WARM, log=settings.home / "compute.log")]
        return pools[-1]

    return Parts(
        settings=settings,
        clock=clock or WallClock(),
        project=declared,
        metadata=open_metadata(settings.database),
        lake=_lake(settings.lake),
        online=open_online(settings.online),
        tracking=tracking,
        compute=compute,
        source=lambda dataset: _reader(settings, dataset, dataset.source),
        labels=lambda dataset: None if dataset.labels is None else _reader(settings, dataset, dataset.labels, late=True),
        opened=_opened,
        playback=FrameReader,
    )


def wire_inference(settings: Settings) -> Runtime:
    """Make the inference plane's runtime; a surface serves it.

    Imports nothing that the lean process must not hold: no tracking, no database, no training library.
    """
    from mulle.adapters.online.open import open_online
    from mulle.core.records.bundle import Contract
    from mulle.lifecycle.features.read import OnlineReader
    from mulle.lifecycle.serving.runtime import Runtime

    online = open_online(settings.online, readonly=True)

    def joiner(contract: Contract) -> OnlineReader:
        return OnlineReader(online, contract.joins)

    return Runtime(settings, joiner)


def run_task(name: str, settings: dict[str, str], arguments: Json) -> Json:
    """Run one compute task of a run; the entry point of the compute processes.

    Parameters
    ----------
    name : str
        ``features``, ``search``, ``evaluate``, ``bundle``, ``gate`` or ``reproduce``.
    settings : dict
        Every setting as text.
    arguments : dict
        The task's, and what `loop.compute.work.Work` reads.

    Returns
    -------
    dict
        Small JSON.
    """
    from mulle.loop.compute.bundling import bundle_model
    from mulle.loop.compute.evaluating import evaluate_model
    from mulle.loop.compute.judging import judge_model
    from mulle.loop.compute.searching import search_model
    from mulle.loop.compute.work import Work, build_features

    resolved = load_settings({k: v for k, v in settings.items() if v}, {})
    code = resolved.home / "code" / str(arguments["code"])
    work = Work.of(arguments, _lake(resolved.lake), resolved.home, _project(code))
    if name == "features":
        return build_features(work)
    if name == "search":
        return search_model(work, arguments["search_timeout"], arguments["warm"], _workers(resolved))
    if name == "evaluate":
        return evaluate_model(work, arguments["settings"])
    if name == "bundle":
        return bundle_model(work, arguments["settings"], arguments["metrics"], code)
    if name == "gate":
        return judge_model(work, arguments["champion"], arguments["evaluation"], arguments["bundle"], arguments["replay"])
    if name == "reproduce":
        from mulle.loop.compute.reproducing import reproduce_model

        return reproduce_model(work, arguments["recorded"], arguments["tolerance"])
    raise UsageError(f"no task '{name}'", next="this is a defect of Mulle; please report it")


def _workers(settings: Settings) -> Callable[[int], Compute]:
    """Give what makes processes for a search's trials."""
    from mulle.adapters.compute.local import LocalCompute

    return lambda processes: LocalCompute(processes, warm=_TRIALS, log=settings.home / "compute.log")


@lru_cache(maxsize=4)
def _project(code: Path) -> Project:
    from mulle.kernel.project import load_project

    return load_project(code)


def _reader(settings: Settings, dataset: Dataset, source: Source, *, late: bool = False) -> SourceReader:
    """Make the reader of a source; each brings its library only when it is used."""
    match source:
        case Files():
            from mulle.adapters.sources.files import FilesReader

            text = [n for n, t in dataset.schema if t == "String"]
            return FilesReader(settings.project, source, text=text, keyed=bool(dataset.identity), late=late)
        case Sql():
            from mulle.adapters.sources.sql import SqlReader

            return SqlReader(source)
        case Kafka():
            from mulle.adapters.sources.kafka import KafkaReader

            servers = source.servers or settings.broker
            if not servers:
                raise UsageError(
                    f"dataset {dataset.name}: no broker is named for the topic {source.topic}",
                    next="set MULLE_BROKER=host:port, or ml.Kafka(servers=...)",
                )
            return KafkaReader(source, servers)
        case Http():
            from mulle.adapters.sources.http import HttpReader

            return HttpReader(source)
        case Function():
            from mulle.adapters.sources.function import FunctionReader

            return FunctionReader(source)
        case Shared():
            return SharedReader(source, _opened)


def _lake(url: str) -> Lake:
    from mulle.adapters.lake.delta import DeltaLake

    # Plain HTTP is only for a server of one's own, which is then named.
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return DeltaLake(url, {"AWS_ALLOW_HTTP": "true"} if plain and url.startswith("s3://") else None)


def _opened(url: str) -> tuple[Lake, str]:
    """Open the lake that a shared dataset's document lies in."""
    root, mark, document = url.rpartition("/shared/")
    if not mark:
        raise UsageError(f"'{url}' is no URL of a shared dataset", next="use what `mulle data share` prints")
    return _lake(root), f"shared/{document.removesuffix('.json')}"
