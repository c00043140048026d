"""The models of the serving claims: seeded rows, a project as a user writes it, and what the other sides are given of it.

A folder gets the project with its home, the request rows, the model's graph and codes, and the same fitted pipeline for peers.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

__all__ = ["make_history", "make_mixed", "make_text"]

NUMBERS = tuple(f"n{i}" for i in range(10))
CATEGORIES = {"shop": 40, "product": 100, "channel": 5, "region": 12, "tier": 3}
END = datetime(2025, 6, 1, tzinfo=UTC)
"""Where the rows end; but for histories."""

_DAYS = 60
_FIXED = (
    "n_estimators=200, num_leaves=31, learning_rate=0.1, min_child_samples=20, subsample=1.0, colsample_bytree=1.0, "
    'reg_lambda=0.0, objective="regression"'
)
_SEARCH = "search=ml.Search([{candidate}], trials=1, timeout='600s'), gates=[ml.parity()]"

_HEAD = """
import mulle as ml
import polars as pl

rows = ml.Dataset("rows", ml.Files("rows.parquet"), key="row", time="at", known_at="known", outcome="y")
"""

_MIXED = f"""

@ml.features(rows)
def seen(rows):
    at = pl.col("at").dt
    return rows.select({", ".join(repr(n) for n in (*NUMBERS, *CATEGORIES))}, hour=at.hour(), weekday=at.weekday())


model = ml.Model("model", features=seen, target="y", task="regression", {_SEARCH.format(candidate=f"ml.lightgbm({_FIXED})")})
"""

_TEXT = f"""

@ml.features(rows)
def seen(rows):
    return rows.select(text=ml.words("text"))


model = ml.Model("model", features=seen, target="y", task="regression", {_SEARCH.format(candidate="ml.ridge(alpha=1.0)")})
"""

_HISTORY = f"""

@ml.features(
    rows,
    recent=ml.history(
        rows, on="shop", window="7d", every="1h", mean=pl.col("y").mean(), most=pl.col("y").max(), least=pl.col("y").min(),
        times=pl.len(),
    ),
)
def seen(rows):
    joined = ["recent.mean", "recent.most", "recent.least", "recent.times"]
    return rows.select({", ".join(repr(n) for n in NUMBERS)}, *joined)


model = ml.Model("model", features=seen, target="y", task="regression", {_SEARCH.format(candidate=f"ml.lightgbm({_FIXED})")})
"""

_WORDS = 1_000
_AS_TEXT = pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def make_mixed(folder: Path, size: Mapping[str, int]) -> None:
    """Make a model of ten numbers, five categories and a time, with two hundred trees."""
    from benchmarks.peers.serving_pipeline import mixed

    rows = _rows(size)
    _learn(folder, rows[: size["rows"]], _HEAD + _MIXED)
    _requests(folder, rows[size["rows"] :])
    learned = rows[: size["rows"]]
    frame = learned.with_columns(_AS_TEXT).to_pandas()
    fitted = mixed(list(NUMBERS), _vocabularies(folder)).fit(frame, learned["y"].to_numpy())
    (folder / "pipeline.pickle").write_bytes(pickle.dumps(fitted))


def make_text(folder: Path, size: Mapping[str, int]) -> None:
    """Make a linear model of the TF-IDF of some thirty words a row."""
    from benchmarks.peers.serving_pipeline import text

    rows = _texts(size["rows"] + size["requests"])
    _learn(folder, rows[: size["rows"]], _HEAD + _TEXT)
    _requests(folder, rows[size["rows"] :])
    terms = json.loads((folder / "told.json").read_text())["features"]
    learned = rows[: size["rows"]]
    fitted = text([t["part"] for t in terms], [t["weight"] for t in terms], learned["text"].to_list(), learned["y"].to_numpy())
    (folder / "pipeline.pickle").write_bytes(pickle.dumps(fitted))


def make_history(folder: Path, size: Mapping[str, int]) -> None:
    """Make a model of ten numbers and four aggregates over the past week of a key, and fill its online store.

    The rows end with the present hour, because the store is filled for requests of the present.
    """
    from mulle.bootstrap.parts import wire
    from mulle.core.settings import Settings
    from mulle.lifecycle.features.read import OnlineReader
    from mulle.loop.data.online import refresh_online, specs_of

    now = datetime.now(UTC)
    end = now.replace(minute=0, second=0, microsecond=0)
    rows = _rows(size, shops=size["keys"], end=end).drop(*(c for c in CATEGORIES if c != "shop"))
    asked = rows[size["rows"] :].with_columns(at=pl.lit(now).dt.cast_time_unit("us").dt.truncate("1s"))
    _learn(folder, rows[: size["rows"]], _HEAD + _HISTORY)
    _requests(folder, asked)
    parts = wire(Settings(project=folder).resolved())
    refresh_online(parts, now)
    specs = specs_of(parts, parts.project.model("model").features)
    joined, _ = OnlineReader(parts.online, specs).join(asked, time="at", now=now)
    columns = [c for c in joined.columns if c.startswith("recent.")]
    known = {row["shop"]: [row[c] for c in columns] for row in joined.iter_rows(named=True)}
    if not any(values[0] is not None for values in known.values()):
        raise SystemExit("the online store knows nothing of any key")
    (folder / "joined.json").write_text(json.dumps({"columns": columns, "by_shop": known}))


def _rows(size: Mapping[str, int], shops: int = CATEGORIES["shop"], end: datetime = END) -> pl.DataFrame:
    count = size["rows"] + size["requests"]
    dice = np.random.default_rng(3)
    # Whole 64ths are the same in single and double precision, so that every library sees the same numbers.
    numbers = {name: np.round(dice.normal(size=count) * 64) / 64 for name in NUMBERS}
    codes = {name: dice.integers(0, shops if name == "shop" else many, count) for name, many in CATEGORIES.items()}
    step = timedelta(days=_DAYS) / size["rows"]
    y = numbers["n0"] * 3 + np.abs(numbers["n1"]) * numbers["n2"] + codes["shop"] % 7 + np.sin(codes["product"]) * 4
    frame = pl.DataFrame(
        {
            "row": np.arange(count),
            "at": [end - timedelta(days=_DAYS) + i * step for i in range(count)],
            **numbers,
            **{name: [f"{name}-{code}" for code in found] for name, found in codes.items()},
            "y": np.round((y + dice.normal(size=count)) * 64) / 64,
        }
    ).with_columns(_timed())
    gaps = pl.Series(dice.random(count) < 0.05)
    return frame.with_columns(n9=pl.when(gaps).then(None).otherwise(pl.col("n9")))


def _texts(count: int) -> pl.DataFrame:
    dice = np.random.default_rng(5)
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnpr" for b in "aeiou" for c in ("ra", "lo", "mi", "tu", "ne") * 4])[:_WORDS]
    # As often as in any language: the word of rank r in proportion to 1 / r.
    chances = 1 / np.arange(1, len(words) + 1)
    picked = [dice.choice(len(words), int(n), p=chances / chances.sum()) for n in dice.integers(20, 41, count)]
    y = [float(np.round(np.sin(p).sum() * 64) / 64) for p in picked]
    step = timedelta(days=_DAYS) / count
    at = [END - timedelta(days=_DAYS) + i * step for i in range(count)]
    frame = pl.DataFrame({"row": np.arange(count), "at": at, "text": [" ".join(words[p]) for p in picked], "y": y})
    return frame.with_columns(_timed())


def _timed() -> list[pl.Expr]:
    at = pl.col("at").cast(pl.Datetime("us", "UTC"))
    return [at, at.alias("known")]


def _learn(folder: Path, rows: pl.DataFrame, source: str) -> None:
    """Write the project, run it as its user would, and leave what it told about the model beside it."""
    from mulle.core.records.base import to_json
    from mulle.kernel.bundle import read_contract
    from mulle.kernel.routes import ROUTES, read_routes

    rows.write_parquet(folder / "rows.parquet")
    (folder / "project.py").write_text(source)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mulle", "run", "model"], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"mulle run failed: {done.stderr[-1500:]}{done.stdout[-500:]}")
    (route,) = read_routes(folder / ".mulle" / ROUTES).models["model"].deployments[-1].routes
    contract = read_contract(Path(route.address))
    assert contract.compiled == "onnx"
    assert contract.parity is not None
    told = {
        "features": [to_json(f) for f in contract.features],
        "graph": str(Path(route.address) / "model.onnx"),
        "inputs": [to_json(f) for f in contract.inputs],
        "bound": contract.parity.tolerance * contract.parity.scale,
        "settings": to_json(contract.settings),
    }
    (folder / "told.json").write_text(json.dumps(told))


def _requests(folder: Path, rows: pl.DataFrame) -> None:
    (folder / "requests.json").write_text(json.dumps(rows.drop("y", "known").with_columns(_AS_TEXT).to_dicts()))


def _vocabularies(folder: Path) -> dict[str, list[str]]:
    features = json.loads((folder / "told.json").read_text())["features"]
    return {f["name"]: list(f["categories"]) for f in features if f["kind"] == "category"}
