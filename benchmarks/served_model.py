"""A realistic bundle for measurements of the server: 16 mixed columns, a feature function, 200 LightGBM trees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from mulle.core.clock import instant
from mulle.core.records.bundle import FORMAT, Contract
from mulle.kernel.bundle import Predictor
from mulle.kernel.encode import encode, feature_specs
from mulle.kernel.project import load_features
from mulle.kernel.rows import cast_inputs, raw_inputs
from mulle.kernel.sample import Sample
from mulle.kernel.transform import run_transform
from mulle.lifecycle.registry.bundle import write_bundle
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.registry.sample import make_sample
from mulle.lifecycle.training.candidates import build

__all__ = ["Made", "make_model", "request_rows", "table", "write_copy"]

PROJECT = """
import polars as pl
import mulle as ml

orders = ml.Dataset("orders", ml.Files("orders.parquet"), key="id", time="at")


@ml.features(orders)
def shape(rows):
    return rows.select(
        "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "count", "stock", "shop", "kind", "colour", "promoted",
        rate=pl.col("n0") / (pl.col("n1") + 2.0),
        hour=pl.col("at").dt.hour(),
        weekday=pl.col("at").dt.weekday(),
    )
"""

NOW = instant("2024-06-01")


@dataclass(frozen=True, slots=True)
class Made:
    """A trained model before it is a bundle; `write_copy` makes bundles of it."""

    contract: Contract
    model: bytes
    project: Path
    sample: Sample


def table(rows: int = 6_000, seed: int = 0) -> pl.DataFrame:
    """Draw rows: key, time, eight floats, two whole numbers, three categories, one flag, and the target ``y``."""
    dice = np.random.default_rng(seed)
    floats = {f"n{i}": dice.normal(size=rows) for i in range(8)}
    codes = {"shop": 40, "kind": 8, "colour": 12}
    words = {name: [f"{name}-{c}" for c in dice.integers(0, many, rows)] for name, many in codes.items()}
    count, stock, promoted = dice.integers(0, 50, rows), dice.integers(0, 9, rows), dice.random(rows) < 0.2
    y = floats["n0"] * 3 + np.sin(floats["n1"]) * 4 + count * 0.1 + promoted * 2 + dice.normal(size=rows) * 0.2
    at = [NOW - timedelta(minutes=int(m)) for m in dice.integers(0, 500_000, rows)]
    return pl.DataFrame(
        {"id": np.arange(rows), "at": at, **floats, "count": count, "stock": stock, **words, "promoted": promoted, "y": y},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )


def make_model(folder: Path, *, trees: int = 200) -> Made:
    """Train the model; `folder` gets the project's source."""
    project = folder / "source"
    project.mkdir(parents=True, exist_ok=True)
    (project / "project.py").write_text(PROJECT)
    raw = table()
    schema = {name: str(dtype) for name, dtype in raw.schema.items()} | {"at": "Datetime(us, UTC)"}
    inputs = raw_inputs(schema, hidden=["y"], key=["id"], time="at")
    rows = cast_inputs(raw.drop("y"), inputs)
    function = load_features(project, "shape")
    features = run_transform(function, rows)
    specs = feature_specs(features)
    settings = {"candidate": "lightgbm", "params": {"n_estimators": trees, "num_leaves": 31, "learning_rate": 0.1}}
    fitted = build(settings, "regression", specs, 0)
    fitted.fit(encode(features, specs), raw["y"].to_numpy())
    model = compile_model(fitted, width=len(specs), task="regression")
    assert model is not None
    contract = Contract(
        format=FORMAT, model="orders", task="regression", target="y", classes=(), dataset="orders", key=("id",), time="at",
        inputs=inputs, joins=(), features=specs, transform={"function": "shape", "hash": "bench", "code": "bench"},
        compiled="onnx", parity=None, scale=float(raw["y"].std() or 1.0), run="bench", data={"orders": 1},  # type: ignore[arg-type]
        data_cutoff=NOW, refit_cutoff=NOW, settings=settings,
    )  # fmt: skip
    predictor = Predictor.assemble(contract, function, model)
    parity = prove(fitted, predictor, rows, tolerance=1e-4, now=NOW)
    return Made(replace(contract, parity=parity), model, project, make_sample(predictor, rows.head(400), seed=0))


def write_copy(made: Made, folder: Path, *, model: str = "orders", graph: bytes | None = None) -> tuple[str, Path]:
    """Write a bundle of the model under another name, with other weights when given; returns its hash and folder."""
    contract = replace(made.contract, model=model)
    return write_bundle(
        folder, contract=contract, model=graph or made.model, native=None, project_folder=made.project,
        reference={}, sample=made.sample, card="",
    )  # fmt: skip


def request_rows(count: int, seed: int = 1) -> list[dict[str, object]]:
    """Draw rows as a client sends them."""
    drawn = table(count, seed).drop("y")
    return drawn.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
