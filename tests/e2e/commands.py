"""Runs commands in this process: what they print and how they end, without the start of a Python for each."""

from __future__ import annotations

from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from mulle.surfaces.cli.main import call


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def command(folder: Path, *arguments: str) -> Ended:
    """Run a command of Mulle in a folder."""
    out, err = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        code = call(arguments)
    return Ended(code, out.getvalue(), err.getvalue())
