"""Runs that are cancelled, gone on with, forked from a stage and repeated with other parameters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.unit.loop.conftest import write_cells

from mulle.core.errors import Conflict, NotFound, UsageError
from mulle.core.records.base import Cause
from mulle.core.records.run import run_stages, run_state
from mulle.loop.parts import Parts
from mulle.loop.runner import await_run, run_model
from mulle.loop.takeup import cancel_run, take_up
from mulle.loop.training.changes import changed, read_changes

WHY = (Cause(type="person", id="ada", why="asked"),)

PROJECT = """
import os
import time
from pathlib import Path

cells = ml.Dataset("cells", ml.Files("cells.csv"), key="id")


def wait():
    hold = Path(os.environ["TAKEUP_HOLD"])
    if hold.exists():
        hold.with_suffix(f".{os.getpid()}").touch()
        time.sleep(600)


@ml.features(cells)
def cell_features(rows):
    wait()
    return rows.select("size", "age")


weight = ml.Model(
    "weight", features=cell_features, target="weight", task="regression",
    search=ml.Search([ml.ridge(), ml.random_forest(n_estimators=20)], trials=2), gates=[ml.at_most("mae", 5)],
)
"""

Open = Callable[..., Parts]


@pytest.fixture
def lab(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("TAKEUP_HOLD", str(tmp_path / "hold"))
    write_cells(tmp_path / "project")
    return opened(PROJECT)


def stages(parts: Parts, run: str) -> dict[str, str]:
    return {s.name: s.state for s in run_stages(parts.metadata.runs.events(run))}


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_is_cancelled_while_it_computes_then_gone_on_with_forked_and_repeated(
    lab: Parts, opened: Open, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    thread = threading.Thread(target=lambda: run_model(lab, "weight", causes=WHY))
    thread.start()
    until(lambda: len(list(tmp_path.glob("hold.*"))) == 1)
    [child] = [int(path.suffix[1:]) for path in tmp_path.glob("hold.*")]
    [first] = lab.metadata.runs.list("weight")
    with pytest.raises(Conflict, match="is running"):
        take_up(lab, first.id, by="ada")
    # By another process of the home, as a command is one.
    other = opened(PROJECT)
    begun = time.monotonic()
    cancel_run(other, first.id, by="bob", why="wrong data")
    thread.join(10)
    assert not thread.is_alive()
    until(lambda: not psutil.pid_exists(child), 5)
    assert time.monotonic() - begun < 5
    events = lab.metadata.runs.events(first.id)
    assert run_state(events) == "cancelled"
    assert events[-1].detail == {"reason": "bob cancelled it: wrong data"}
    assert lab.metadata.models.list("weight") == []
    with pytest.raises(Conflict, match="already ended: cancelled"):
        cancel_run(other, first.id, by="bob")

    hold.unlink()
    second = take_up(lab, first.id, by="ada")
    await_run(lab, second)
    assert run_state(lab.metadata.runs.events(second.id)) == "succeeded"
    found = stages(lab, second.id)
    assert [name for name, state in found.items() if state == "skipped"] == ["ingest", "check", "publish"]
    assert found["features"] == found["register"] == "done"
    assert (second.code, second.cutoff, second.seed) == (first.code, first.cutoff, first.seed)
    assert [(c.type, c.id) for c in second.causes] == [("person", "ada"), ("run", first.id)]

    third = take_up(lab, second.id, by="ada", start="evaluate")
    await_run(lab, third)
    found = stages(lab, third.id)
    assert run_state(lab.metadata.runs.events(third.id)) == "succeeded"
    assert found["search"] == "skipped"
    assert found["evaluate"] == "done"
    scores = [[(t.number, t.score) for t in lab.metadata.runs.trials(r)] for r in (second.id, third.id)]
    assert scores[0] == scores[1] != []
    version = lab.metadata.models.of_run(third.id)
    assert version is not None
    assert version.version == 2
    assert version.data == {"cells": 1}

    # What a fork took over itself can be taken over from it.
    fourth = take_up(lab, third.id, by="ada", start="features", changes=read_changes(["trials=5", "seed=7"]))
    await_run(lab, fourth)
    assert run_state(lab.metadata.runs.events(fourth.id)) == "succeeded"
    assert len(lab.metadata.runs.trials(fourth.id)) > len(lab.metadata.runs.trials(second.id)) == 2
    assert fourth.seed == 7
    assert fourth.options["set"] == {"trials": 5, "seed": 7}
    assert stages(lab, fourth.id)["publish"] == "skipped"

    with pytest.raises(Conflict, match="was not interrupted"):
        take_up(lab, fourth.id, by="ada")
    with pytest.raises(UsageError, match="no stage 'sarch'"):
        take_up(lab, fourth.id, by="ada", start="sarch")
    with pytest.raises(UsageError, match="comes before evaluate"):
        take_up(lab, fourth.id, by="ada", start="evaluate", changes={"trials": 9})
    with pytest.raises(UsageError, match="no result of features"):
        take_up(lab, first.id, by="ada", start="evaluate")
    with pytest.raises(NotFound):
        take_up(lab, "nobody", by="ada")


def test_a_run_that_waits_is_cancelled_without_an_engine_and_never_begins(lab: Parts) -> None:
    from mulle.loop.operate import start_run

    waiting = start_run(lab, "weight", causes=WHY)
    cancel_run(lab, waiting.id, by="ada")
    assert lab.metadata.queue.unfinished() == []
    run = run_model(lab, "weight", causes=WHY)
    assert run_state(lab.metadata.runs.events(run.id)) == "succeeded"
    assert stages(lab, waiting.id) == {}
    assert run_state(lab.metadata.runs.events(waiting.id)) == "cancelled"


def test_what_a_run_may_change_is_read_and_checked(lab: Parts) -> None:
    model = lab.project.model("weight")
    made = changed(model, {"set": read_changes(["trials=50", "timeout=5m", "prune=yes"])})
    assert (made.search.trials, made.search.timeout.total_seconds(), made.search.prune) == (50, 300, True)
    assert made.search.candidates == model.search.candidates
    assert model.search.trials == 2
    assert changed(model, {}) is model
    for bad in ("trials=many", "trials", "colour=red"):
        with pytest.raises(UsageError):
            read_changes([bad])
    with pytest.raises(UsageError, match="trials"):
        changed(model, {"set": {"trials": 0}})
