"""A project of its own for each test: real stores in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from mulle.bootstrap.parts import wire
from mulle.core.records.base import Cause
from mulle.core.settings import load_settings
from mulle.loop.parts import Parts

WHY = (Cause(type="person", id="ada", why="asked"),)


def write_cells(folder: Path) -> None:
    """Write the rows of a model that learns in a moment, and make the folder."""
    folder.mkdir()
    rows = pl.select(id=pl.int_range(300)).with_columns(size=pl.col("id") % 17 * 1.0, age=pl.col("id") % 5 * 1.0)
    rows.with_columns(weight=pl.col("size") * 2 + pl.col("age")).write_csv(folder / "cells.csv")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str, str], Parts]]:
    """Give what writes a project.py and opens the project; further calls with its name open it again."""
    parts: list[Parts] = []

    def open_project(source: str, name: str = "project") -> Parts:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "project.py").write_text(f"import polars as pl\nimport mulle as ml\n{source}")
        parts.append(wire(load_settings({"project": folder}, {})))
        return parts[-1]

    yield open_project
    for each in parts:
        each.online.close()
