"""Evidently's side: its drift preset, both frames in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from benchmarks.side import Work

__all__ = ["psi", "report"]


def report(folder: Path) -> Work:
    """Report drift by its defaults: normed Wasserstein distance of numbers, Jensen-Shannon distance of categories."""
    return _work(folder, DataDriftPreset(include_tests=False))


def psi(folder: Path) -> Work:
    """Report drift by its population stability index."""
    return _work(folder, DataDriftPreset(method="psi", threshold=0.1, include_tests=False))


def _work(folder: Path, preset: DataDriftPreset) -> Work:
    frames = [pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "current")]
    numbers = [c for c in frames[0] if c.startswith("x")]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=[c for c in frames[0] if c.startswith("c")])
    reference, current = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    return Work(run=lambda: Report([preset]).run(current, reference), keep=_keep)


def _keep(found: object, path: Path) -> None:
    columns = [m["config"] | {"value": m["value"]} for m in found.dict()["metrics"] if "ValueDrift" in m["metric_name"]]
    path.with_suffix(".json").write_text(json.dumps(sorted(c["column"] for c in columns if c["value"] >= c["threshold"])))
