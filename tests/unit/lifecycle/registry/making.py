"""A fitted model and its bundle, made from rows of its own, for the tests of the registry."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from mulle.core.declare.candidates import lightgbm
from mulle.core.records.bundle import FORMAT, Contract
from mulle.kernel.bundle import Predictor
from mulle.kernel.fitted import answers, classes_of
from mulle.kernel.histograms import build_reference
from mulle.kernel.project import load_project
from mulle.kernel.transform import cast_inputs, encode, feature_specs, raw_inputs, run_transform
from mulle.lifecycle.registry.bundle import write_bundle
from mulle.lifecycle.registry.card import card
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.registry.sample import make_sample
from mulle.lifecycle.training.candidates import defaults
from mulle.lifecycle.training.fit import fit

PROJECT = """
import polars as pl
import mulle as ml
from ours import half

flights = ml.Dataset("flights", ml.Files("f.csv"), key="flight_id", time="at", outcome=["air_time"])

@ml.features(flights)
def flight_features(rows):
    return rows.select("carrier", "distance", hour=pl.col("at").dt.hour(), at="at", half=half("distance"))

model = ml.Model("air-time", features=flight_features, target="air_time", task="regression")
"""
NOW = datetime(2013, 6, 1, tzinfo=UTC)


@dataclasses.dataclass
class Made:
    folder: object
    joined: pl.DataFrame
    truth: np.ndarray
    contract: Contract
    features: object
    fitted: object
    model: bytes | None

    def predictor(self):
        offline = lambda m: answers(self.fitted, m, self.contract.task)  # noqa: E731
        return Predictor.assemble(self.contract, self.features, self.model or offline)

    def proved(self):
        return dataclasses.replace(
            self.contract, parity=prove(self.fitted, self.predictor(), self.joined, tolerance=1e-4, now=NOW)
        )

    def write(self, contract=None):
        contract = contract or self.proved()
        reference = build_reference(self.predictor().transform(self.joined), contract.features, self.joined["distance"])
        native = None if self.model else self.fitted
        return write_bundle(
            self.folder / "bundles", contract=contract, model=self.model, native=native, project_folder=self.folder / "project",
            reference=reference, sample=make_sample(self.predictor(), self.joined, seed=0), card=card(contract, contract.metrics),
        )  # fmt: skip


def make(folder, candidate=None, task="regression", compiled=True, n=300, project_text=PROJECT, more=None, columns=None):
    candidate = candidate or lightgbm(n_estimators=30)
    project = folder / "project"
    project.mkdir(exist_ok=True)
    (project / "project.py").write_text(project_text)
    (project / "ours.py").write_text("import polars as pl\n\ndef half(name):\n    return pl.col(name) / 2\n")
    random = np.random.default_rng(0)
    raw = pl.DataFrame(
        {
            "flight_id": [f"F{i}" for i in range(n)],
            "carrier": [["AA", "UA", "B6", None][i] for i in random.integers(0, 4, n)],
            "distance": [None if i % 17 == 0 else float(d) for i, d in enumerate(random.uniform(100, 3000, n))],
            "at": [NOW - timedelta(hours=int(h)) for h in random.integers(1, 3000, n)],
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    raw = raw if more is None else raw.hstack(more(random, n))
    truth = raw["distance"].fill_null(1500).to_numpy() / 8 + random.normal(0, 5, n)
    target = truth if task == "regression" else np.where(truth > np.median(truth), "late", "fine").astype(object)
    if task == "multiclass":
        target = np.array(["short", "middle", "long"], dtype=object)[np.digitize(truth, np.quantile(truth, [0.3, 0.6]))]
    inputs = raw_inputs(
        {c: str(d) for c, d in raw.schema.items()} | {"at": "Datetime(us, UTC)"},
        hidden=["air_time"],
        key=["flight_id"],
        time="at",
    )
    features = load_project(project).features["flight_features"]
    joined = cast_inputs(raw, inputs)
    table = run_transform(features, joined)
    specs = tuple(s for s in feature_specs(table) if columns is None or s.name in columns)
    settings = {"candidate": candidate.kind, "params": defaults(candidate, task, n)}
    fitted = fit(settings, encode(table, specs), target, task=task, specs=specs, seed=0)
    model = compile_model(fitted, width=len(specs), task=task) if compiled else None
    contract = Contract(
        format=FORMAT, model="air-time", task=task, target="air_time", classes=classes_of(fitted, task), dataset="flights",
        key=("flight_id",), time="at", inputs=inputs, joins=(), features=specs,
        transform={"function": "flight_features", "hash": "h", "code": "c"}, compiled="onnx" if model else "native", parity=None,
        scale=float(np.std(truth)) if task == "regression" else 1.0, run="R1", data={"flights": 3}, data_cutoff=NOW,
        refit_cutoff=NOW, metrics={"mae": 5.0}, settings=settings,
    )  # fmt: skip
    return Made(folder, joined, target, contract, features, fitted, model)
