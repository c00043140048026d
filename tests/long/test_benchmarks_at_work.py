"""The benchmarks that take long at their least size: servers under load, and trials at once in processes and on Dask."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize(("number", "other"), [(1, "one at a time"), (2, "local processes")])
def test_trials_at_once_give_what_they_give_in_turn_and_on_dask(number: int, other: str) -> None:
    trials = import_module("benchmarks.search").CLAIMS[number]
    outcomes = import_module("benchmarks.measure").measure(trials, "small", peers=False, say=lambda text: None)
    assert {name: outcome.failed for name, outcome in outcomes.items()} == {"Mulle": "", other: ""}
    assert trials.targets[0].figure(outcomes) > 0


@pytest.mark.parametrize("number", [0, 3], ids=["one row", "histories"])
def test_our_server_answers_as_the_limit_does_and_is_pressed(number: int) -> None:
    serving, load = (import_module(f"benchmarks.{name}") for name in ("serving", "serving_load"))
    process, report = (import_module(f"benchmarks.{name}") for name in ("serving_process", "serving_report"))
    given = serving.CLAIMS[number]
    nobody = process.Server(name="Nobody", module="benchmarks.nothing")
    given = replace(given, sides=(*given.sides[:2], nobody))
    found = load.pressed(given, "small", peers=False, say=lambda text: None)
    text = report.as_text(given, "small", found)
    if shutil.which("wrk") is None:
        assert text.count("wrk was not found: install the package wrk") == 2
        return
    assert {name: p.failed for name, p in found.good().items()} == {"Mulle": "", "bare ASGI + ONNX": ""}
    assert "No module named benchmarks.nothing" in found.servers["Nobody"].failed
    for reached in found.good().values():
        assert reached.best.rate > 10
        assert 0 < reached.best.p50 <= reached.best.p99
        assert reached.best.cpu > 0
        assert reached.memory_bytes > 2**20
    assert min(step for steps in found.parts.values() for step in steps.values()) > 0
    assert ("histories read" in found.parts["1"]) == (number == 3)
    assert "at least 0.9 x the rate of the limit" in text
