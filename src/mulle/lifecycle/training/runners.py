"""Where trials run: in this process one by one, or in workers of a compute, several at once and within limits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mulle.core.errors import Deadline, MulleError, Unavailable
from mulle.core.ports.compute import Compute
from mulle.core.records.base import Json
from mulle.lifecycle.training.folds import Rows, save_rows
from mulle.lifecycle.training.journal import Journal
from mulle.lifecycle.training.trial import failed, leave_answers, run_trial

__all__ = ["Bounds", "Here", "Left", "Runner", "Workers"]

_TASK = "mulle.lifecycle.training.trial:answer_trial"

Bounds = Sequence[float | None] | None
Left = Callable[[], float | None]
"""Seconds that a trial which starts now may take; None without a limit, 0 or less when it is not to start."""


class Runner(Protocol):
    """Runs trials."""

    @property
    def ahead(self) -> int:
        """How many trials are under way before the first must be told; fixed, so that a seed gives the same search."""
        ...

    def start(self, number: int, settings: Json, bounds: Bounds, left: Left) -> Callable[[], Json | None]:
        """Start a trial; what is returned waits for it, and gives None when no time was left to start it."""
        ...

    def close(self) -> None:
        """Let go of processes and files."""
        ...


class Here:
    """Runs each trial at once in this process: no overhead, and no limit but time.

    Parameters
    ----------
    rows : Rows
    journal : Journal
    keep : bool
        Keep the answers, for an ensemble or a calibration.
    """

    ahead = 1

    def __init__(self, rows: Rows, journal: Journal, *, keep: bool) -> None:
        self._rows, self._journal, self._keep = rows, journal, keep

    def start(self, number: int, settings: Json, bounds: Bounds, left: Left) -> Callable[[], Json | None]:
        """Run a trial."""
        told = self._journal.run(number, settings, lambda: self._run(number, settings, bounds, left))
        return lambda: told

    def close(self) -> None:
        """Nothing is left to end."""

    def _run(self, number: int, settings: Json, bounds: Bounds, left: Left) -> Json | None:
        limit = left()
        if limit is not None and limit <= 0:
            return None
        told, said = run_trial(self._rows, settings, bounds=bounds, limit=limit)
        if self._keep and said is not None:
            leave_answers(self._journal.answers, number, said)
        return told


class Workers:
    """Runs trials in processes that can be killed; the rows lie in files that all of them map.

    Parameters
    ----------
    rows : Rows
    journal : Journal
    compute : Compute
        Closed with this.
    parallel : int
        Trials at once.
    memory : int or None
        Bytes that a trial's process may hold.
    keep : bool
        Keep the answers, for an ensemble or a calibration.
    folder : Path or None
        Where the files go; the system's temporary folder by default.
    project : Path or None
        The code snapshot that workers load, where candidates are the project's own.
    """

    def __init__(
        self,
        rows: Rows,
        journal: Journal,
        compute: Compute,
        *,
        parallel: int,
        memory: int | None = None,
        keep: bool = False,
        folder: Path | None = None,
        project: Path | None = None,
    ) -> None:
        self._journal, self._compute, self._memory = journal, compute, memory
        self._keep = str(journal.answers) if keep else None
        self._project = None if project is None else str(project)
        self._files = tempfile.TemporaryDirectory(prefix="search-", dir=folder)
        self._folder = Path(self._files.name)
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="trial")
        # Twice as many as run: a long trial then holds up no worker, and TPE is told but a little later.
        self.ahead = 1 if parallel == 1 else 2 * parallel
        save_rows(rows, self._folder)

    def start(self, number: int, settings: Json, bounds: Bounds, left: Left) -> Callable[[], Json | None]:
        """Send a trial to the next free worker."""
        run = self._journal.run
        return self._threads.submit(run, number, settings, lambda: self._call(number, settings, bounds, left)).result

    def close(self) -> None:
        """End the workers and remove the files."""
        self._compute.close()
        self._threads.shutdown()
        self._files.cleanup()

    def _call(self, number: int, settings: Json, bounds: Bounds, left: Left) -> Json | None:
        limit = left()
        if limit is not None and limit <= 0:
            return None
        arguments = {
            "folder": str(self._folder),
            "number": number,
            "settings": settings,
            "bounds": None if bounds is None else list(bounds),
            "keep": self._keep,
            "project": self._project,
        }
        empty: Json = {"rungs": [], "seconds": 0.0, "memory": None}
        try:
            return self._compute.call(_TASK, arguments, timeout=limit, memory=self._memory)
        except Deadline:
            return {**empty, **failed("timeout", f"not done after {limit:g} s"), "seconds": round(limit or 0.0, 4)}
        except Unavailable as error:
            kind = "memory" if error.facts.get("killed") == "memory" else "crash"
            return {**empty, **failed(kind, error.detail)}
        except MulleError as error:
            return {**empty, **failed("error", error.detail)}
