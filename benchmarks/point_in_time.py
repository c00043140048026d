"""Claim: the point-in-time join costs little more than one sort and one as-of join, and memory stays bounded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.claim import Claim, Side, faster_than, memory_under, within
from benchmarks.side import Work

__all__ = ["CLAIMS", "bare", "differs", "make", "mulle"]

NAMES = [f"f{i}" for i in range(10)]
_START, _SPAN_US = np.datetime64("2026-01-01", "us"), 90 * 86_400 * 10**6


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``events.parquet`` (key, at, ten numbers, one in a hundred null) and ``rows.parquet`` (row, key, now)."""
    random = np.random.default_rng(20260101)
    events, rows = size["events"], size["rows"]
    # No two events at one instant, so that every side must give the same answer.
    at = _START + random.permutation(events) * (_SPAN_US // events)
    values = {n: pl.Series(n, random.normal(size=events)) for n in NAMES}
    missing = random.random(events) < 0.01
    values["f9"] = values["f9"].zip_with(pl.Series(~missing), pl.Series([None], dtype=pl.Float64))
    frame = pl.DataFrame({"key": random.integers(0, size["keys"], events), "at": at} | values)
    frame.with_columns(pl.col("at").dt.replace_time_zone("UTC")).write_parquet(folder / "events.parquet")
    asked = {"row": np.arange(rows), "key": random.integers(0, size["keys"], rows)}
    asked["now"] = _START + random.integers(0, _SPAN_US, rows).astype("timedelta64[us]")
    pl.DataFrame(asked).with_columns(pl.col("now").dt.replace_time_zone("UTC")).write_parquet(folder / "rows.parquet")


def mulle(folder: Path) -> Work:
    """Join as training does: a declared as-of join, the rows in memory, the events in their file."""
    import mulle as ml
    from mulle.lifecycle.features.join import join_offline

    events = ml.Dataset("events", ml.Files("events.parquet"), key="key", time="at")
    asked = ml.Dataset("asked", ml.Files("rows.parquet"), key="row", time="now")
    features = ml.features(asked, last=ml.asof(events, on="key", within="365d"))(lambda rows: rows)
    rows = pl.read_parquet(folder / "rows.parquet")

    def run() -> pl.DataFrame:
        return _collected(join_offline(rows, features, {"events": pl.scan_parquet(folder / "events.parquet")}))

    def keep(answer: pl.DataFrame, path: Path) -> None:
        _keep(answer.select("row", *(pl.col(f"last.{n}").alias(n) for n in NAMES)), path)

    return Work(run=run, keep=keep)


def bare(folder: Path) -> Work:
    """Sort both sides and join them as of, with nothing else asked."""
    rows = pl.read_parquet(folder / "rows.parquet")

    def run() -> pl.DataFrame:
        events = pl.scan_parquet(folder / "events.parquet").sort("at")
        joined = rows.lazy().sort("now").join_asof(events, left_on="now", right_on="at", by="key", check_sortedness=False)
        return joined.sort("row").collect()

    return Work(run=run, keep=lambda answer, path: _keep(answer.select("row", *NAMES), path))


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare two answers row by row; a row that a side leaves out, as Feast's dask store does, reads as nulls."""
    want = pl.read_parquet(folder / f"{limit}.parquet").with_columns(pl.col(NAMES).fill_nan(None))
    have = pl.read_parquet(folder / f"{other}.parquet").with_columns(pl.col(NAMES).fill_nan(None))
    have = want.select("row").join(have.cast({"row": want["row"].dtype}), on="row", how="left", maintain_order="left")
    wrong = [n for n in NAMES if not want[n].equals(have[n])]
    return f"{', '.join(wrong)} in {want.height:,} rows" if wrong else ""


def _collected(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    return frame.collect() if isinstance(frame, pl.LazyFrame) else frame


def _keep(answer: pl.DataFrame, path: Path) -> None:
    answer.sort("row").write_parquet(f"{path}.parquet")


_OURS = (
    Side(name="Mulle", call="benchmarks.point_in_time:mulle"),
    Side(name="bare Polars", call="benchmarks.point_in_time:bare", note="sort and join_asof"),
)
_FEAST = (
    Side(name="Feast, duckdb", call="benchmarks.peers.feast_store:join_duckdb", peer="feast", repeat=2),
    Side(name="Feast, dask", call="benchmarks.peers.feast_store:join_dask", peer="feast", repeat=2, note="its default store"),
)
_SAYS = "{rows} rows get 10 features from {events} rows of {keys} keys, as known at each row's time; read from Parquet each time."
_MAKE = "benchmarks.point_in_time:make"
_SMALL = {"rows": 2_000, "events": 20_000, "keys": 200}

CLAIMS = (
    Claim(
        name="Point-in-time join",
        says=_SAYS,
        make=_MAKE,
        sizes={"small": _SMALL, "full": {"rows": 100_000, "events": 1_000_000, "keys": 1_000}},
        sides=(*_OURS, *_FEAST),
        same=differs,
        targets=(faster_than("feast", 100, called="Feast"), within("bare Polars", 1.5)),
    ),
    Claim(
        name="Point-in-time join, fewer rows per key",
        says=_SAYS + " It shows how Feast's time depends on the rows per key.",
        make=_MAKE,
        sizes={"small": _SMALL | {"keys": 2_000}, "full": {"rows": 100_000, "events": 1_000_000, "keys": 10_000}},
        sides=(*_OURS, *_FEAST),
        same=differs,
        targets=(within("bare Polars", 1.5),),
    ),
    Claim(
        name="Point-in-time join, 10M rows",
        says=_SAYS,
        make=_MAKE,
        sizes={"small": _SMALL | {"events": 40_000}, "full": {"rows": 100_000, "events": 10_000_000, "keys": 10_000}},
        sides=tuple(Side(name=s.name, call=s.call, repeat=2, note=s.note) for s in _OURS),
        same=differs,
        targets=(memory_under(4),),
    ),
)
