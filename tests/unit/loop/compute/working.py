"""What a run's tasks work with: a project's code, published tables, and a folder of the run's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.dtypes import schema_text
from mulle.kernel.project import load_project
from mulle.loop.compute.work import Work

__all__ = ["through_json", "working"]


def working(folder: Path, project: str, tables: Mapping[str, pl.DataFrame], model: str, now: datetime, *, seed: int = 0) -> Work:
    """Publish each table as version 1 and give what the tasks of run ``R1`` work with."""
    code, scratch = folder / "code", folder / "home" / "runs" / "R1"
    code.mkdir(parents=True)
    scratch.mkdir(parents=True)
    (code / "project.py").write_text(project)
    lake, loaded = DeltaLake(str(folder / "lake")), load_project(code)
    return Work(
        run="R1", seed=seed, cutoff=now, options={}, home=folder / "home", folder=scratch, lake=lake, project=loaded,
        model=loaded.model(model), versions={name: _published(lake, name, rows, now) for name, rows in tables.items()},
    )  # fmt: skip


def _published(lake: DeltaLake, name: str, rows: pl.DataFrame, now: datetime) -> DatasetVersion:
    marked = rows.with_columns(
        pl.lit(now).dt.cast_time_unit("us").alias("_ingested_at"),
        pl.lit("b1").alias("_batch"),
        pl.lit(1, dtype=pl.Int32).alias("_version"),
        pl.lit(False).alias("_live"),
    )
    at = lake.append(f"data/{name}", marked, application="t", sequence=1)
    return DatasetVersion(
        id=name, created_at=now, dataset=name, version=1, rows=rows.height, added=rows.height, hash=name,
        schema=schema_text(rows), table=f"data/{name}", lake_version=at,
    )  # fmt: skip


def through_json(value: Json) -> Json:
    """What one step leaves is read by the next as JSON."""
    return dict(json.loads(json.dumps(value)))
