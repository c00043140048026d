"""Claim: staging, auditing and publishing a file costs at most twice a bare read and write, in bounded memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.claim import Claim, Side, memory_under, within
from benchmarks.side import Work

__all__ = ["CLAIMS", "bare", "differs", "make", "mulle"]

_PIECE = 500_000
_AIRPORTS = ["ATL", "BOS", "EWR", "IAH", "JFK", "LAX", "LGA", "MIA", "ORD", "SFO"]
_CARRIERS = ["AA", "B6", "DL", "EV", "MQ", "UA", "US", "WN"]
_COLUMNS = (
    "id",
    "at",
    "carrier",
    "origin",
    "dest",
    "tailnum",
    "distance",
    "delay",
    "seats",
    "price",
    "cancelled",
    "remark",
)


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``flights.csv``: 12 columns of numbers, times, codes, flags and text, some of it missing."""
    random = np.random.default_rng(4)
    with (folder / "flights.csv").open("wb") as file:
        for first in range(0, size["rows"], _PIECE):
            piece = _piece(random, first, min(_PIECE, size["rows"] - first))
            piece.write_csv(file, include_header=first == 0, datetime_format="%Y-%m-%dT%H:%M:%SZ")


def _piece(random: np.random.Generator, first: int, rows: int) -> pl.DataFrame:
    def pick(values: Sequence[str | None]) -> pl.Series:
        return pl.Series(values).gather(random.integers(0, len(values), rows))

    id = first + np.arange(rows)
    frame = pl.DataFrame(
        {
            "id": id,
            "at": np.datetime64("2013-01-01", "us") + id * np.timedelta64(6_000_000, "us"),
            "carrier": pick(_CARRIERS),
            "origin": pick(_AIRPORTS),
            "dest": pick(_AIRPORTS),
            "number": random.integers(10_000, 14_000, rows),
            "distance": random.integers(80, 5_000, rows),
            "delay": random.normal(5, 30, rows).round(1),
            "seats": random.integers(20, 400, rows),
            "price": random.gamma(3, 70, rows).round(2),
            "cancelled": random.random(rows) < 0.02,
            "remark": pick([None, "late crew", "weather at destination", "de-icing", "air traffic, held"]),
        }
    )
    tail = pl.format("N{}", "number").alias("tailnum")
    return frame.with_columns(tail, delay=pl.when(~pl.col("cancelled")).then("delay")).select(_COLUMNS)


def mulle(folder: Path) -> Work:
    """Ingest as a run does: read, typed, hashed and staged, audited with nine checks, published as version 1."""
    from mulle.loop.data.ingest import ingest

    now, kept = datetime(2026, 1, 1, tzinfo=UTC), {}

    def reset() -> None:
        shutil.rmtree(folder / ".mulle", ignore_errors=True)
        kept["parts"] = _parts(folder)

    def run() -> Any:
        parts = kept["parts"]
        return ingest(parts, parts.project.datasets["flights"], now=now, causes=())[0]

    def keep(version: Any, path: Path) -> None:
        _keep(kept["parts"].lake.scan(version.table, version.lake_version), path)

    return Work(run=run, keep=keep, reset=reset)


def _parts(folder: Path) -> Any:
    import mulle as ml
    from mulle.bootstrap.parts import wire
    from mulle.core.declare.project import Project
    from mulle.core.settings import Settings

    flights = ml.Dataset(
        "flights",
        ml.Files("flights.csv"),
        key="id",
        time="at",
        checks=[
            ml.rows(at_least=1),
            ml.unique("id"),
            ml.not_null("id", "at", "carrier"),
            ml.one_of("carrier", _CARRIERS),
            ml.between("distance", 10, 6_000),
            ml.between("seats", 1, 900),
            ml.matches("tailnum", "^N[0-9]"),
        ],
    )
    project = Project(folder=folder, code="bench", datasets={"flights": flights}, features={}, models={})
    return wire(Settings(project=folder).resolved(), project=project)


def bare(folder: Path) -> Work:
    """Read the file whole and write it as a Delta table; nothing is looked at."""
    target = folder / "bare"

    def run() -> None:
        pl.read_csv(folder / "flights.csv", try_parse_dates=True).write_delta(target)

    return Work(run=run, keep=lambda _, path: _keep(pl.scan_delta(target), path), reset=lambda: shutil.rmtree(target, True))


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare the number of rows, and each column's types and contents in whatever order."""
    want, have = (json.loads((folder / f"{name}.json").read_text()) for name in (limit, other))
    return ", ".join(name for name in want if want[name] != have.get(name))


def _keep(table: pl.LazyFrame, path: Path) -> None:
    schema = table.collect_schema()
    hashes = [pl.struct(_COLUMNS).hash().sum().alias("rows as a whole"), *(pl.col(c).hash().sum() for c in _COLUMNS)]
    told = table.select(pl.len().alias("rows"), *hashes).collect(engine="streaming").row(0, named=True)
    path.with_suffix(".json").write_text(json.dumps({n: [v, str(schema.get(n))] for n, v in told.items()}))


CLAIMS = (
    Claim(
        name="Ingest",
        says="A CSV of {rows} rows and 12 columns becomes a published dataset version.",
        make="benchmarks.ingest:make",
        sizes={"small": {"rows": 20_000}, "full": {"rows": 5_000_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.ingest:mulle", repeat=2, note="staged, nine checks, hashed, published"),
            Side(name="bare Polars", call="benchmarks.ingest:bare", repeat=2, note="read_csv and write_delta"),
        ),
        same=differs,
        targets=(within("bare Polars", 2), memory_under(2)),
    ),
)
