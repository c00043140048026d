"""Where a request's time goes in our server: step by step, on the load's own model and requests, in batches as they form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any
from unittest.mock import patch

import orjson

from mulle.bootstrap.inference import wire_inference
from mulle.core.settings import Settings
from mulle.kernel import bundle
from mulle.kernel.bundle import Predictor
from mulle.kernel.plain import Plain
from mulle.lifecycle.features.read import OnlineReader
from mulle.lifecycle.serving import score
from mulle.lifecycle.serving.log import Segment
from mulle.lifecycle.serving.score import Batch, Ready, score_batch

__all__ = ["measure"]

BATCHES = (1, 16)
"""Requests that are scored together."""

_WARM, _RUNS = 50, 300
_REST = "routed, answers and log record made"

_WATCHED: dict[str, tuple[tuple[Any, str], ...]] = {
    "contract checked": ((score, "columns_from_rows"),),
    "frame made": ((score, "frame_from_columns"),),
    "histories read": ((OnlineReader, "join"),),
    "features": ((Predictor, "transform"), (Plain, "__call__")),
    "encoded": ((bundle, "encode"), (bundle, "encode_columns")),
    "model": ((Predictor, "run"),),
}
"""Steps of scoring, which are watched where they are: one by one, in a loop of their own, they would seem half as dear."""


def measure(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``parts.json``: for each number of requests in a batch, processor seconds of one request by step (medians).

    What then is left of the processor time of a request under load is HTTP, the event loop, and the handing over of requests
    between the two.
    """
    asyncio.run(_measure(folder, size["rows_a_request"]))


async def _measure(folder: Path, rows: int) -> None:
    runtime = wire_inference(Settings(project=folder).resolved())
    await runtime.start()
    ready = await runtime.table.deployments("model")
    bodies = [body.encode() for body in (folder / "bodies-mulle.jsonl").read_text().splitlines()]
    told = {str(count): _steps(ready, bodies[:count], folder, rows) for count in BATCHES if count <= len(bodies)}
    await runtime.stop()
    (folder / "parts.json").write_text(json.dumps(told))


def _steps(ready: Sequence[Ready], bodies: Sequence[bytes], folder: Path, rows: int) -> dict[str, float]:
    taken = len(bodies) * rows
    now, names = datetime.now(UTC), [f"request-{i}" for i in range(taken)]
    segment = Segment(folder / "parts", "predictions", largest=2**34)
    spent: dict[str, list[float]] = {name: [] for name in ("body parsed", *_WATCHED, _REST, "log written", "answers written")}
    with _watched(spent) as inner:
        for _ in range(_WARM + _RUNS):
            marks, before = [thread_time()], inner()
            parsed = [row for body in bodies for row in orjson.loads(body)["rows"]]
            marks.append(thread_time())
            scored = score_batch(ready, Batch("model", parsed, names, [perf_counter()] * len(parsed), now, False))
            marks.append(thread_time())
            within = inner() - before
            segment.write(scored.records)
            marks.append(thread_time())
            for i in range(0, len(parsed), rows):
                orjson.dumps({"model": "model", "version": 1, "predictions": scored.answers[i : i + rows]})
            marks.append(thread_time())
            first, scoring, logged, written = (b - a for a, b in pairwise(marks))
            for name, seconds in (("body parsed", first), (_REST, scoring - within), ("log written", logged)):
                spent[name].append(seconds)
            spent["answers written"].append(written)
    segment.close()
    return {name: median(found[_WARM:]) / len(bodies) for name, found in spent.items() if found}


@contextmanager
def _watched(spent: Mapping[str, list[float]]) -> Iterator[Callable[[], float]]:
    """Note the time of the steps within scoring while the block runs; gives what they took together so far."""
    total = 0.0

    def noting(name: str, step: Callable[..., object]) -> Callable[..., object]:
        def noted(*given: object, **named: object) -> object:
            nonlocal total
            began = thread_time()
            try:
                return step(*given, **named)
            finally:
                seconds = thread_time() - began
                spent[name].append(seconds)
                total += seconds

        return noted

    with ExitStack() as stack:
        for name, place, attribute in ((name, *step) for name, steps in _WATCHED.items() for step in steps):
            stack.enter_context(patch.object(place, attribute, noting(name, getattr(place, attribute))))
        yield lambda: total
