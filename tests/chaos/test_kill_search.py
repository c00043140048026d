"""A search whose process dies goes on with the trials it had, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARTS = Path(__file__).parents[1] / "unit" / "lifecycle" / "training"
LIFE = """
import json, sys
from pathlib import Path
import disasters
from mulle.adapters.compute.local import LocalCompute
from mulle.core.declare.candidates import lightgbm, ridge
from mulle.lifecycle.training.search import Plan
from tables import rows, run

folder, parallel, wait, disaster = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
disasters.WAIT = wait
first = ridge(disaster=disaster) if disaster else ridge()
plan = Plan(workers=lambda n: LocalCompute(n, warm=("disasters",)), folder=folder, parallel=parallel, ensemble=3)
found = run(*rows(), candidates=(first, lightgbm(n_estimators=5)), trials=9, plan=plan)
print(json.dumps([[{**t, "seconds": 0, "memory": 0} for t in found.trials], found.settings]))
"""


def life(folder: Path, parallel: int = 1, wait: float = 0.0, disaster: str = "") -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(PARTS)}
    command = [sys.executable, "-c", LIFE, str(folder), str(parallel), str(wait), disaster]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> list[object]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    found: list[object] = json.loads(out)
    return found


def lines(folder: Path) -> list[dict[str, object]]:
    path = folder / "search" / "trials.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def killed_after(folder: Path, trials: int, parallel: int) -> None:
    process = life(folder, parallel, wait=0.2)
    end = time.monotonic() + 300
    while sum("ended" in line for line in lines(folder)) < trials and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_search_killed_in_the_middle_runs_only_what_was_left_and_ends_the_same(tmp_path: Path, parallel: int) -> None:
    whole = told(life(tmp_path / "whole", parallel))
    killed_after(tmp_path / "killed", 4, parallel)
    before = [line for line in lines(tmp_path / "killed") if "ended" in line]
    assert 4 <= len(before) < 9
    assert told(life(tmp_path / "killed", parallel)) == whole
    assert list((tmp_path / "killed").glob("search/*")) == [], "a search that is done leaves nothing behind"


def test_a_trial_that_takes_the_run_s_process_down_is_recorded_by_the_next_life(tmp_path: Path) -> None:
    first = life(tmp_path, disaster="crash")
    first.communicate(timeout=300)
    assert first.returncode == -signal.SIGSEGV
    trials, settings = told(life(tmp_path, disaster="crash"))
    broken = [t for t in trials if t["candidate"] == "ridge"]  # type: ignore[union-attr, attr-defined]
    assert {t["failure"] for t in broken} == {"crash"}
    assert "SIGSEGV" in broken[0]["reason"]
    assert settings["candidate"] in ("lightgbm", "ensemble")  # type: ignore[call-overload, index]
