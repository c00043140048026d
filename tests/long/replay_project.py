"""A small world that changes: taxi rides whose speed drops half-way, for replays that end in seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

PROJECT = """
import polars as pl
import mulle as ml

zones = ml.Dataset("zones", ml.Files("data/zones.csv"), key="zone", checks=[ml.unique("zone")])
rides = ml.Dataset(
    "rides",
    ml.Files("data/rides.parquet"),
    key="ride",
    time="asked_at",
    known_at="ended_at",
    outcome=["minutes"],
    checks=[ml.unique("ride"), ml.one_of("zone", zones), ml.between("km", 0, 100)],
)

@ml.features(
    rides,
    place=ml.lookup(zones, on="zone"),
    recent=ml.history(rides, on="zone", window="2d", every="1h", minutes=pl.col("minutes").mean()),
)
def shape(rows):
    return rows.select("zone", "km", hour=pl.col("asked_at").dt.hour(), size="place.size", recent="recent.minutes")

minutes = ml.Model(
    "minutes",
    features=shape,
    target="minutes",
    task="regression",
    split=ml.holdout("3d"),
    search=ml.Search([ml.ridge(), ml.lightgbm(n_estimators=40)], trials=3),
    gates=[ml.no_worse_than_champion("mae", margin=0.02, min_rows=50), ml.parity(1e-4), ml.p99("50ms")],
    rollout=ml.canary(50, 100, hold="6h", min_rows=80, max_wait="2d", margin=0.05),
    monitor=ml.Monitor(window="1d", performance=ml.at_most("mae", 4), delay="12h", min_rows=50),
    retrain=ml.Retrain(on=["performance"], cooldown="3d", takes="2h"),
)
"""

START = datetime(2024, 1, 1, tzinfo=UTC)


def write_project(folder: Path, *, days: int = 37, a_day: int = 120, slower_from: int = 26) -> Path:
    """Write the project and its data; from day `slower_from` on every ride takes half as long again."""
    rng = np.random.default_rng(7)
    n = days * a_day
    at = np.sort(rng.uniform(0, days * 86400, n)).astype("int64")
    zone = rng.choice(["north", "south", "mid"], n)
    km = rng.gamma(3.0, 2.0, n).clip(0.3, 80)
    pace = np.select([zone == "north", zone == "south"], [2.0, 3.0], 4.0) * np.where(at >= slower_from * 86400, 1.5, 1.0)
    minutes = km * pace + rng.normal(0, 1.5, n)
    asked = [START + timedelta(seconds=int(s)) for s in at]
    gone = rng.random(n) < 0.02
    rides = pl.DataFrame(
        {
            "ride": [f"r{i}" for i in range(n)],
            "zone": zone,
            "km": km,
            "asked_at": asked,
            "ended_at": [a + timedelta(minutes=float(max(m, 1.0))) for a, m in zip(asked, minutes, strict=True)],
            "minutes": pl.Series(minutes).scatter(np.flatnonzero(gone), None),
        },
        schema_overrides={"asked_at": pl.Datetime("us", "UTC"), "ended_at": pl.Datetime("us", "UTC")},
    )
    (folder / "data").mkdir(parents=True)
    rides.write_parquet(folder / "data" / "rides.parquet")
    (folder / "data" / "zones.csv").write_text("zone,size\nnorth,10\nsouth,20\nmid,5\n")
    (folder / "project.py").write_text(PROJECT)
    return folder
