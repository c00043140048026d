"""The benchmarks run, and their sides give equal answers, at a tiny size and without peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("point_in_time", "online_read", "materialise", "checks", "ingest")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def called(call: str) -> Callable:
    module, function = call.split(":")
    return getattr(import_module(module), function)


@pytest.mark.parametrize("name", NAMES)
def test_our_sides_answer_as_the_limit_does(name: str, tmp_path: Path) -> None:
    for number, claim in enumerate(import_module(f"benchmarks.{name}").CLAIMS):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert called(claim.make)(folder, claim.sizes["small"]) is None
        sides = [side for side in claim.sides if side.peer is None]
        for side in sides:
            work = called(side.call)(folder)
            work.reset()
            work.keep(work.run(), folder / side.slug)
        limit = claim.sides[1].slug
        assert [claim.same(folder, limit, side.slug) for side in sides] == [""] * len(sides)


def test_an_answer_that_differs_is_told(tmp_path: Path) -> None:
    checks = import_module("benchmarks.checks")
    (tmp_path / "checks.json").write_text(json.dumps([["not_null", "x", []], ["between", "x", [0, 1]]]))
    (tmp_path / "a.json").write_text("[3, 4]")
    (tmp_path / "b.json").write_text("[3, 5]")
    assert checks.differs(tmp_path, "a", "b") == "between(x): 5, not 4"


def test_the_command_measures_each_side_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "benchmarks", "checks", "--no-peers", "--size", "small", "--json"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert {"processor", "cores", "memory", "python"} <= set(told["machine"])
    claim = told["claims"][0]
    assert [side["name"] for side in claim["sides"]] == ["Mulle", "bare Polars"]
    assert all(side["failed"] is None and min(side["seconds"]) > 0 and side["peak_bytes"] > 2**20 for side in claim["sides"])
    assert all(target["met"] is None for target in claim["targets"])


def test_a_claim_that_is_not_there_is_wrong_use() -> None:
    answer = subprocess.run([sys.executable, "-m", "benchmarks", "magic"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "no claim magic" in answer.stderr


def test_a_peer_that_cannot_be_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environments, measure = import_module("benchmarks.environments"), import_module("benchmarks.measure")
    claim = import_module("benchmarks.claim")
    (tmp_path / "feast.txt").write_text("feast==0.67.0\n")
    monkeypatch.setattr(environments, "_PINS", tmp_path)
    monkeypatch.setattr(environments, "_ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    side = claim.Side(name="Feast", call="nowhere:nothing", peer="feast")
    assert measure._outcome(side, tmp_path).failed == "could not be installed: uv was not found"
