"""A release is judged by latency, so each version's time is its own: neither pays for the other, nor for waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from serving_parts import T0, bundle, row, utc, version

from mulle.kernel.routes import RoutedVersion
from mulle.lifecycle.serving.log import read_records
from mulle.lifecycle.serving.rows import prediction_rows
from mulle.lifecycle.serving.score import Batch, Ready, Scored, score_batch, score_shadow
from mulle.lifecycle.serving.shelf import Loaded, Shelf

SLOW = 0.08


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder / str(n), offset=float(n)) for n in range(2)]


def slowed(loaded: Loaded) -> Loaded:
    """A model that takes its time, as a large one does."""
    predictor = copy(loaded.predictor)

    def late(call: Callable) -> Callable:
        def work(*given: object, **named: object) -> object:
            time.sleep(SLOW)
            return call(*given, **named)

        return work

    predictor.score, predictor.score_columns = late(predictor.score), late(predictor.score_columns)  # type: ignore[method-assign]
    return replace(loaded, predictor=predictor)


def ready(made: list[tuple[str, Path]], slow: int, mode: str) -> Ready:
    shelf = Shelf(lambda contract: pytest.fail("no joins here"))
    share = 0.5 if mode == "canary" else 0.0
    routes: tuple[RoutedVersion, ...] = (version(1, made[0], share=1 - share), version(2, made[1], share=share, mode=mode))
    loaded = [shelf.get("trip", route) for route in routes]
    loaded[slow - 1] = slowed(loaded[slow - 1])
    return Ready("d", T0, "s", routes, tuple(loaded))


def batch() -> Batch:
    return Batch("trip", [row(n) for n in range(3)], ["a", "b", "c"], [time.perf_counter()] * 3, utc("2013-06-01"), False)


def seconds(*scored: Scored) -> dict[int, float]:
    """The middle of the logged times, by version."""
    frames = [prediction_rows([r.payload for r in read_records(b"".join(part.records))]) for part in scored]
    return dict(pl.concat(frames).group_by("version").agg(pl.col("seconds").median()).iter_rows())


@pytest.mark.parametrize("slow", [1, 2])
def test_a_canarys_time_and_its_champions_are_told_apart(made: list[tuple[str, Path]], slow: int) -> None:
    told = seconds(score_batch([ready(made, slow, "canary")], batch()))
    assert told[slow] >= SLOW
    assert told[3 - slow] < told[slow] - SLOW / 2


def test_a_shadow_that_had_to_wait_is_not_slow(made: list[tuple[str, Path]]) -> None:
    answered = score_batch([ready(made, 1, "shadow")], batch(), defer=True)
    time.sleep(3 * SLOW)
    told = seconds(answered, score_shadow(answered.later[0]))
    assert told[1] >= SLOW
    assert told[2] < SLOW
