"""A bundle whose model did not compile and behaves badly when it is told to, by the size that it is asked about."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from serving_parts import bundle

from mulle.core.hashing import hash_folder
from mulle.core.records.base import to_json
from mulle.kernel.bundle import read_contract
from mulle.lifecycle.registry.native import dump_native

DIE, HANG, GROW, REFUSE, FAIL = 666.0, 777.0, 888.0, 999.0, 1000.0

AWKWARD = f"""
import os, time
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Awkward(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.fitted_ = True
        return self

    def predict(self, X):
        sizes = set(X[:, 0].tolist())
        if {DIE} in sizes:
            os._exit(9)
        if {HANG} in sizes:
            time.sleep(3600)
        if {GROW} in sizes:
            kept = []
            while True:
                kept.append(np.ones(1 << 21))
                time.sleep(0.005)
        if {REFUSE} in sizes:
            raise ValueError("Input X contains something strange")
        if {FAIL} in sizes:
            raise RuntimeError("broken inside")
        print("noise on stdout")
        return 2.0 * X[:, 0].astype(np.float64)
"""


def native_bundle(folder: Path, modules: Path, *, model: str = "odd") -> tuple[str, Path]:
    """Write a bundle with a native model, and its estimator's module where `PYTHONPATH` will find it."""
    modules.mkdir(exist_ok=True)
    (modules / "awkward.py").write_text(AWKWARD)
    sys.path.insert(0, str(modules))
    try:
        import awkward  # type: ignore[import-not-found]

        written = dump_native(awkward.Awkward().fit(None, None), ["awkward"])
    finally:
        sys.path.remove(str(modules))
    bundle(folder, model=model)
    settings = {"candidate": "custom:Awkward", "params": {"@factory": "awkward:Awkward"}}
    contract = dataclasses.replace(read_contract(folder), compiled="native", settings=settings)
    (folder / "bundle.json").write_text(json.dumps(to_json(contract)))
    (folder / "model.onnx").unlink()
    (folder / "model.skops").write_bytes(written)
    return hash_folder(folder), folder
