"""Processes that compute: of a run's tasks, of a search's trials, of a batch job's chunks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mulle.core.declare.training import Search
from mulle.core.errors import UsageError
from mulle.core.ports.compute import Compute
from mulle.core.settings import Settings

__all__ = ["WARM", "batch_compute", "open_compute", "start_trials", "trial_processes"]

# What a compute child imports while it waits for its first task. Libraries are named beside our modules that need them:
# a nursery imports those once for all children (`FORKABLE` in adapters/compute/starting.py).
WARM = (
    "mulle.loop.compute.work",
    "mulle.loop.compute.bundling",
    "mulle.loop.compute.evaluating",
    "mulle.loop.compute.judging",
    "mulle.loop.compute.members",
    "mulle.loop.compute.searching",
    "mulle.adapters.lake.delta",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.pipeline",
    "lightgbm",
    "onnx",
    "optuna",
)


# What a process of a batch job's chunks imports.
_SCORING = ("mulle.loop.batch.chunk", "mulle.adapters.lake.delta", "mulle.adapters.sources.rowfiles", "numpy")


# What a process of a search's trials imports.
_TRIALS = ("mulle.lifecycle.training.trial", "lightgbm")


def batch_compute(settings: Settings, processes: int) -> Compute:
    """Make processes for the chunks of batch jobs; they load what scoring needs and no more."""
    return open_compute(settings, processes, _SCORING)


def open_compute(settings: Settings, processes: int, warm: tuple[str, ...], *, waits: bool = False) -> Compute:
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


def start_trials(settings: Settings, search: Search) -> None:
    """Start the processes of a search's trials while its features are made: to import takes them longer than most trials."""
    for other in [key for key in _started if key != (settings, search.parallel)]:
        _started.pop(other).close()
    if search.apart and not _started:
        _started[settings, search.parallel] = open_compute(settings, search.parallel, _TRIALS)


def trial_processes(settings: Settings) -> Callable[[int], Compute]:
    """Give what makes processes for a search's trials, or has made them early."""

    def taken(processes: int) -> Compute:
        early = _started.pop((settings, processes), None)
        return open_compute(settings, processes, _TRIALS) if early is None or early.closed else early

    return taken
