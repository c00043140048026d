"""The Python door: read data, load models and turn the loop by name, from a notebook or a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from mulle.core.declare.dataset import Dataset
    from mulle.core.declare.features import Features
    from mulle.core.declare.model import Model
    from mulle.loop.data.offline import Answering
    from mulle.loop.parts import Parts

__all__ = ["OpenProject", "load", "project", "read"]


class OpenProject:
    """A project with its home: the declared objects, and the loop over them.

    Parameters
    ----------
    folder : Path
        Holds ``project.py``.
    home : Path, optional
        Where Mulle keeps its things; default as in the settings.
    """

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self._parts = _wired(folder.expanduser().resolve(), home)

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """The declared datasets by name."""
        return self._parts.project.datasets

    @property
    def features(self) -> Mapping[str, Features]:
        """The declared feature functions by name."""
        return self._parts.project.features

    @property
    def models(self) -> Mapping[str, Model]:
        """The declared models by name."""
        return self._parts.project.models

    def read(self, name: str) -> pl.DataFrame:
        """Read a dataset by ``DATASET``, ``DATASET@12`` or ``DATASET@tag``."""
        from mulle.loop.data.offline import read_dataset

        return read_dataset(self._parts, name)

    def load(self, name: str) -> Answering:
        """Load a model version by ``MODEL``, ``MODEL@7`` or ``MODEL@champion``; it has ``.predict(frame)``."""
        from mulle.loop.data.offline import open_version

        return open_version(self._parts, name)

    def run(self, model: str, *, why: str = "asked for in Python") -> dict[str, Any]:
        """Run a model's whole chain to its end; return what ``mulle runs show --json`` prints."""
        from mulle.core.records.base import Cause
        from mulle.loop.runner import run_model
        from mulle.loop.views.chain import run_view

        self._parts.project.model(model)
        record = run_model(self._parts, model, causes=[Cause(type="person", id="python", why=why)])
        return run_view(self._parts, record.id)

    def history(self, model: str, *, at: str | datetime | None = None) -> dict[str, Any]:
        """List a model's deployments, or give the one in force at an instant."""
        from mulle.loop.views.chain import history_view

        return history_view(self._parts, model, at=at)

    def replay(
        self, model: str, start: str | datetime, end: str | datetime, *, policies: Sequence[str] = (), step: str = "1d"
    ) -> dict[str, Any]:
        """Play the loop over history, each policy in a home of its own; return what ``mulle replay --json`` prints."""
        from mulle.core.clock import duration, instant
        from mulle.surfaces.replays import play

        self._parts.project.model(model)
        span = (instant(start), instant(end))
        return play(self._parts.settings, self._parts.project, model, *span, lambda _: None, policies, duration(step))

    def status(self) -> dict[str, Any]:
        """Say how each model stands."""
        from mulle.loop.views.status import status_view

        return status_view(self._parts)


def project(path: str | Path = ".", *, home: str | Path | None = None) -> OpenProject:
    """Open a project.

    Parameters
    ----------
    path : str or Path
        The folder that holds ``project.py``.
    home : str or Path, optional

    Raises
    ------
    ProjectError
        When the project does not load; names file and line.
    """
    return OpenProject(Path(path), Path(home) if home is not None else None)


def read(name: str, *, path: str | Path = ".") -> pl.DataFrame:
    """Read a dataset's rows by ``DATASET``, ``DATASET@12`` or ``DATASET@tag``.

    Parameters
    ----------
    name : str
    path : str or Path
        The project's folder; default the working folder.
    """
    return project(path).read(name)


def load(name: str, *, path: str | Path = ".") -> Answering:
    """Load a model version by ``MODEL``, ``MODEL@7`` or ``MODEL@champion``.

    Returns
    -------
    Answering
        ``.predict(frame)`` takes raw columns and gives a prediction's columns.
    """
    return project(path).load(name)


@lru_cache(maxsize=8)
def _wired(folder: Path, home: Path | None) -> Parts:
    from mulle.bootstrap.parts import wire
    from mulle.core.settings import load_settings

    # One set of parts per project and process: an LMDB file must not be opened twice in one process.
    return wire(load_settings({"project": folder, "home": home}))
