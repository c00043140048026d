"""Claims: in equal time the search finds what FLAML and AutoGluon find or better; trials at once use both cores, on Dask too."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.claim import Claim, Outcome, Side, Target
from benchmarks.search_side import opened, publish
from benchmarks.side import Work
from benchmarks.standing import ahead_of, no_failures
from benchmarks.study import Round, Study

__all__ = ["CLAIMS", "at_once", "in_turn", "make", "on_dask", "same"]

_CORES = 2
_LONG = 1800


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Publish a table of numbers, with two models that differ in how many trials run at once."""
    import polars as pl
    from sklearn.datasets import make_friedman1

    features, target = make_friedman1(n_samples=size["rows"], n_features=10, noise=1.0, random_state=1)
    columns = {f"f{i}": column for i, column in enumerate(features.T)}
    # All is fixed, so each trial is the same work.
    fixed = "n_estimators=300, num_leaves=63, learning_rate=0.05, min_child_samples=20, subsample=0.8, colsample_bytree=0.8"
    candidate = f"ml.lightgbm({fixed}, reg_lambda=1.0, objective='regression')"
    search = f"[{candidate}], trials={size['trials'] + 1}, timeout='{_LONG}s', parallel="
    models = {f"at-once-{n}": {"model": "split=ml.holdout(0.1)", "search": f"{search}{n}"} for n in (1, _CORES)}
    publish(folder, pl.DataFrame({**columns, "target": target}), "target", "regression", 0, models)


def at_once(folder: Path) -> Work:
    """Search with two trials at once; what the workers' start takes beyond the features step counts."""
    return _trials(folder, _CORES)


def on_dask(folder: Path) -> Work:
    """Search with two trials at once on a cluster of two workers on this machine, which is there before."""
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=_CORES, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0,
        silence_logs=logging.CRITICAL,
    )  # fmt: skip
    return _trials(folder, _CORES, cluster.close, compute="dask://" + cluster.scheduler_address.removeprefix("tcp://"))


def in_turn(folder: Path) -> Work:
    """Search with one trial after another, in the run's own process."""
    return _trials(folder, 1)


def _trials(folder: Path, parallel: int, end: Callable[[], object] = lambda: None, **changed: str) -> Work:
    run_task = opened(folder, f"at-once-{parallel}", **changed)

    def keep(found: dict[str, Any], path: Path) -> None:
        path.with_suffix(".json").write_text(json.dumps([t["score"] for t in found["trials"]]))
        end()

    def search() -> dict[str, Any]:
        return run_task("search", search_timeout=_LONG, warm=[])

    # As in a run: the features step comes right before, and the workers start in it.
    return Work(run=search, keep=keep, reset=lambda: run_task("features"))


def same(folder: Path, limit: str, other: str) -> str:
    """Compare the trials' scores."""
    want, have = (json.loads((folder / f"{name}.json").read_text()) for name in (limit, other))
    return "" if want == have else f"the trials score {have[:3]}..., not {want[:3]}..."


def _efficiency(outcomes: Mapping[str, Outcome]) -> float | None:
    if not {"Mulle", "one at a time"} <= set(outcomes):
        return None
    return outcomes["one at a time"].best / outcomes["Mulle"].best / _CORES


def _beside(outcomes: Mapping[str, Outcome]) -> float | None:
    if not {"Mulle", "local processes"} <= set(outcomes):
        return None
    return outcomes["Mulle"].best / outcomes["local processes"].best


_SIDES = (
    Side(name="Mulle", call="benchmarks.search_side:search", repeat=1, note="compiled, proved and bundled in that time"),
    Side(name="FLAML", call="benchmarks.peers.flaml_search:search", peer="flaml", repeat=1, note="with its stacked ensemble"),
    Side(
        name="AutoGluon",
        call="benchmarks.peers.autogluon_search:search",
        peer="autogluon",
        repeat=1,
        note="without torch, so without its neural networks; it takes no seed, so it is asked once",
        seeded=False,
    ),
)

_LONGER = ("diamonds", "phoneme", "credit_g", "digits", "friedman1", "diabetes", "noisy_binary")
"""The first four of these that are there get more time."""

CLAIMS = (
    Study(
        name="Search",
        says="What a search finds in equal time on two cores, on rows that no side was told the truth of.",
        cores=_CORES,
        rounds={
            "small": (Round(seconds=2, seeds=(0,), tables=("iris", "friedman1"), rows=200),),
            "full": (Round(seconds=30, seeds=(0, 1, 2)), Round(seconds=120, seeds=(0,), tables=_LONGER, most=4)),
        },
        sides=_SIDES,
        targets=(ahead_of("FLAML"), no_failures()),
    ),
    Claim(
        name="Trials at once",
        says="A search of {trials} equal trials on {rows} rows, two at once, against the same one after another.",
        make="benchmarks.search:make",
        sizes={"small": {"rows": 300, "trials": 2}, "full": {"rows": 20_000, "trials": 40}},
        sides=(
            Side(name="Mulle", call="benchmarks.search:at_once", repeat=2, note="two workers, started in the step before"),
            Side(name="one at a time", call="benchmarks.search:in_turn", repeat=2, note="in the run's own process"),
        ),
        same=same,
        targets=(Target(says="at least 0.8 of both cores' time", bound=0.8, at_least=True, figure=_efficiency),),
    ),
    Claim(
        name="Trials on Dask",
        says="A search of {trials} equal trials on {rows} rows, two at once: on Dask's workers against processes of our own.",
        make="benchmarks.search:make",
        sizes={"small": {"rows": 300, "trials": 2}, "full": {"rows": 20_000, "trials": 40}},
        sides=(
            Side(name="Mulle", call="benchmarks.search:on_dask", repeat=2, note="two Dask workers on this machine"),
            Side(name="local processes", call="benchmarks.search:at_once", repeat=2, note="started in the step before"),
        ),
        same=same,
        targets=(Target(says="at most 1.15 times the local processes' time", bound=1.15, at_least=False, figure=_beside),),
    ),
)
