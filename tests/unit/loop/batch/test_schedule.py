"""Declared batches run when their time comes, once, and what a killed loop left is taken up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from batch_parts import MODEL, opened, rows

from mulle.bootstrap.processes import batch_compute
from mulle.core.clock import ReplayClock, instant
from mulle.core.declare.batch import Batch
from mulle.core.errors import DeclarationError
from mulle.kernel.faults import VARIABLE
from mulle.loop.batch.job import jobs
from mulle.loop.batch.schedule import Schedule, due_batches, schedule_view
from mulle.loop.parts import Parts

NIGHTLY = MODEL + 'nightly = ml.Batch(model, "rows.parquet", "scores/%Y-%m-%d/", "0 5 * * *")\n'


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    made = opened(tmp_path / "project", NIGHTLY)
    rows(300).write_parquet(made.settings.project / "rows.parquet")
    compute = batch_compute(made.settings, 1)
    return replace(made, compute=lambda: compute)


def at(parts: Parts, moment: str) -> Parts:
    return replace(parts, clock=ReplayClock(instant(moment)))


def looked(parts: Parts, moment: str) -> list[tuple[str, int]]:
    schedule = Schedule()
    schedule.look(at(parts, moment))
    schedule.wait(60)
    return [(j["state"], j["rows_out"]) for j in jobs(parts.settings.home)]


def test_a_batch_runs_once_when_its_time_came_and_not_because_it_is_new(parts: Parts) -> None:
    assert looked(parts, "2024-05-06T12:00:00Z") == []
    assert looked(parts, "2024-05-07T04:59:59Z") == []
    assert looked(parts, "2024-05-07T05:00:00Z") == [("done", 300)]
    assert looked(parts, "2024-05-07T05:00:10Z") == [("done", 300)]
    assert due_batches(at(parts, "2024-05-07T12:00:00Z"), instant("2024-05-07T12:00:00Z")) == []
    # Three nights missed count once.
    assert looked(parts, "2024-05-10T12:00:00Z") == [("done", 300)] * 2
    (told, _) = jobs(parts.settings.home)
    assert told["output"]["folder"].endswith("scores/2024-05-10")
    assert told["causes"] == [{"type": "schedule", "id": "0 5 * * *", "why": "schedule 0 5 * * *"}]
    (item,) = schedule_view(at(parts, "2024-05-10T12:00:00Z"))
    assert (item["next"], item["last"]["rows"]) == ("2024-05-11T05:00:00Z", 300)


LOOP = """
import sys
from dataclasses import replace
from pathlib import Path
from mulle.bootstrap.parts import wire
from mulle.bootstrap.processes import batch_compute
from mulle.core.clock import ReplayClock, instant
from mulle.core.settings import load_settings
from mulle.loop.batch.schedule import Schedule
from mulle.adapters.sources.rowfiles import SpanFiles
folder = Path(sys.argv[1])
parts = wire(load_settings({"project": folder}, {}))
compute = batch_compute(parts.settings, 1)
clock = ReplayClock(instant(sys.argv[2]))
parts = replace(parts, clock=clock, files=SpanFiles(folder, rows=100), compute=lambda: compute)
schedule = Schedule()
schedule.look(parts)
schedule.wait(60)
"""


def test_what_a_killed_loop_left_unfinished_is_taken_up_by_the_next(parts: Parts) -> None:
    looked(parts, "2024-05-06T12:00:00Z")
    command = [sys.executable, "-c", LOOP, str(parts.settings.project), "2024-05-07T05:00:00Z"]
    died = subprocess.run(command, env={**os.environ, VARIABLE: "during:batch"}, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert [(j["state"], j["chunks"]["done"]) for j in jobs(parts.settings.home)] == [("running", 1)]
    assert looked(parts, "2024-05-07T05:01:00Z") == [("done", 300)]


def test_a_batch_that_fails_is_tried_again_at_its_next_time_and_keeps_no_other_waiting(parts: Parts) -> None:
    looked(parts, "2024-05-06T12:00:00Z")
    path = parts.settings.project / "rows.parquet"
    path.rename(path.with_name("away"))
    assert looked(parts, "2024-05-07T05:00:00Z") == []
    path.with_name("away").rename(path)
    assert looked(parts, "2024-05-07T06:00:00Z") == []
    assert looked(parts, "2024-05-08T06:00:00Z") == [("done", 300)]


def test_what_cannot_be_is_refused_in_the_project() -> None:
    with pytest.raises(DeclarationError, match="five fields"):
        Batch("m", "d", "out/", "daily")
    with pytest.raises(DeclarationError, match="max_rejected"):
        Batch("m", "d", "out/", "0 5 * * *", max_rejected=5)


def test_a_clock_that_was_ahead_keeps_no_batch_waiting(parts: Parts) -> None:
    for moment, due in (("2024-05-06T12:00:00Z", 0), ("2024-08-06T12:00:00Z", 1)):
        assert len(due_batches(at(parts, moment), instant(moment))) == due, moment
    assert looked(parts, "2024-08-06T12:00:00Z") == [("done", 300)]
    for moment, due in (("2024-05-06T12:00:00Z", 0), ("2024-05-07T05:00:00Z", 1)):
        assert len(due_batches(at(parts, moment), instant(moment))) == due, moment
