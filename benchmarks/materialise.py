"""Claim: filling the online store is faster than Feast's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks import point_in_time
from benchmarks.claim import Claim, Side, faster_than
from benchmarks.side import Work

if TYPE_CHECKING:
    import lmdb

    from mulle.core.declare.features import Features
    from mulle.core.ports.online import Online
    from mulle.core.records.bundle import JoinSpec

__all__ = ["CLAIMS", "NAMES", "UNTIL", "bare", "differs", "filled", "filled_bare", "make", "micros", "mulle"]

NAMES = point_in_time.NAMES
UNTIL = datetime(2026, 5, 1, tzinfo=UTC)


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``events.parquet`` with one row per key and ``keys.json``: the keys that are asked for."""
    point_in_time.make(folder, {"events": size["keys"], "rows": 1, "keys": 1})
    events = pl.read_parquet(folder / "events.parquet").with_columns(key=pl.int_range(pl.len()).shuffle(seed=1))
    events.write_parquet(folder / "events.parquet")
    asked = np.random.default_rng(2).integers(0, size["keys"], size["reads"])
    (folder / "keys.json").write_text(json.dumps(asked.tolist()))


def mulle(folder: Path) -> Work:
    """Feed our store from the declaration that training joins by."""
    kept: dict[str, Any] = {}

    def reset() -> None:
        if kept:
            kept["online"].close()
        shutil.rmtree(folder / "online", ignore_errors=True)
        kept["features"], kept["specs"], kept["online"] = _opened(folder)

    def keep(_: object, path: Path) -> None:
        table, at = kept["specs"][0].table, micros(UNTIL)
        keys = json.loads((folder / "keys.json").read_text())
        found = kept["online"].get([(table, str(key), at) for key in keys])
        path.with_suffix(".json").write_text(json.dumps([{n: values[n] for n in NAMES} for _, values in found]))

    return Work(run=lambda: _fill(folder, kept["features"], kept["specs"], kept["online"]), keep=keep, reset=reset)


def bare(folder: Path) -> Work:
    """Encode rows with orjson and put them into LMDB in the order of their keys."""
    kept: dict[str, lmdb.Environment] = {}

    def run() -> None:
        kept["store"] = filled_bare(folder)

    def reset() -> None:
        if kept:
            kept["store"].close()
        shutil.rmtree(folder / "bare", ignore_errors=True)

    def keep(_: object, path: Path) -> None:
        with kept["store"].begin() as transaction:
            found = [json.loads(transaction.get(str(k).encode())) for k in json.loads((folder / "keys.json").read_text())]
        path.with_suffix(".json").write_text(json.dumps(found))

    return Work(run=run, keep=keep, reset=reset)


def filled(folder: Path) -> tuple[Features, tuple[JoinSpec, ...], Online]:
    """Give our store with the events in it."""
    features, specs, online = _opened(folder)
    _fill(folder, features, specs, online)
    return features, specs, online


def filled_bare(folder: Path) -> lmdb.Environment:
    """Give a bare store with the events in it."""
    import lmdb
    import orjson

    store = lmdb.open(str(folder / "bare"), map_size=2**34, sync=False)
    rows = pl.read_parquet(folder / "events.parquet", columns=["key", *NAMES])
    keys = [str(key).encode() for key in rows["key"].to_list()]
    items = sorted(zip(keys, map(orjson.dumps, rows.select(NAMES).to_dicts()), strict=True))
    with store.begin(write=True) as transaction:
        transaction.cursor().putmulti(items)
    return store


def micros(moment: datetime) -> int:
    """Give an instant as microseconds since the epoch."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare what is read back, key by key."""
    want, have = (json.loads((folder / f"{name}.json").read_text()) for name in (limit, other))
    wrong = sum(a != b for a, b in zip(want, have, strict=True))
    return f"{wrong} of {len(want)} keys" if wrong else ""


def _opened(folder: Path) -> tuple[Features, tuple[JoinSpec, ...], Online]:
    import mulle as ml
    from mulle.adapters.online.lmdb import LmdbOnline
    from mulle.kernel.dtypes import schema_text
    from mulle.lifecycle.features.join import join_specs

    events = ml.Dataset("events", ml.Files("events.parquet"), key="key", time="at")
    asked = ml.Dataset("asked", ml.Files("rows.parquet"), key="row", time="now")
    features = ml.features(asked, last=ml.asof(events, on="key", within="365d"))(lambda rows: rows)
    schema = schema_text(pl.scan_parquet(folder / "events.parquet"))
    return features, join_specs(features, {"events": schema}), LmdbOnline(folder / "online")


def _fill(folder: Path, features: Features, specs: tuple[JoinSpec, ...], online: Online) -> None:
    from mulle.lifecycle.features.materialise import materialise

    materialise(features, {"events": pl.scan_parquet(folder / "events.parquet")}, specs, online, until=UNTIL)


CLAIMS = (
    Claim(
        name="Materialise",
        says="The last rows of {keys} keys, 10 features each, go from Parquet into an empty online store.",
        make="benchmarks.materialise:make",
        sizes={"small": {"keys": 5_000, "reads": 100}, "full": {"keys": 1_000_000, "reads": 1_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.materialise:mulle", repeat=3),
            Side(name="bare LMDB", call="benchmarks.materialise:bare", repeat=3, note="encoded and put, in order"),
            Side(name="Feast, SQLite", call="benchmarks.peers.feast_store:materialise", peer="feast", repeat=1),
        ),
        same=differs,
        targets=(faster_than("feast", 1, called="Feast"),),
    ),
)
