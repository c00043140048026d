"""Runs commands in this process: what they print and how they end, without the start of a Python for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from mulle.surfaces.cli.main import call


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def command(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command of Mulle in a folder, with these variables beside those that are set."""
    out, err = StringIO(), StringIO()
    with chdir(folder), patch.dict(os.environ, environment or {}), redirect_stdout(out), redirect_stderr(err):
        code = call(arguments)
    return Ended(code, out.getvalue(), err.getvalue())
