"""Claim: a batch of ten million rows costs less than plain scikit-learn in chunks, and no more memory than a small one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.claim import Claim, Side, memory_under, within
from benchmarks.side import Work

__all__ = ["CLAIMS", "differs", "make", "mulle", "plain"]

_PORTION = 1_000_000
_CHUNK = 131_072
_CLOSE = 1e-4
"""Of the target's spread: what parity promises of the compiled model."""


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``rows.parquet`` and a project with one registered model; for the other side the same fitted model, pickled."""
    import pyarrow.parquet as pq

    from benchmarks.served_model import PROJECT, make_model, table
    from mulle.kernel.encode import encode
    from mulle.kernel.project import load_features
    from mulle.kernel.rows import cast_inputs
    from mulle.kernel.transform import run_transform
    from mulle.lifecycle.training.candidates import build

    made = make_model(folder)
    (folder / "project.py").write_text(PROJECT)
    raw, contract = table(), made.contract
    features = run_transform(load_features(made.project, "shape"), cast_inputs(raw.drop("y"), contract.inputs))
    fitted = build(contract.settings, "regression", contract.features, 0)
    fitted.fit(encode(features, contract.features), raw["y"].to_numpy())
    codes = {f.name: f.categories for f in contract.features if f.kind == "category"}
    (folder / "plain.pickle").write_bytes(pickle.dumps((fitted, [f.name for f in contract.features], codes)))
    (folder / "scale.json").write_text(json.dumps(contract.scale))
    _register(folder, made)
    writer = None
    for start in range(0, size["rows"], _PORTION):
        count = min(_PORTION, size["rows"] - start)
        rows = table(count, seed=start + 1).drop("y").with_columns(id=pl.int_range(start, start + count)).to_arrow()
        writer = writer or pq.ParquetWriter(folder / "rows.parquet", rows.schema)
        writer.write_table(rows, row_group_size=_CHUNK)
    if writer is not None:
        writer.close()


def _register(folder: Path, made: object) -> None:
    from benchmarks.served_model import NOW, write_copy
    from mulle.bootstrap.parts import wire
    from mulle.core.records.model import ModelVersion
    from mulle.core.settings import load_settings

    mark, place = write_copy(made, folder / "bundles")  # type: ignore[arg-type]
    wire(load_settings({"project": folder}, {})).metadata.models.add(
        ModelVersion(
            id="v1", created_at=NOW, causes=(), model="orders", version=1, run="bench", bundle=mark, address=str(place),
            compiled="onnx", parity=None, metrics={}, size_bytes=1, features=(), data={}, data_cutoff=NOW, refit_cutoff=NOW,
        )
    )  # fmt: skip


def mulle(folder: Path) -> Work:
    """Run ``mulle batch`` in this process: contract, answers, parts with hashes, manifest."""
    from mulle.bootstrap.parts import wire
    from mulle.core.settings import load_settings
    from mulle.loop.batch.job import run_batch
    from mulle.loop.batch.plan import Order

    parts = wire(load_settings({"project": folder}, {}))
    order = Order(model="orders", input="rows.parquet", output="out/")

    def reset() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)

    def keep(_: object, path: Path) -> None:
        pl.scan_parquet(folder / "out" / "part-*.parquet").select("id", "value").sink_parquet(path.with_suffix(".answer"))

    return Work(run=lambda: run_batch(parts, order, causes=(), anew=True), keep=keep, reset=reset)


def plain(folder: Path) -> Work:
    """Predict chunk by chunk with the fitted estimator, as a script would: pandas, OrdinalEncoder, ``predict``."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.preprocessing import OrdinalEncoder

    fitted, names, codes = pickle.loads((folder / "plain.pickle").read_bytes())
    encoder = OrdinalEncoder(
        categories=[list(v) for v in codes.values()], handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.float32
    )
    import pandas as pd

    encoder.fit(pd.DataFrame({name: [values[0]] for name, values in codes.items()}))

    def run() -> int:
        total = 0
        with pq.ParquetWriter(folder / "plain.parquet", pa.schema([("id", pa.int64()), ("value", pa.float64())])) as writer:
            for batch in pq.ParquetFile(folder / "rows.parquet").iter_batches(_CHUNK):
                rows = batch.to_pandas()
                rows["rate"] = rows["n0"] / (rows["n1"] + 2.0)
                rows["hour"], rows["weekday"] = rows["at"].dt.hour, rows["at"].dt.weekday + 1
                rows[list(codes)] = encoder.transform(rows[list(codes)])
                values = fitted.predict(rows[names].to_numpy(dtype=np.float32))
                writer.write_table(pa.table({"id": rows["id"], "value": values}))
                total += len(rows)
        return total

    return Work(run=run, keep=lambda _, path: shutil.copy(folder / "plain.parquet", path.with_suffix(".answer")))


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare every row's answer: the same rows, as close as parity promises."""
    want, have = (pl.read_parquet(folder / f"{name}.answer") for name in (limit, other))
    if not want["id"].equals(have["id"]):
        return "other rows"
    scale = json.loads((folder / "scale.json").read_text())
    outside = ((want["value"] - have["value"]).abs() > _CLOSE * scale).sum()
    return f"{outside} of {want.height} answers differ" if outside > 1e-4 * want.height else ""


CLAIMS = (
    Claim(
        name="Batch",
        says="{rows} rows of 16 mixed columns, 200 LightGBM trees, from Parquet to Parquet.",
        make="benchmarks.batch:make",
        sizes={"small": {"rows": 5_000}, "full": {"rows": 10_000_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.batch:mulle", repeat=1, note="contract, hashes, manifest; one process"),
            Side(name="scikit-learn in chunks", call="benchmarks.batch:plain", repeat=1, note="the fitted model, no checks"),
        ),
        same=differs,
        targets=(within("scikit-learn in chunks", 1.0), memory_under(1.0)),
    ),
)
