"""Features from other tables: a batch joins them offline, and says what the server says from its online store."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from batch_parts import WHY, register
from serving_parts import bundle

from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock, instant, rfc3339
from mulle.core.hashing import hash_folder
from mulle.core.records.base import to_json
from mulle.core.settings import load_settings
from mulle.kernel.project import load_features
from mulle.loop.batch.job import run_batch
from mulle.loop.batch.plan import Order
from mulle.loop.data.ingest import ingest
from mulle.loop.data.offline import open_version
from mulle.loop.data.online import refresh_online, specs_of
from mulle.loop.parts import Parts

PROJECT = """
import polars as pl
import mulle as ml

weather = ml.Dataset("weather", ml.Files("weather.csv"), key="kind", time="seen")
trips = ml.Dataset("trips", ml.Files("trips.csv"), key="id", time="at")

@ml.features(
    trips,
    now=ml.asof(weather, on="kind", within="30m"),
    past=ml.history(weather, on="kind", window="2h", every="10m", wind=pl.col("wind").mean()),
)
def shape(rows):
    seen = pl.col("now.wind").fill_null(-7.0) * 10 + pl.col("past.wind").fill_null(-9.0) * 1000
    return rows.select(size=pl.col("size") + seen, kind="kind")

trip = ml.Model("trip", features=shape, target="size", task="regression")
"""
NOW = instant("2024-05-06T12:00:00Z")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    seen = [NOW - timedelta(minutes=7 * n) for n in range(200)]
    weather = [{"kind": k, "seen": rfc3339(at), "wind": (i * 7919 % 100) / 8} for i, at in enumerate(seen) for k in ("a", "b")]
    pl.DataFrame(weather).write_csv(folder / "weather.csv")
    trips = [{"id": n, "at": rfc3339(NOW - timedelta(minutes=n)), "size": n / 4, "kind": "abc"[n % 3]} for n in range(60)]
    pl.DataFrame(trips).write_csv(folder / "trips.csv")
    parts = replace(wire(load_settings({"project": folder}, {})), clock=ReplayClock(NOW))
    for name in ("weather", "trips"):
        ingest(parts, parts.project.datasets[name], now=NOW, causes=WHY, bulk=True)
    _, place = bundle(tmp_path / "bundle", offset=1.0)
    (place / "transform" / "project.py").write_text(PROJECT)
    contract = json.loads((place / "bundle.json").read_text())
    contract["joins"] = to_json(specs_of(parts, load_features(place / "transform", "shape")))
    (place / "bundle.json").write_text(json.dumps(contract))
    register(parts, 1, (hash_folder(place), place))
    return parts


def answers(parts: Parts, name: str) -> pl.DataFrame:
    return pl.read_parquet(parts.settings.project / name / "part-*.parquet").sort("id")


def test_histories_and_values_as_of_a_time_are_those_of_the_server(parts: Parts) -> None:
    told = run_batch(parts, Order(model="trip", input="trips", output="out/"), causes=WHY)
    assert told["joined"] == {"weather": 1}
    refresh_online(parts, NOW)
    asked = pl.read_csv(parts.settings.project / "trips.csv").with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))
    online = open_version(parts, "trip@1").predict(asked)
    found = answers(parts, "out")
    recent = [i for i, fresh in enumerate(online["freshness"]) if "past" in json.loads(fresh)]
    assert len(recent) >= 5
    assert [online["value"][i] for i in recent] == [found["value"][i] for i in recent]
    assert found["value"].n_unique() == 60


def test_what_became_known_later_does_not_change_an_answer_and_what_is_missing_is_null(parts: Parts) -> None:
    run_batch(parts, Order(model="trip", input="trips", output="before/"), causes=WHY)
    late = pl.read_csv(parts.settings.project / "weather.csv").with_columns(
        seen=pl.lit(rfc3339(NOW + timedelta(minutes=1))), wind=pl.lit(1e6)
    )
    late.head(2).write_csv(parts.settings.project / "weather.csv")
    later = replace(parts, clock=ReplayClock(NOW + timedelta(minutes=2)))
    ingest(later, parts.project.datasets["weather"], now=later.clock.now(), causes=WHY, bulk=True)
    told = run_batch(later, Order(model="trip", input="trips", output="after/"), causes=WHY)
    assert told["joined"] == {"weather": 2}
    assert answers(parts, "before")["value"].equals(answers(parts, "after")["value"])
    unknown = answers(parts, "after").filter(pl.col("id") % 3 == 2)
    assert unknown["value"].to_list() == [n / 4 - 70 - 9000 + 1 for n in unknown["id"]]
