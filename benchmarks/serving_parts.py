"""Where a request's microseconds go: each part of the server's path by itself, for one row and for a batch of sixteen.

Run ``python -m benchmarks.serving_parts``. Processor time of this process, the best of many rounds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import polars as pl

from benchmarks.served_model import make_model, request_rows, write_copy
from mulle.core.clock import EPOCH, WallClock
from mulle.kernel.encode import encode, unseen
from mulle.kernel.routes import RoutedVersion
from mulle.kernel.rows import frame_from_rows
from mulle.lifecycle.serving.batch import Job, settle
from mulle.lifecycle.serving.log import Segment
from mulle.lifecycle.serving.score import Batch, Ready, score_batch
from mulle.lifecycle.serving.shelf import Loaded, Shelf

__all__ = ["main", "parts"]

ROUNDS = 400


def parts(loaded: Loaded, folder: Path, size: int) -> dict[str, float]:
    """Measure the parts for a batch of `size` requests of one row each.

    Returns
    -------
    dict
        Part to microseconds of processor time a request.
    """
    contract, predictor = loaded.contract, loaded.predictor
    rows, now = request_rows(size), WallClock().now()
    bodies = [orjson.dumps({"rows": [row]}) for row in rows]
    frame = frame_from_rows(rows, contract.inputs, model="m", time=contract.time, now=now)
    features = predictor.transform(frame)
    matrix = encode(features, contract.features)
    route = RoutedVersion(version=1, share=1.0, mode="champion", bundle="", address="")
    ready = [Ready("d", EPOCH, "s", (route,), (loaded,))]
    batch = Batch("orders", rows, [f"r{i}" for i in range(size)], [0.0] * size, now, False)
    scored = score_batch(ready, batch)
    answers = [orjson.dumps({"model": "orders", "version": 1, "predictions": [a]}) for a in scored.answers]
    log = Segment(folder, "predictions", largest=2**40)
    jobs = [Job([row], f"r{i}", None, 0.0, None) for i, row in enumerate(rows)]  # type: ignore[arg-type]
    steps: dict[str, Callable[[], object]] = {
        "parse the body": lambda: [orjson.loads(body) for body in bodies],
        "check and cast": lambda: frame_from_rows(rows, contract.inputs, model="m", time=contract.time, now=now),
        "feature function": lambda: predictor.transform(frame),
        "encode": lambda: encode(features, contract.features),
        "unseen categories": lambda: unseen(features, contract.features, matrix),
        "model": lambda: predictor.run(matrix),
        "all of scoring, with answers and log records": lambda: settle(jobs, ready, model="orders", now=now, by_row=False),
        "write the log": lambda: log.write(scored.records),
        "write the answer": lambda: [
            orjson.dumps({"model": "orders", "version": 1, "predictions": [answer]}) for answer in scored.answers
        ],
    }
    assert answers
    found = {name: _best(step) / size * 1e6 for name, step in steps.items()}
    log.close()
    return found


def _best(step: Callable[[], object]) -> float:
    for _ in range(20):
        step()
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        for _ in range(ROUNDS // 10):
            step()
        best = min(best, (time.process_time() - began) / (ROUNDS // 10))
    return best


def main() -> None:
    """Print the table."""
    pl.Config.set_engine_affinity("in-memory")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(os.environ.get("MULLE_BENCH_BUNDLES", place))
        name, address = write_copy(make_model(folder), folder / "bundles")
        loaded = Shelf(lambda _: None).get(  # type: ignore[arg-type, return-value]
            "orders", RoutedVersion(version=1, share=1.0, mode="champion", bundle=name, address=str(address))
        )
        alone, together = (parts(loaded, folder / "log", size) for size in (1, 16))
    print(f"{'microseconds a request':<48}{'alone':>8}{'of 16':>8}")
    for part, cost in alone.items():
        print(f"{part:<48}{cost:>8.1f}{together[part]:>8.1f}")


if __name__ == "__main__":
    main()
