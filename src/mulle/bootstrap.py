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
from mulle.core.declare.training import Search
from mulle.core.errors import UsageError
from mulle.core.ports.compute import Compute
from mulle.core.ports.lake import Lake
from mulle.core.ports.rowfiles import RowFiles
from mulle.core.ports.source import SourceReader
from mulle.core.ports.tracking import Tracking
from mulle.core.records.base import Json
from mulle.core.settings import Settings, load_settings
from mulle.loop.parts import Parts
from mulle.loop.share import SharedReader

if TYPE_CHECKING:
    from mulle.adapters.streams.kafka import KafkaStream
    from mulle.core.ports.stream import Codec
    from mulle.lifecycle.serving.runtime import Runtime
    from mulle.lifecycle.serving.score import Ready
    from mulle.lifecycle.serving.streaming import Answering, StreamOrder
    from mulle.loop.batch.chunk import Bench

__all__ = ["batch_compute", "run_chunk", "run_task", "wire", "wire_inference", "wire_stream"]

# What a compute child imports while it waits for its first task.
_WARM = (
    "mulle.loop.compute.work",
    "mulle.loop.compute.bundling",
    "mulle.loop.compute.evaluating",
    "mulle.loop.compute.judging",
    "mulle.loop.compute.members",
    "mulle.loop.compute.searching",
    "mulle.adapters.lake.delta",
    "sklearn.pipeline",
    "lightgbm",
    "optuna",
)

# What a process of a batch job's chunks imports.
_SCORING = ("mulle.loop.batch.chunk", "mulle.adapters.lake.delta", "mulle.adapters.sources.rowfiles")

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

    pools: list[Compute] = []

    def compute() -> Compute:
        # An engine closes its pool when it ends; whoever comes next in this process gets another.
        if not pools or pools[-1].closed:
            pools[:] = [_compute(settings, settings.processes, _WARM, waits=True)]
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
        files=_files(settings.project),
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
        ``features``, ``search``, ``evaluate``, ``bundle``, ``gate``, ``cut``, ``members`` or ``reproduce``.
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
    from mulle.loop.compute.cutting import cut_members
    from mulle.loop.compute.evaluating import evaluate_model
    from mulle.loop.compute.judging import judge_model
    from mulle.loop.compute.members import train_members
    from mulle.loop.compute.searching import search_model
    from mulle.loop.compute.work import Work, build_features

    resolved = load_settings({k: v for k, v in settings.items() if v}, {})
    code = resolved.home / "code" / str(arguments["code"])
    work = Work.of(arguments, _lake(resolved.lake), resolved.home, _project(code))
    if name == "features":
        _start_trials(resolved, work.model.search)
        return build_features(work)
    if name == "search":
        return search_model(work, arguments["search_timeout"], arguments["warm"], _workers(resolved))
    if name == "evaluate":
        return evaluate_model(work, arguments["settings"])
    if name == "bundle":
        return bundle_model(work, arguments["settings"], arguments["metrics"], code)
    if name == "gate":
        return judge_model(work, arguments["champion"], arguments["evaluation"], arguments["bundle"], arguments["replay"])
    if name == "cut":
        return cut_members(work, arguments["chunk"], arguments["only"])
    if name == "members":
        told = {name: arguments[name] for name in ("chunk", "keys", "settings", "champions", "replay")}
        return train_members(work, **told, code=code)
    if name == "import":
        from mulle.loop.compute.importing import import_model

        return import_model(work, arguments["given"])
    if name == "reproduce":
        from mulle.loop.compute.reproducing import reproduce_model

        return reproduce_model(work, arguments["recorded"], arguments["tolerance"])
    raise UsageError(f"no task '{name}'", next="this is a defect of Mulle; please report it")


def run_chunk(settings: dict[str, str], job: str, chunk: int) -> Json:
    """Do one chunk of a batch job; the entry point of the compute processes.

    Parameters
    ----------
    settings : dict
        Every setting as text.
    job : str
        The job's id: its plan lies in the home.
    chunk : int

    Returns
    -------
    dict
        What `loop.batch.chunk.score_chunk` tells.
    """
    from mulle.loop.batch.chunk import score_chunk

    resolved = load_settings({k: v for k, v in settings.items() if v}, {})
    return score_chunk(_bench(resolved.home, resolved.lake, resolved.project, job), chunk)


def batch_compute(settings: Settings, processes: int) -> Compute:
    """Make processes for the chunks of batch jobs; they load what scoring needs and no more."""
    return _compute(settings, processes, _SCORING)


def _compute(settings: Settings, processes: int, warm: tuple[str, ...], *, waits: bool = False) -> Compute:
    """Start processes where the settings say; those that wait for others leave these their place."""
    log = settings.home / "compute.log"
    if settings.compute == "local":
        from mulle.adapters.compute.local import LocalCompute

        return LocalCompute(processes, warm=warm, log=log)
    if settings.compute.startswith("dask://"):
        from mulle.adapters.compute.dask import DaskCompute

        lake = [] if "://" in settings.lake else [Path(settings.lake)]
        shared = [settings.home, *(folder for folder in lake if folder.is_dir() and not folder.is_relative_to(settings.home))]
        return DaskCompute(settings.compute, processes, shared=shared, warm=warm, log=log, waits=waits)
    raise UsageError(f"compute is '{settings.compute}'", next="set MULLE_COMPUTE to local, dask://host:port or dask://local")


_started: dict[tuple[Settings, int], Compute] = {}
"""Processes for trials that were started early, in this process."""


def _start_trials(settings: Settings, search: Search) -> None:
    """Start the processes of a search's trials while its features are made: to import takes them longer than most trials."""
    for other in [key for key in _started if key != (settings, search.parallel)]:
        _started.pop(other).close()
    if search.apart and not _started:
        _started[settings, search.parallel] = _compute(settings, search.parallel, _TRIALS)


def wire_stream(settings: Settings, order: StreamOrder, *, say: Callable[[str], None]) -> tuple[KafkaStream, Answering]:
    """Make a stream and its handler; both are as lean as the inference plane.

    Raises
    ------
    UsageError
        When the URLs are no topics, or input and output are not on the same brokers.
    """
    from mulle.adapters.online.open import open_online
    from mulle.adapters.sources.environment import filled
    from mulle.adapters.streams.kafka import KafkaStream, read_topic
    from mulle.core.records.bundle import Contract
    from mulle.kernel.routes import ROUTES
    from mulle.lifecycle.features.read import OnlineReader
    from mulle.lifecycle.serving.following import Following
    from mulle.lifecycle.serving.log import log_folder
    from mulle.lifecycle.serving.pending import PendingLog
    from mulle.lifecycle.serving.shelf import Shelf
    from mulle.lifecycle.serving.slot import take_slot
    from mulle.lifecycle.serving.streaming import Answering

    source = read_topic(order.input, settings.broker, filled)
    output = read_topic(order.output, source.servers)
    dead = read_topic(order.dead if "://" in order.dead else f"kafka:///{order.dead}", source.servers) if order.dead else None
    if {source.servers} != {t.servers for t in (source, output, *([dead] if dead else []))}:
        raise UsageError("a transaction cannot span brokers: input, output and dead letters must be on the same ones")
    name, _, version = order.model.partition("@")
    group = order.group or f"mulle-{name}"
    online = open_online(settings.online, readonly=True)

    def joiner(contract: Contract) -> OnlineReader:
        return OnlineReader(online, contract.joins)

    pinned = int(version) if version.isdigit() else None
    following = Following(settings.home / ROUTES, Shelf(joiner), name, pinned, say=say)
    log = PendingLog(log_folder(settings.home), group, fsync=settings.fsync)
    handler = Answering(name, following, _codec(order, output.name), log, WallClock(), dead=dead is not None)
    stream = KafkaStream(
        source, output.name, dead.name if dead else None, group=group, name=take_slot(settings.home / "streams", group),
        most=order.most, linger=order.linger, say=say,
    )  # fmt: skip
    return stream, handler


def _codec(order: StreamOrder, output: str) -> Callable[[Ready], Codec]:
    from mulle.lifecycle.serving.streaming import JsonCodec, MixedCodec

    if not order.registry:
        if order.format == "avro":
            raise UsageError("answers in Avro need a registry for their schema", next="name it: --registry http://HOST:PORT")
        return lambda _: JsonCodec()
    from mulle.adapters.streams.avro import AvroCodec
    from mulle.adapters.streams.registry import Registry

    registry = Registry(order.registry)

    def make(ready: Ready) -> Codec:
        avro = AvroCodec(registry, ready.loaded[0].contract.inputs, f"{output}-value")
        return MixedCodec(avro, avro if order.format == "avro" else JsonCodec())

    return make


def _workers(settings: Settings) -> Callable[[int], Compute]:
    """Give what makes processes for a search's trials, or has made them early."""

    def taken(processes: int) -> Compute:
        early = _started.pop((settings, processes), None)
        return _compute(settings, processes, _TRIALS) if early is None or early.closed else early

    return taken


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


@lru_cache(maxsize=2)
def _bench(home: Path, lake: str, project: Path, job: str) -> Bench:
    from mulle.loop.batch.chunk import open_bench
    from mulle.loop.batch.plan import batches_folder

    return open_bench(batches_folder(home) / job, _lake(lake), _files(project))


def _files(folder: Path) -> RowFiles:
    from mulle.adapters.sources.rowfiles import SpanFiles

    return SpanFiles(folder)


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
