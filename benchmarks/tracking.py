"""Claim: writing a run and its trials to MLflow slows a search by no more than a twentieth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.claim import Claim, Side, within
from benchmarks.side import Work
from mulle.core.records.base import Cause, Json
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import Run, Trial

__all__ = ["CLAIMS", "alike", "make", "tracked", "untracked"]

_PROJECT = """
import mulle as ml

rows = ml.Dataset("rows", ml.Files("rows.parquet"), key="id", time="at", outcome=["y"])

@ml.features(rows)
def shape(rows):
    return rows.select("a", "b", "c", "d")

model = ml.Model("m", features=shape, target="y", task="regression", gates=[ml.parity(1e-3)],
                 search=ml.Search(trials={trials}, timeout="10m"))
"""


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write a table and a project whose search has so many trials."""
    dice, n = np.random.default_rng(0), size["rows"]
    x, start = dice.normal(size=(n, 4)), datetime(2026, 1, 1, tzinfo=UTC)
    at = pl.datetime_range(start, start + timedelta(minutes=n - 1), "1m", eager=True)
    table = pl.DataFrame({"id": np.arange(n), "at": at, **{name: x[:, i] for i, name in enumerate("abcd")}})
    table.with_columns(y=pl.Series(x[:, 0] * x[:, 1] + x[:, 2] + dice.normal(size=n) / 4)).write_parquet(folder / "rows.parquet")
    (folder / "project.txt").write_text(_PROJECT.format(trials=size["trials"]))


class _Silent:
    """A tracking server that takes everything and keeps nothing."""

    def prepare(self, run: Run | None = None, trials: Sequence[Trial] = ()) -> None: ...

    def log_run(self, *_: object, **__: object) -> str:
        return ""

    def register(self, version: ModelVersion, *_: object) -> dict[str, str]:
        return {"run_id": "", "name": version.model, "version": "1"}

    def alias(self, *_: object) -> None: ...

    def aliases(self, _: str) -> dict[str, str]:
        return {}


def tracked(folder: Path) -> Work:
    """Run the model, MLflow and all."""
    return _work(folder, "tracked", silent=False)


def untracked(folder: Path) -> Work:
    """Run the model with a tracking server that keeps nothing."""
    return _work(folder, "untracked", silent=True)


def _work(folder: Path, name: str, *, silent: bool) -> Work:
    from mulle.bootstrap.parts import wire
    from mulle.core.settings import load_settings
    from mulle.loop.runner import run_model

    place = folder / name

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        shutil.copyfile(folder / "rows.parquet", place / "rows.parquet")
        shutil.copyfile(folder / "project.txt", place / "project.py")

    def run() -> Json:
        parts = wire(load_settings({"project": place}, {}))
        made = replace(parts, tracking=lambda: _Silent()) if silent else parts  # type: ignore[arg-type, return-value]
        record = run_model(made, "m", causes=[Cause(type="person", id="bench", why="measured")])
        parts.compute().close()
        version = parts.metadata.models.of_run(record.id)
        return {} if version is None else {"trials": len(parts.metadata.runs.trials(record.id)), **dict(version.metrics)}

    return Work(run=run, keep=lambda made, path: path.with_suffix(".json").write_text(json.dumps(made)), reset=reset)


def alike(folder: Path, ours: str, theirs: str) -> str:
    """Say where two runs found something else."""
    said = [json.loads((folder / f"{name}.json").read_text()) for name in (ours, theirs)]
    return "" if said[0] == said[1] and said[0] else f"{said[0]} and {said[1]}"


CLAIMS = (
    Claim(
        name="Tracking",
        says="A run over {rows} rows with {trials} trials, from the file to the registered version.",
        make="benchmarks.tracking:make",
        sizes={"small": {"rows": 2_000, "trials": 10}, "full": {"rows": 20_000, "trials": 60}},
        sides=(
            Side(name="Mulle", call="benchmarks.tracking:tracked", repeat=3),
            Side(name="Mulle without tracking", call="benchmarks.tracking:untracked", repeat=3, note="keeps nothing"),
        ),
        same=alike,
        targets=(within("Mulle without tracking", 1.05),),
    ),
)
