"""A tiny real bundle made by hand, and a real server in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from mulle.core.clock import instant
from mulle.core.hashing import hash_folder
from mulle.core.records.base import to_json
from mulle.core.records.bundle import FORMAT, Contract, FeatureSpec, InputField
from mulle.core.records.model import Parity
from mulle.kernel.routes import ROUTES, ModelRoutes, Routed, RoutedVersion, RoutingTable, read_routes, write_routes

PROJECT = """
import polars as pl
import mulle as ml

trips = ml.Dataset("trips", ml.Files("trips.csv"), key="id", time="at")


@ml.features(trips)
def shape(rows):
    boom = pl.when(pl.col("kind") == "boom").then(pl.col("kind")).otherwise(pl.lit("0")).cast(pl.Float64)
    return rows.select(size=pl.col("size") + boom, kind="kind")
"""

SAMPLE = json.dumps(
    {
        "inputs": {
            "id": {"type": "Int64", "values": [1, 2, 3]},
            "at": {"type": "Datetime(us, UTC)", "values": [0, 10**15, 2 * 10**15]},
            "size": {"type": "Float64", "values": [1.5, None, -2.0]},
            "kind": {"type": "String", "values": ["a", "z", None]},
        },
        "encoded": [[1.5, 0.0], [None, -1.0], [-2.0, None]],
    }
)

SERVER = """
import sys
from mulle.core.settings import load_settings
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.app import create_app
from mulle.surfaces.inference.serve import serve
settings = load_settings()
serve(settings, create_app(Runtime(settings, lambda contract: None), settings))
"""


def graph(offset: float, classes: int) -> bytes:
    """size + offset (regression), or a softmax over (0, size + offset)."""
    answer = "answer" if not classes else "sum"
    nodes = [
        helper.make_node("Gather", ["features", "first"], ["size"], axis=1),
        helper.make_node("Add", ["size", "offset"], [answer]),
    ]
    if classes:
        nodes += [
            helper.make_node("Mul", ["sum", "zero"], ["none"]),
            helper.make_node("Concat", ["none", "sum"], ["logits"], axis=1),
            helper.make_node("Softmax", ["logits"], ["answer"], axis=1),
        ]
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, classes or 1])],
        [
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
            helper.make_tensor("offset", TensorProto.FLOAT, [1], [offset]),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        ],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def bundle(
    folder: Path, *, model: str = "trip", offset: float = 0.0, classes: Sequence[str] = (), plain: bool = False
) -> tuple[str, Path]:
    """Write a bundle; returns its hash and folder. With `plain` it has a sample, and a function that needs no Polars."""
    (folder / "transform").mkdir(parents=True)
    (folder / "transform" / "project.py").write_text(PROJECT if not plain else PROJECT.replace("+ boom", "* 1.0"))
    (folder / "model.onnx").write_bytes(graph(offset, len(classes)))
    (folder / "reference.json").write_text("{}")
    inputs = (
        InputField(name="id", type="INT64", dtype="Int64", required=True),
        InputField(name="at", type="TIME", dtype="Datetime(us, UTC)", required=False),
        InputField(name="size", type="FP64", dtype="Float64", required=True),
        InputField(name="kind", type="BYTES", dtype="String", required=True),
    )
    now = instant("2013-01-01")
    if plain:
        (folder / "sample.json").write_text(SAMPLE)
    contract = Contract(  # else of the layout before a bundle carried a sample: such bundles are still served
        format=FORMAT if plain else 1, model=model, task="binary" if classes else "regression", target="y",
        classes=tuple(classes), dataset="trips", key=("id",), time="at", inputs=inputs, joins=(),
        features=(FeatureSpec(name="size", kind="number"), FeatureSpec(name="kind", kind="category", categories=("a", "b"))),
        transform={"function": "shape", "hash": "t1", "code": "c1"}, compiled="onnx",
        parity=Parity(tolerance=1e-4, scale=1.0, rows=10, worst=0.0, outside=0.0),
        scale=1.0, run="r", data={"trips": 1}, data_cutoff=now, refit_cutoff=now,
    )  # fmt: skip
    (folder / "bundle.json").write_text(json.dumps(to_json(contract)))
    return hash_folder(folder), folder


T0 = instant("2013-01-01")


def version(number: int, made: tuple[str, Path], *, share: float = 1.0, mode: str = "champion") -> RoutedVersion:
    return RoutedVersion(version=number, share=share, mode=mode, bundle=made[0], address=str(made[1]))


def route(home: Path, *versions: RoutedVersion, model: str = "trip", at: datetime = T0, keep: bool = False) -> int:
    """Publish a deployment of a model; returns the table's generation."""
    table = read_routes(home / ROUTES)
    before = table.models[model].deployments if keep and model in table.models else ()
    generation = table.generation + 1
    move = Routed(id=f"d{generation}", effective_at=at, salt=f"salt{generation}", routes=versions)
    models = {**table.models, model: ModelRoutes(deployments=(*before, move))}
    write_routes(home / ROUTES, RoutingTable(generation=generation, models=models))
    return generation


def two_models(folder: Path) -> Path:
    """A home with trip@6, then trip@7 in force (size + 1), and the classifier kind@1; returns it."""
    home = folder / "home"
    home.mkdir()
    for number, offset in ((6, 0.0), (7, 1.0)):
        route(home, version(number, bundle(folder / str(number), offset=offset)), keep=True)
    route(home, version(1, bundle(folder / "c", model="kind", classes=("no", "yes"))), model="kind")
    return home


def row(number: int = 1, size: float | None = 2.0, **more: object) -> dict[str, object]:
    return {"id": number, "at": "2013-03-01T10:00:00Z", "size": size, "kind": "a", **more}


@dataclass
class Answered:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A real server in its own process."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    before: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2", "MULLE_HOME": str(self.home),
            "MULLE_INFERENCE_PORT": str(self.port), **{f"MULLE_{k.upper()}": v for k, v in self.settings.items()},
            **self.environment,
        }  # fmt: skip
        self.process = subprocess.Popen([sys.executable, "-c", self.before + SERVER], env=environment, cwd=self.home)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended"
            try:
                if self.get("/v2/health/ready").status == 200:
                    return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the server did not become ready")

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None,
        over: HTTPConnection | None = None,
    ) -> Answered:  # fmt: skip
        connection = over or self.connect()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        head = {"content-type": "application/json", **(headers or {})} if data is not None else headers or {}
        connection.request(method, path, data, head)
        answer = connection.getresponse()
        found = Answered(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        if over is None:
            connection.close()
        return found

    def get(self, path: str, **more: Any) -> Answered:
        return self.ask("GET", path, **more)

    def predict(self, *rows: object, model: str = "trip", **more: Any) -> Answered:
        return self.ask("POST", f"/v1/models/{model}/predict", {"rows": list(rows)}, **more)

    def until(self, generation: int, seconds: float = 5.0) -> float:
        """Wait until serving has a routing table in force; returns how long that took."""
        begun = time.monotonic()
        while self.get("/v1/routes").json["generation"] < generation:
            assert time.monotonic() - begun < seconds, "the routes were not taken up"
            time.sleep(0.01)
        return time.monotonic() - begun


def utc(text: str) -> datetime:
    return instant(text).astimezone(UTC)
