"""What the trials of a search found, written as each ends: a search that was killed goes on with the trials it had."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from mulle.core.records.base import Json, to_json

__all__ = ["Journal", "said_file"]

Floats = npt.NDArray[np.float64]


class Journal:
    """A search's trials and their answers in files: one line when a trial begins, one when it ends.

    Parameters
    ----------
    folder : Path or None
        Where the files are; those of an earlier life of the same search are read. None: nothing outlives this object.
    about : str
        What the search is: files of another one are thrown away.

    Attributes
    ----------
    interrupted : bool
        A trial had begun, and the search's process died before it ended.
    """

    def __init__(self, folder: Path | None, about: str) -> None:
        self._files = None if folder else tempfile.TemporaryDirectory(prefix="search-")
        self._folder = folder or Path(self._files.name if self._files else "")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._ended: dict[int, Json] = {}
        self._spent = 0.0
        self.interrupted = False
        if not self._read(about):
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = self._path.open("a", encoding="utf-8")
        if not self._file.tell():
            self._write({"about": about})

    @property
    def answers(self) -> Path:
        """The folder that trials leave their answers in."""
        return self._folder

    @property
    def spent(self) -> float:
        """The seconds that the search has taken, in all its lives."""
        return self._spent + time.monotonic() - self._began

    def holds(self, number: int) -> bool:
        """Tell whether an earlier life of the search has run a trial."""
        return number in self._ended

    def run(self, number: int, settings: Json, trial: Callable[[], Json | None]) -> Json | None:
        """Run a trial, or give what it told in an earlier life."""
        known = self._ended.get(number)
        if known is not None and known["settings"] == json.loads(json.dumps(to_json(settings))):
            told: Json = known["told"]
            return told
        self._write({"began": number})
        found = trial()
        # One that was not started for want of time is none.
        self._write({"ended": number, "settings": settings, "told": found, "spent": round(self.spent, 3)})
        return found

    def said(self, number: int) -> Floats | None:
        """Give a done trial's answers to the validation rows."""
        path = self._folder / said_file(number)
        return np.load(path) if path.exists() else None

    def close(self, *, done: bool) -> None:
        """Close the file; a search that is done leaves nothing behind."""
        self._file.close()
        if done:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._files is not None:
            self._files.cleanup()

    @property
    def _path(self) -> Path:
        return self._folder / "trials.jsonl"

    def _write(self, line: Json) -> None:
        with self._lock:
            self._file.write(json.dumps(to_json(line)) + "\n")
            self._file.flush()

    def _read(self, about: str) -> bool:
        if not self._path.exists():
            return False
        text = self._path.read_bytes()
        # A line that was being written when the process died is cut off: what is appended must begin a line.
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self._path, len(whole))
        first, *lines = [json.loads(line) for line in whole.splitlines()] or [{}]
        if first != {"about": about}:
            return False
        self._ended = {line["ended"]: line for line in lines if "ended" in line and line["told"] is not None}
        self._spent = max((line["spent"] for line in lines if "ended" in line), default=0.0)
        begun, ended = [{line[key] for line in lines if key in line} for key in ("began", "ended")]
        self.interrupted = bool(begun - ended)
        return True


def said_file(number: int) -> str:
    """Name the file of a trial's answers."""
    return f"said.{number}.npy"
