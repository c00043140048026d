"""Feast's sides. Its repository is declared here in Python and applied to a clean folder, without its command line.

Its settings are the fastest of those tried: no TTL (a filter less in each join), a registry that is never read again,
Python rows rather than a request over HTTP.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64

from benchmarks.side import Work

__all__ = ["join_dask", "join_duckdb", "materialise", "online_read"]

NAMES = [f"f{i}" for i in range(10)]
FEATURES = [f"last:{n}" for n in NAMES]
_FROM, _UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def join_duckdb(folder: Path) -> Work:
    """Join with the duckdb store."""
    return _join(folder, "duckdb")


def join_dask(folder: Path) -> Work:
    """Join with the dask store, which is the default."""
    return _join(folder, "dask")


def materialise(folder: Path) -> Work:
    """Write the last row of each key into SQLite."""
    online = folder / "feast-online.db"
    kept: dict[str, FeatureStore] = {}

    def reset() -> None:
        for file in folder.glob("feast-online.db*"):
            file.unlink()
        kept["store"] = _store(folder, "dask", online)

    def keep(_: object, path: Path) -> None:
        keys = json.loads((folder / "keys.json").read_text())
        path.with_suffix(".json").write_text(json.dumps([_read(kept["store"], key) for key in keys]))

    return Work(run=lambda: kept["store"].materialize(_FROM, _UNTIL), keep=keep, reset=reset)


def online_read(folder: Path) -> Work:
    """Read ten features of one key after another from SQLite."""
    store = _store(folder, "dask", folder / "feast-online.db")
    store.materialize(_FROM, _UNTIL)
    keys = json.loads((folder / "keys.json").read_text())

    def keep(answer: list[dict[str, Any]], path: Path) -> None:
        path.with_suffix(".json").write_text(json.dumps(answer))

    return Work(run=lambda: [_read(store, key) for key in keys], keep=keep, calls=len(keys))


def _read(store: FeatureStore, key: int) -> dict[str, Any]:
    found = store.get_online_features(features=FEATURES, entity_rows=[{"key": key}]).to_dict()
    return {name: found[name][0] for name in NAMES}


def _join(folder: Path, offline: str) -> Work:
    store = _store(folder, offline, folder / f"feast-{offline}.db")
    rows = pq.read_table(folder / "rows.parquet").to_pandas().rename(columns={"now": "event_timestamp"})

    def run() -> pd.DataFrame:
        return store.get_historical_features(entity_df=rows, features=FEATURES).to_df()

    return Work(run=run, keep=lambda answer, path: answer[["row", *NAMES]].to_parquet(f"{path}.parquet"))


def _store(folder: Path, offline: str, online: Path) -> FeatureStore:
    os.environ["FEAST_USAGE"] = "False"
    config = RepoConfig(
        project="bench",
        provider="local",
        registry={"path": str(folder / f"feast-{offline}-registry.db"), "cache_ttl_seconds": 0},
        online_store={"type": "sqlite", "path": str(online)},
        offline_store={"type": offline},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
    view = FeatureView(
        name="last",
        entities=[key],
        ttl=timedelta(0),
        schema=[Field(name="key", dtype=Int64), *(Field(name=n, dtype=Float64) for n in NAMES)],
        source=FileSource(path=str(folder / "events.parquet"), timestamp_field="at"),
    )
    store.apply([key, view])
    return store
