"""Every store that the loop works with, opened by the settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mulle.bootstrap.processes import WARM, open_compute
from mulle.bootstrap.stores import make_reader, open_files, open_lake, open_shared, open_table, open_vacuum
from mulle.core.clock import Clock, WallClock
from mulle.core.declare.project import Project
from mulle.core.ports.alerts import Receiver
from mulle.core.ports.compute import Compute
from mulle.core.ports.tracking import Tracking
from mulle.core.settings import Settings
from mulle.loop.parts import Parts

__all__ = ["wire"]


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
    from mulle.adapters.traces.otel import open_traces
    from mulle.kernel.project import load_project

    declared = project or load_project(settings.project)
    settings.home.mkdir(parents=True, exist_ok=True)

    pools: list[Compute] = []

    def compute() -> Compute:
        # An engine closes its pool when it ends; whoever comes next in this process gets another.
        if not pools or pools[-1].closed:
            pools[:] = [open_compute(settings, settings.processes, WARM, waits=True)]
        return pools[-1]

    return Parts(
        settings=settings,
        clock=clock or WallClock(),
        project=declared,
        metadata=open_metadata(settings.database),
        lake=open_lake(settings.lake),
        vacuum=lambda *args, **more: open_vacuum(settings.lake)(*args, **more),
        online=open_online(settings.online),
        tracking=lru_cache(maxsize=1)(lambda: _tracking(settings)),
        compute=compute,
        source=lambda dataset: make_reader(settings, dataset, dataset.source),
        labels=lambda dataset: None if dataset.labels is None else make_reader(settings, dataset, dataset.labels, late=True),
        opened=open_shared,
        playback=FrameReader,
        files=open_files(settings.project),
        table=open_table,
        receivers=lru_cache(maxsize=1)(lambda: _receivers(settings)),
        traces=open_traces(settings.otel, "mulle"),
    )


def _tracking(settings: Settings) -> Tracking:
    from mulle.adapters.tracking.mlflow import MlflowTracking

    return MlflowTracking(settings.tracking, settings.home / "artifacts")


def _receivers(settings: Settings) -> Sequence[Receiver]:
    from mulle.adapters.alerts.apprise import open_receivers

    return open_receivers(settings.alerts)
