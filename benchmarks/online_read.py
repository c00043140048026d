"""Claim: reading ten features of a key costs a few microseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import materialise
from benchmarks.claim import Claim, Side, faster_than
from benchmarks.side import Work

__all__ = ["CLAIMS", "bare", "joined", "mulle"]

NAMES = materialise.NAMES


def mulle(folder: Path) -> Work:
    """Ask our store for one key after another, at an instant, as everything that reads it does."""
    from mulle.kernel.keys import key_text

    _, specs, online = materialise.filled(folder)
    table, at = specs[0].table, materialise.micros(materialise.UNTIL)
    keys = _keys(folder)

    def run() -> list[Any]:
        get = online.get
        return [get([(table, key_text([key]) or "", at)])[0] for key in keys]

    def keep(answer: list[Any], path: Path) -> None:
        _keep([{n: found[1][n] for n in NAMES} for found in answer], path)

    return Work(run=run, keep=keep, calls=len(keys))


def joined(folder: Path) -> Work:
    """Join the features to one-row requests as the server does: typed columns, and how fresh each join is."""
    from mulle.lifecycle.features.read import OnlineReader

    _, specs, online = materialise.filled(folder)
    reader = OnlineReader(online, specs)
    requests = [pl.DataFrame({"key": [key], "now": [materialise.UNTIL]}) for key in _keys(folder)]

    def run() -> list[pl.DataFrame]:
        return [reader.join(request, time="now", now=materialise.UNTIL)[0] for request in requests]

    def keep(answer: list[pl.DataFrame], path: Path) -> None:
        _keep([frame.select(pl.col(f"last.{n}").alias(n) for n in NAMES).row(0, named=True) for frame in answer], path)

    return Work(run=run, keep=keep, calls=len(requests))


def bare(folder: Path) -> Work:
    """Get bytes from LMDB by key and decode them with orjson."""
    import orjson

    store = materialise.filled_bare(folder)
    keys = [str(key).encode() for key in _keys(folder)]

    def run() -> list[dict[str, Any]]:
        with store.begin() as transaction:
            get, loads = transaction.get, orjson.loads
            return [loads(get(key)) for key in keys]

    return Work(run=run, keep=_keep, calls=len(keys))


def _keys(folder: Path) -> list[int]:
    keys: list[int] = json.loads((folder / "keys.json").read_text())
    return keys


def _keep(answer: list[dict[str, Any]], path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(answer))


CLAIMS = (
    Claim(
        name="Online read",
        says="10 features of one key after another: {reads} reads over {keys} keys; seconds are of one read.",
        make="benchmarks.materialise:make",
        sizes={"small": {"keys": 500, "reads": 200}, "full": {"keys": 100_000, "reads": 5_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.online_read:mulle", note="the store, by key and instant"),
            Side(name="bare LMDB", call="benchmarks.online_read:bare", note="get and decode, nothing checked"),
            Side(name="Mulle, joined", call="benchmarks.online_read:joined", note="typed columns and freshness, as served"),
            Side(name="Feast, SQLite", call="benchmarks.peers.feast_store:online_read", peer="feast", repeat=3),
        ),
        same=materialise.differs,
        targets=(faster_than("feast", 50, called="Feast"),),
    ),
)
