"""Tasks that the nursery's suite runs in children."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any


def whoami() -> dict[str, Any]:
    told = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    return {
        "pid": os.getpid(), "parent": os.getppid(), "group": int(told[2]), "folder": os.getcwd(), "zone": time.tzname[0],
        "word": os.environ.get("MULLE_WORD"), "other": os.environ.get("OTHER_WORD"), "nice": os.nice(0),
        "command": Path("/proc/self/cmdline").read_text().split("\0"), "modules": sorted(sys.modules),
        "pipes": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2 and _open(n)),
    }  # fmt: skip


def _open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def draw() -> dict[str, Any]:
    import numpy as np

    return {"python": random.random(), "numpy": float(np.random.random())}


def end(code: int) -> dict[str, Any]:
    os._exit(code)


def wait(started: str) -> dict[str, Any]:
    Path(started).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def work(folder: str) -> dict[str, Any]:
    """Use each library that starts threads when it is used; tell a number of each."""
    import deltalake
    import lightgbm
    import numpy as np
    import onnx
    import onnxruntime
    import polars as pl
    from sklearn.ensemble import HistGradientBoostingRegressor

    path = Path(folder) / f"{os.getpid()}"
    frame = pl.DataFrame({"key": [i % 7 for i in range(20_000)], "x": [float(i) for i in range(20_000)]})
    frame.write_parquet(path.with_suffix(".parquet"))
    means = pl.scan_parquet(path.with_suffix(".parquet")).group_by("key").agg(pl.col("x").mean()).sort("key").collect()
    deltalake.write_deltalake(path, means.to_arrow())
    read = pl.from_arrow(deltalake.DeltaTable(path).to_pyarrow_table())
    matrix = np.random.default_rng(0).normal(size=(2000, 3))
    trees = lightgbm.train({"num_threads": 2, "verbose": -1}, lightgbm.Dataset(matrix, matrix[:, 0]), 5)
    boosted = HistGradientBoostingRegressor(max_iter=5).fit(matrix, matrix[:, 0])
    double = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    cells = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None]) for n in "xy"]
    graph = onnx.helper.make_graph([double], "double", cells[:1], cells[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return {
        "polars": means["x"].sum(), "delta": len(read), "lightgbm": float(trees.predict(matrix).mean()),
        "sklearn": float(boosted.predict(matrix).mean()), "onnx": float(session.run(None, {"x": np.float32([1, 2])})[0].sum()),
    }  # fmt: skip
