"""Claim: with everything on, one server answers far more requests than what users would pick, and nearly as many as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks.claim import OURS
from benchmarks.serving_load import LIMIT, Load, Pressed, Promise
from benchmarks.serving_process import Server

__all__ = ["CLAIMS"]

_LEAN = ("uvicorn", "onnxruntime", "polars", "orjson")
_PLAIN = ("scikit-learn", "lightgbm", "pandas")
_GRAPH = ("onnxruntime",)

Found = Mapping[str, Pressed]


def _peer(name: str, pins: str, library: str, wire: str, note: str) -> tuple[Server, Server]:
    """Give a peer with the pipeline, and with the compiled graph."""
    module = f"benchmarks.peers.serving_{pins.split('-')[0]}"
    made = [
        Server(name=name + said, module=module, wire=wire, given=given, peer=pins, note=note, libraries=(library, *libraries))
        for said, given, libraries in (("", "pipeline", _PLAIN), (", with our graph", "onnx", _GRAPH))
    ]
    return made[0], made[1]


_MULLE = Server(
    name=OURS, module="benchmarks.serving_mulle", wire="mulle", given="onnx", libraries=_LEAN,
    note="one process: contract, router, prediction log and metrics on",
)  # fmt: skip
_BARE = Server(
    name=LIMIT, module="benchmarks.serving_limit", given="onnx", libraries=_LEAN,
    note="one process; no batching, no checks, no log",
)  # fmt: skip
_TWO = tuple(replace(server, name=f"{server.name}, two", given="onnx-2", note="two processes") for server in (_MULLE, _BARE))
_BENTOML = _peer("BentoML", "bentoml", "bentoml", "rows", "two workers, adaptive batching up to 100")
_MLSERVER = _peer("MLServer", "mlserver", "mlserver", "v2", "one process, adaptive batching up to 64, 5 ms")
_RAY = _peer("Ray Serve", "ray-serve", "ray", "rows", "two replicas, batching up to 64, 5 ms")
_MLFLOW = _peer("MLflow", "mlflow-models", "mlflow", "mlflow", "mlflow models serve, two workers")
_FASTAPI = _peer("FastAPI", "fastapi", "fastapi", "rows", "uvicorn, two workers")
_ALL = (_BENTOML, _MLSERVER, _RAY, _MLFLOW, _FASTAPI)


def _theirs(found: Found, given: str) -> list[Pressed]:
    return [p for p in found.values() if p.server.peer and p.server.given == given]


def _ours(found: Found) -> Pressed:
    """Give the faster of ours: with one process or, as most peers have, with two."""
    return max((p for n, p in found.items() if n.startswith(OURS)), key=lambda p: p.best.rate)


def _times(given: str) -> Callable[[Found], float | None]:
    def figure(found: Found) -> float | None:
        rates = [p.best.rate for p in _theirs(found, given)]
        return _ours(found).best.rate / max(rates) if rates and OURS in found else None

    return figure


def _of_the_limit(found: Found) -> float | None:
    return found[OURS].best.rate / found[LIMIT].best.rate if {OURS, LIMIT} <= set(found) else None


def _slowest(given: str) -> Callable[[Found], float | None]:
    def figure(found: Found) -> float | None:
        halves = [p.best.p50 for p in _theirs(found, given)]
        return _ours(found).best.p99 / min(halves) if halves and OURS in found else None

    return figure


_LIMIT = Promise(says="at least 0.9 x the rate of the limit", bound=0.9, at_least=True, figure=_of_the_limit)
_TARGETS = (
    Promise(says="at least 10 x the rate of the best peer", bound=10, at_least=True, figure=_times("pipeline")),
    _LIMIT,
    Promise(says="at least 2 x the best peer that is given our graph", bound=2, at_least=True, figure=_times("onnx")),
    Promise(says="its p99 at most 1 x the shortest p50 of a peer", bound=1, at_least=False, figure=_slowest("pipeline")),
    Promise(says="and of a peer that is given our graph", bound=1, at_least=False, figure=_slowest("onnx")),
)

_SHAPE = "{rows_a_request} rows a request, 16 connections, answers held to the limit's within the parity bound. "
_CORES = (
    "Server and wrk (one thread) share the machine's cores. Latencies are of the round with the highest rate, best of {rounds}."
)


def _load(name: str, what: str, make: str, rows: int, sides: tuple[Server, ...], targets: tuple[Promise, ...]) -> Load:
    small = {"rows": 2_000, "requests": 64 * 4, "keys": 50, "rows_a_request": rows, "seconds": 1, "rounds": 1}
    full = {"rows": 20_000, "requests": 64 * 32, "keys": 1_000, "rows_a_request": rows, "seconds": 5, "rounds": 3}
    return Load(
        name=name, says=f"{what} {_SHAPE}{_CORES}", make=f"benchmarks.serving_project:{make}",
        sizes={"small": small, "full": full}, sides=(_MULLE, _BARE, *sides), targets=targets,
        parts="benchmarks.serving_cost:measure",
    )  # fmt: skip


_MIXED = "Ten numbers, five categories and a time go through 200 LightGBM trees."
_PIPELINES = (*_TWO, *(plain for plain, _ in _ALL))
_GRAPHS = tuple(graph for _, graph in _ALL)

CLAIMS = (
    _load("One row a request", _MIXED, "make_mixed", 1, (*_PIPELINES, *_GRAPHS), _TARGETS),
    _load("64 rows a request", _MIXED, "make_mixed", 64, (*_PIPELINES, *_GRAPHS), _TARGETS),
    _load(
        "A text", "TF-IDF of some thirty words a row, then a ridge regression.", "make_text", 1, _PIPELINES, _TARGETS[:2],
    ),
    _load(
        "Histories from the online store", "Ten numbers, and four aggregates over the past week of a key out of LMDB, which the "
        "limit looks up in a dict; 200 trees.", "make_history", 1, (), (_LIMIT,),
    ),
)  # fmt: skip
