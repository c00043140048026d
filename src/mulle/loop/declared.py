"""Which declaration is in force while the loop runs: the project file's, or the last good one where that is broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mulle.core.clock import rfc3339
from mulle.core.declare.project import Project
from mulle.core.errors import MulleError, ProjectError
from mulle.core.records.base import Json
from mulle.kernel.lifeline import die_with_parent
from mulle.kernel.project import hash_code, load_project

__all__ = ["Trial", "load_standing", "note_broken", "note_good", "project_state"]

_FILE = "project-broken.json"
_LIMIT = 120.0
"""Seconds after which a project file that still loads is taken for one that never ends."""
_MOST = 4_000
"""Characters of an error that are told: an answer must fit into a pipe that nobody reads yet."""


class Trial:
    """A changed project, executed by a process of its own before the loop executes it: it may never end, or end its process.

    Parameters
    ----------
    folder : Path
        The project's.
    code : str
        Hash of what is tried.
    """

    def __init__(self, folder: Path, code: str) -> None:
        self.code = code
        self._folder, self._deadline = folder, time.monotonic() + _LIMIT
        lifeline, self._lifeline = os.pipe()
        self._answer, answer = os.pipe()
        command = [sys.executable, "-P", "-m", "mulle.loop.declared", str(lifeline), str(answer), str(folder)]
        self._process = subprocess.Popen(
            command, pass_fds=(lifeline, answer), stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
        os.close(lifeline)
        os.close(answer)
        # What the project has started may hold the other end for ever.
        os.set_blocking(self._answer, False)

    def over(self, patience: float) -> bool:
        """Wait so many seconds for its end; a trial whose time is up is ended."""
        left = self._deadline - time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, min(patience, left)))
        return self._process.returncode is not None or time.monotonic() >= self._deadline

    def check(self) -> None:
        """End it, and raise what came of it.

        Raises
        ------
        ProjectError
            When the project does not load, ends its process or does not end in time.
        """
        code, told = self._process.poll(), b""
        with suppress(BlockingIOError):
            told = os.read(self._answer, 1 << 16)
        self.close()
        path = self._folder / "project.py"
        if code is None:
            raise ProjectError(
                f"{path} did not load within {_LIMIT:g} s and was ended",
                next="look for a loop or a wait at the top of the file", file=str(path),
            )  # fmt: skip
        if not told:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ProjectError(f"{path} ended the process that loaded it ({how})", next="take that out of it", file=str(path))
        answer = json.loads(told)
        if answer:
            raise ProjectError(answer["detail"], next=answer["next"])

    def close(self) -> None:
        """End it, whatever it is at."""
        if self._lifeline < 0:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._lifeline)
        os.close(self._answer)
        self._lifeline = -1


def note_broken(home: Path, error: MulleError, now: datetime, *, tried: str, in_force: str) -> None:
    """Leave word in the home, for whoever asks how things stand, that the project file does not load.

    Parameters
    ----------
    tried, in_force : str
        Hashes of the code that does not load, and of the one that goes on.
    """
    temporary = home / f".{_FILE}"
    told = {"detail": error.detail, "next": error.next, "since": rfc3339(now), "tried": tried, "in_force": in_force}
    temporary.write_text(json.dumps(told))
    temporary.replace(home / _FILE)


def note_good(home: Path) -> None:
    """Take that word back."""
    (home / _FILE).unlink(missing_ok=True)


def project_state(home: Path) -> Json:
    """Tell whether the running loop goes on by an earlier declaration.

    Returns
    -------
    dict
        ``state`` (``good`` or ``broken``), ``detail``, ``next`` and ``since``, null where it is good.

    Examples
    --------
    >>> project_state(Path("/nowhere"))["state"]
    'good'
    """
    good = {"detail": None, "next": None, "since": None}
    told = _noted(home)
    return {"state": "broken", **{name: told.get(name) for name in good}} if told else {"state": "good", **good}


def load_standing(folder: Path, home: Path) -> tuple[Project, Json | None]:
    """Load the project for one who looks at what there is, or moves it; where its file is broken, as it was last in force.

    Nobody should have to mend a file before a bad model can be rolled back.

    Returns
    -------
    Project
    dict or None
        ``detail`` and ``next``, where the project file is not what is gone by.

    Raises
    ------
    MulleError
        When the file does not load, and none was in force in this home before.
    """
    told = _noted(home)
    # What the loop found to never end, or to end its process, is not executed here.
    if told and told.get("tried") == hash_code(folder) and (earlier := _kept(home, told)):
        return load_project(earlier), {"detail": told["detail"], "next": told["next"]}
    try:
        return load_project(folder), None
    except MulleError as error:
        earlier = _kept(home, told)
        if earlier is None:
            raise
        return load_project(earlier), {"detail": error.detail, "next": error.next}


def _noted(home: Path) -> Json:
    with suppress(OSError, ValueError):
        return dict(json.loads((home / _FILE).read_text()))
    return {}


def _kept(home: Path, told: Json) -> Path | None:
    """Find the snapshot of the declaration that was last in force: what the loop noted, else the newest."""
    noted = home / "code" / str(told.get("in_force") or "none")
    kept = [noted] if (noted / "project.py").is_file() else sorted(
        (path.parent for path in home.glob("code/[!.]*/project.py")), key=lambda path: path.stat().st_mtime
    )  # fmt: skip
    return kept[-1] if kept else None


def _tried(lifeline: int, answer: int, folder: Path) -> None:
    die_with_parent(lifeline)
    with suppress(OSError):
        # Where memory ends, this process goes first.
        Path("/proc/self/oom_score_adj").write_text("1000")
    told: Json = {}
    try:
        load_project(folder)
    except MulleError as error:
        told = {"detail": error.detail[:_MOST], "next": (error.next or "")[:_MOST]}
    os.write(answer, json.dumps(told).encode())
    # Threads that the project began must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    _tried(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
