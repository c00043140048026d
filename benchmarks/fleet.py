"""Claims: a thousand small models of one run, each searched, judged, compiled and proved, beside a plain loop of fits."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.claim import Claim, Outcome, Side, Target, memory_under
from benchmarks.search_side import opened, publish
from benchmarks.side import Work

__all__ = ["CLAIMS", "in_processes", "in_this_process", "loop", "make", "same"]

_CORES = 2
_CHUNK = 25
_ENOUGH = 100
_TRIALS = "ml.Search([ml.dummy(), ml.ridge(), ml.lightgbm()], trials=4)"
_GATES = 'gates=[ml.no_worse_than_champion("mae"), ml.parity(1e-4), ml.p99("50ms")]'


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Publish the rows of many shops, each with a slope of its own, and do a run's steps up to the members."""
    import numpy as np
    import polars as pl

    dice, shops, rows = np.random.default_rng(0), size["models"], size["rows"]
    shop = np.repeat(np.arange(shops), rows)
    numbers = {f"x{i}": dice.normal(size=len(shop)) for i in range(5)}
    slopes = dice.normal(size=(shops, 5))
    units = (
        sum(slopes[shop, i] * numbers[f"x{i}"] for i in range(5)) + np.sin(3 * numbers["x0"]) + 0.3 * dice.normal(size=len(shop))
    )
    frame = pl.DataFrame({"shop": shop, **numbers, "kind": dice.choice(list("abcd"), len(shop)), "units": units})
    declared = {"model": f'split=ml.holdout(0.2), each="shop", {_GATES}', "search": _TRIALS.removeprefix("ml.Search(")[:-1]}
    publish(folder, frame, "units", "regression", 0, {"fleet": declared})
    run_task = opened(folder, "fleet")
    run_task("features")
    found = run_task("search", search_timeout=None, warm=[])
    run_task("evaluate", settings=found["settings"])
    cut = run_task("cut", chunk=_CHUNK, only=None)
    (folder / "cut.json").write_text(json.dumps({"chunks": cut["chunks"], "settings": found["settings"]}))


def in_processes(folder: Path) -> Work:
    """Train the members as a run does: chunks handed to two compute processes that have imported what they need."""
    from mulle.adapters.compute.local import LocalCompute
    from mulle.bootstrap.processes import WARM

    cut = json.loads((folder / "cut.json").read_text())
    settings, fixed = json.loads((folder / "published.json").read_text())
    compute = LocalCompute(_CORES, warm=WARM, log=folder / "compute.log")

    def one(name: str) -> None:
        arguments = {**fixed, "run": "fleet", "model": "fleet", **_chunk(cut, name)}
        compute.call("mulle.bootstrap.tasks:run_task", {"name": "members", "settings": settings, "arguments": arguments})

    def run() -> None:
        with ThreadPoolExecutor(_CORES) as callers:
            list(callers.map(one, cut["chunks"]))

    def keep(_: None, path: Path) -> None:
        compute.close()
        _told(folder, path)

    return Work(run=run, keep=keep, calls=sum(len(keys) for keys in cut["chunks"].values()))


def in_this_process(folder: Path) -> Work:
    """Train the members in one process, whose memory is what a compute process takes."""
    cut, run_task = json.loads((folder / "cut.json").read_text()), opened(folder, "fleet")

    def run() -> None:
        for name in cut["chunks"]:
            run_task("members", **_chunk(cut, name))

    return Work(run=run, keep=lambda _, path: _told(folder, path), calls=sum(len(keys) for keys in cut["chunks"].values()))


def loop(folder: Path) -> Work:
    """Fit the same candidates in a plain loop over two processes, the best on all rows, and pickle it: nothing is proved."""
    import polars as pl
    from joblib import Parallel, delayed

    rows = pl.read_parquet(folder / "table.parquet").drop("row")
    shops = [(str(key), part) for (key,), part in rows.partition_by("shop", as_dict=True).items()]
    out = folder / "pickles"
    out.mkdir(exist_ok=True)
    with Parallel(n_jobs=_CORES) as pool:
        pool(delayed(_fitted)(key, part.to_pandas(), out) for key, part in shops[:4])

    def run() -> list[float]:
        with Parallel(n_jobs=_CORES) as pool:
            return list(pool(delayed(_fitted)(key, part.to_pandas(), out) for key, part in shops))

    return Work(run=run, keep=lambda found, path: path.with_suffix(".json").write_text(json.dumps(found)), calls=len(shops))


def same(folder: Path, limit: str, other: str) -> str:
    """Compare the middle of the models' errors: the splits differ, the fits do not."""
    want, have = (sorted(json.loads((folder / f"{name}.json").read_text())) for name in (limit, other))
    if len(want) != len(have):
        return f"{len(have)} models, not {len(want)}"
    middle, found = want[len(want) // 2], have[len(have) // 2]
    # A few models split otherwise may differ by luck; of a thousand the middle may not.
    near = 0.1 if len(want) >= _ENOUGH else 0.6
    return "" if abs(found - middle) <= near * middle else f"the models' middle error is {found:.3g}, not {middle:.3g}"


def _chunk(cut: Mapping[str, Any], name: str) -> dict[str, Any]:
    given = {"chunk": name, "keys": cut["chunks"][name], "settings": cut["settings"]}
    return {**given, "champions": {}, "replay": True, "search_timeout": None}


def _told(folder: Path, path: Path) -> None:
    done = (folder / ".mulle" / "runs" / "fleet" / "members" / "done").glob("*.json")
    members = [one["member"] for chunk in done for one in json.loads(chunk.read_text())]
    path.with_suffix(".json").write_text(json.dumps([m["value"] for m in members if m["value"] is not None]))


def _fitted(key: str, rows: Any, out: Path) -> float:
    import numpy as np
    from lightgbm import LGBMRegressor
    from sklearn.compose import make_column_transformer
    from sklearn.dummy import DummyRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    truth, features = rows["units"].to_numpy(), rows.drop(columns=["units", "shop"])
    order = np.random.default_rng(0).permutation(len(rows))
    last, valid, train = np.split(order, [len(rows) // 5, len(rows) // 5 + len(rows) * 4 // 25])
    known = np.concatenate([valid, train])

    def prepared(model: Any) -> Any:
        columns = [c for c in features if c != "kind"]
        coded = OneHotEncoder(handle_unknown="ignore")
        return make_pipeline(make_column_transformer((StandardScaler(), columns), (coded, ["kind"])), model)

    trees = {"n_estimators": 120, "min_child_samples": 20, "subsample": 0.9, "colsample_bytree": 0.9, "n_jobs": 1, "verbose": -1}
    kinds = (DummyRegressor, Ridge, lambda: LGBMRegressor(**trees), lambda: LGBMRegressor(**{**trees, "learning_rate": 0.05}))
    scored = [
        float(np.abs(prepared(k()).fit(features.iloc[train], truth[train]).predict(features.iloc[valid]) - truth[valid]).mean())
        for k in kinds
    ]
    best = kinds[int(np.argmin(scored))]
    lost = np.abs(prepared(best()).fit(features.iloc[known], truth[known]).predict(features.iloc[last]) - truth[last])
    (out / f"{key}.pickle").write_bytes(pickle.dumps(prepared(best()).fit(features, truth)))
    return float(lost.mean())


def _per_second(outcomes: Mapping[str, Outcome]) -> float | None:
    return 1 / outcomes["Mulle"].best if "Mulle" in outcomes else None


_SIZES: Mapping[Any, Mapping[str, int]] = {"small": {"models": 4, "rows": 200}, "full": {"models": 1_000, "rows": 500}}

CLAIMS = (
    Claim(
        name="Fleet",
        says="{models} models of {rows} rows each in one run: searched, judged, compiled, proved, bundled; seconds per model.",
        make="benchmarks.fleet:make",
        sizes=_SIZES,
        sides=(
            Side(name="Mulle", call="benchmarks.fleet:in_processes", repeat=1, note="two compute processes"),
            Side(name="plain loop", call="benchmarks.fleet:loop", repeat=1, note="the same fits in two processes, pickled"),
        ),
        same=same,
        targets=(Target(says="at least 10 models a second", bound=10, at_least=True, figure=_per_second),),
    ),
    Claim(
        name="Fleet in one process",
        says="The same {models} models in one process, for its memory.",
        make="benchmarks.fleet:make",
        sizes={"small": _SIZES["small"], "full": {"models": 200, "rows": 500}},
        sides=(
            Side(name="Mulle", call="benchmarks.fleet:in_this_process", repeat=1, note="what a compute process holds"),
            Side(name="plain loop", call="benchmarks.fleet:loop", repeat=1, note="its two processes are not counted"),
        ),
        same=same,
        targets=(memory_under(1.0),),
    ),
)
