"""A project with a hand-made model and rows to score, shared by the tests of batch jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
from serving_parts import PROJECT, bundle

from mulle.adapters.sources.rowfiles import SpanFiles
from mulle.bootstrap.parts import wire
from mulle.core.clock import instant
from mulle.core.records.base import Cause
from mulle.core.records.model import ModelVersion
from mulle.core.settings import load_settings
from mulle.loop.parts import Parts

WHY = (Cause(type="person", id="ada", why="asked"),)
MODEL = '\nmodel = ml.Model("trip", features=shape, target="y", task="regression")\n'
ROWS = 1000


def rows(count: int = ROWS) -> pl.DataFrame:
    at = pl.datetime_range(instant("2024-01-01"), instant("2025-01-01"), "1m", eager=True, time_zone="UTC").head(count)
    return pl.DataFrame({"id": range(count), "at": at, "size": [i / 8 for i in range(count)], "kind": ["a", "b"] * (count // 2)})


def opened(folder: Path, models: str = MODEL) -> Parts:
    """A project with trip@1, which answers size + 1, and files cut into spans of a hundred rows."""
    fresh = not folder.exists()
    folder.mkdir(exist_ok=True)
    (folder / "project.py").write_text(PROJECT + models)
    parts = replace(wire(load_settings({"project": folder}, {})), files=SpanFiles(folder, rows=100, size=4_000))
    if fresh:
        register(parts, 1, bundle(folder / "one", offset=1.0))
    return parts


def register(parts: Parts, number: int, made: tuple[str, Path], *, model: str = "trip") -> None:
    now = instant("2024-01-01")
    parts.metadata.models.add(
        ModelVersion(
            id=f"{model}-v{number}", created_at=now, causes=WHY, model=model, version=number, run=f"r{number}", bundle=made[0],
            address=str(made[1]), compiled="onnx", parity=None, metrics={}, size_bytes=1, features=("size", "kind"), data={},
            data_cutoff=now, refit_cutoff=now,
        )
    )  # fmt: skip
