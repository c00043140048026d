"""Claims: in equal time the search finds what FLAML and AutoGluon find or better; trials at once use both cores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.claim import Claim, Outcome, Side, Target
from benchmarks.search_side import opened, publish
from benchmarks.side import Work
from benchmarks.standing import ahead_of, no_failures
from benchmarks.study import Round, Study

__all__ = ["CLAIMS", "at_once", "in_turn", "make", "same"]

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
    """Search with two trials at once, the workers' start counted."""
    return _trials(folder, _CORES)


def in_turn(folder: Path) -> Work:
    """Search with one trial after another, in the run's own process."""
    return _trials(folder, 1)


def _trials(folder: Path, parallel: int) -> Work:
    run_task = opened(folder, f"at-once-{parallel}")
    run_task("features")

    def keep(found: dict[str, Any], path: Path) -> None:
        path.with_suffix(".json").write_text(json.dumps([t["score"] for t in found["trials"]]))

    return Work(run=lambda: run_task("search", search_timeout=_LONG, warm=[]), keep=keep)


def same(folder: Path, limit: str, other: str) -> str:
    """Compare the trials' scores."""
    want, have = (json.loads((folder / f"{name}.json").read_text()) for name in (limit, other))
    return "" if want == have else f"the trials score {have[:3]}..., not {want[:3]}..."


def _efficiency(outcomes: Mapping[str, Outcome]) -> float | None:
    if not {"Mulle", "one at a time"} <= set(outcomes):
        return None
    return outcomes["one at a time"].best / outcomes["Mulle"].best / _CORES


_SIDES = (
    Side(name="Mulle", call="benchmarks.search_side:search", repeat=1, note="compiled, proved and bundled in that time"),
    Side(name="FLAML", call="benchmarks.peers.flaml_search:search", peer="flaml", repeat=1, note="with its stacked ensemble"),
    Side(
        name="AutoGluon",
        call="benchmarks.peers.autogluon_search:search",
        peer="autogluon",
        repeat=1,
        note="without torch, so without its neural networks; it takes no seed",
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
            Side(name="Mulle", call="benchmarks.search:at_once", repeat=2, note="two workers, their start counted"),
            Side(name="one at a time", call="benchmarks.search:in_turn", repeat=2, note="in the run's own process"),
        ),
        same=same,
        targets=(Target(says="at least 0.8 of both cores' time", bound=0.8, at_least=True, figure=_efficiency),),
    ),
)
