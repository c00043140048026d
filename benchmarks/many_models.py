"""One server, 1 to 10,000 models, a bound of memory: cold first answers, throughput over all of them, resident memory.

Run ``python -m benchmarks.many_models [COUNT ...]``. The bundles are copies of one trained model under names of their own,
with weights of their own, written by the registry's own function. ``wrk`` is the client for the throughput.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.served_model import Made, make_model, request_rows, write_copy
from mulle.core.clock import instant
from mulle.kernel.routes import ROUTES, ModelRoutes, Routed, RoutedVersion, RoutingTable, write_routes
from mulle.loop.server import free_port

__all__ = ["main"]

TREES = 20
BOUND = 256 * 2**20
"""Bytes for loaded models."""

COLD = 400
"""Models that are asked for the first time, at most."""

_LUA = """
wrk.method = "POST"; wrk.headers["content-type"] = "application/json"
local body = io.open("{body}"):read("*a"); math.randomseed({seed})
request = function() return wrk.format(nil, "/v1/models/orders/" .. math.random(0, {last}) .. "/predict", nil, body) end
"""


def weighted(model: bytes, number: int) -> bytes:
    """Give a graph other leaf weights, so that no two bundles are the same."""
    made = onnx.load_from_string(model)
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("target_weights", "leaf_weights"):
                attribute.floats[:] = [w * (1 + number * 1e-4) for w in attribute.floats]
    for tensor in made.graph.initializer:
        if tensor.name.endswith("leaf_weights"):
            numbers = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((numbers * (1 + number * 1e-4)).astype(np.float32), tensor.name))
    return bytes(made.SerializeToString())


def bundles(made: Made, folder: Path, count: int) -> list[tuple[str, Path]]:
    """Write so many bundles."""
    return [write_copy(made, folder / "bundles", model=f"orders/{n}", graph=weighted(made.model, n)) for n in range(count)]


def publish(home: Path, written: list[tuple[str, Path]]) -> None:
    """Route them as members of one fleet; the first is the shared model too."""
    models = {"orders": ModelRoutes(deployments=_routed(written[0]), each="id")}
    models |= {f"orders/{n}": ModelRoutes(deployments=_routed(one)) for n, one in enumerate(written)}
    write_routes(home / ROUTES, RoutingTable(generation=1, models=models))


def _routed(one: tuple[str, Path]) -> tuple[Routed, ...]:
    version = RoutedVersion(version=1, share=1.0, mode="champion", bundle=one[0], address=str(one[1]))
    return (Routed(id="d1", effective_at=instant("2013-01-01"), salt="s", routes=(version,)),)


@contextmanager
def serving(home: Path) -> Iterator[tuple[int, int]]:
    """Run ``mulle serve``; gives its port and process id."""
    port = free_port("127.0.0.1")
    (home.parent / "project.py").touch()
    environment = {
        **os.environ, "MULLE_HOME": str(home), "MULLE_INFERENCE_PORT": str(port), "MULLE_MAX_MEMORY": str(BOUND),
        "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2",
    }  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mulle", "serve"], env=environment, cwd=home.parent, stderr=subprocess.DEVNULL
    )
    try:
        while not _ready(port):
            time.sleep(0.01)
        print(f"  ready after {time.perf_counter() - began:.2f} s, {resident(process.pid):.0f} MB", flush=True)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def resident(pid: int) -> float:
    """Give a process's resident memory, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cold(port: int, count: int) -> list[float]:
    """Ask models that nobody asked before, one after the other; seconds of each, sorted."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"rows": request_rows(1)})
    seconds = []
    for number in random.Random(0).sample(range(count), min(count, COLD)):
        began = time.perf_counter()
        connection.request("POST", f"/v1/models/orders/{number}/predict", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        told = answer.read()
        assert answer.status == 200, told
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)


def load(port: int, count: int, folder: Path, seconds: int = 5) -> str:
    """Ask models at random over 16 connections; gives wrk's figures."""
    (folder / "body.json").write_text(json.dumps({"rows": request_rows(1)}))
    (folder / "many.lua").write_text(_LUA.format(body=folder / "body.json", seed=count, last=count - 1))
    command = ["wrk", "-t1", "-c16", f"-d{seconds}", "--latency", "--timeout", "10", "-s", str(folder / "many.lua")]
    told = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    wanted = ("Requests/sec", "50%", "99%", "Non-2xx")
    return ", ".join(" ".join(line.split()) for line in told.splitlines() if line.strip().startswith(wanted))


def main(counts: list[int]) -> None:
    """Print the figures for each number of models."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(os.environ.get("MULLE_BENCH_BUNDLES", place))
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        made = make_model(folder, trees=TREES)
        began = time.perf_counter()
        written = bundles(made, folder, max(counts))
        print(
            f"{len(written)} bundles of {len(made.model) / 1e3:.0f} kB graphs in {time.perf_counter() - began:.0f} s", flush=True
        )
        for count in counts:
            print(f"{count} models", flush=True)
            publish(home, written[:count])
            with serving(home) as (port, pid):
                seconds = cold(port, count)
                told = [seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)]]
                print(f"  cold first answers: p50 {told[0] * 1e3:.1f} ms, p99 {told[1] * 1e3:.1f} ms of {len(seconds)}")
                print(f"  at random: {load(port, count, folder)}; {resident(pid):.0f} MB", flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [1, 100, 1_000, 10_000])
