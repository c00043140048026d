"""The tracking server: runs, trials and model versions as the ecosystem's own client sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import GateResult, Run, Trial

__all__ = ["Tracking"]


class Tracking(Protocol):
    """A projection of the records. Every call looks for its own tag before it creates, so repeating one is harmless."""

    def prepare(self, run: Run | None = None, trials: Sequence[Trial] = ()) -> None:
        """Start whatever is slow to start, and to write a run's trials, in the background.

        Returns at once; failures show at the first other call, and `log_run` writes what is missing.
        """
        ...

    def log_run(
        self,
        run: Run,
        trials: Sequence[Trial],
        metrics: Mapping[str, float],
        gates: Sequence[GateResult],
        tags: Mapping[str, str],
        *,
        data: Sequence[DatasetVersion] = (),
        files: Path | None = None,
        pages: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> str:
        """Write a parent run with a child run per trial; return the parent's tracking id.

        Parameters
        ----------
        run : Run
        trials : sequence of Trial
        metrics : mapping
            Figures of the run as a whole, by name.
        gates : sequence of GateResult
        tags : mapping
        data : sequence of DatasetVersion
            What the run read.
        files : Path, optional
            A folder whose content goes beside the figures.
        pages : mapping, optional
            Page to name of a figure to the figure, in Plotly's form (``data`` and ``layout``): what people look at.

        Raises
        ------
        Unavailable
            When the server is away; trying again may help.
        """
        ...

    def register(self, version: ModelVersion, bundle: Path, run_id: str) -> dict[str, str]:
        """Log the bundle as a model of the run and register it as a version; return ``run_id``, ``name``, ``version``."""
        ...

    def alias(self, model: str, alias: str, version: str | None) -> None:
        """Point ``champion`` or ``challenger`` at a tracking version; None removes the alias."""
        ...

    def aliases(self, model: str) -> dict[str, str]:
        """Return alias to tracking version; empty when the model is unknown there."""
        ...

    def fetch(self, source: str, folder: Path) -> Json:
        """Download a registered model version, ``models:/name/3`` or ``models:/name@alias``; nothing in it is run.

        Returns
        -------
        dict
            ``folder`` that holds its files, ``version`` (``models:/name/3``), ``flavors`` by name, ``columns``: the names
            of its signature's inputs, empty without, and ``local``: whether records and files lie on this machine's own disk.

        Raises
        ------
        NotFound
            When there is no such version.
        UsageError
            When `source` is no such address.
        """
        ...

    def held(self) -> dict[str, int]:
        """Return, for each run of ours that is there, the bytes of its files (0 where they are a server's); asked once."""
        ...

    def remove(self, run: str) -> None:
        """Remove a run of ours with its trials and files, for good where the server is this machine's own database.

        One that is not there is no error.
        """
        ...

    def address(self) -> str:
        """Return the tracking URI, for `mlflow ui --backend-store-uri`."""
        ...
