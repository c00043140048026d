"""`mulle up` on a full disk, beside a broken project file, with a child that hangs, torn segments and SIGTERM in mid-run."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from chaos_home import add_trips, make_home
from uphome import Up, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("faults") / "project")
    assert home.live(start=True).state[-1] == "succeeded"
    home.close()
    return home.folder


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[Up]:
    """One home and what it acknowledged, for all tests: what a fault left behind would show in a later one."""
    up = Up(folder)
    yield up
    up.end()


@pytest.fixture
def up(one: Up) -> Iterator[Up]:
    one.start()
    yield one
    one.stop()
    one.holds_all()


def test_a_full_disk_refuses_what_cannot_be_kept_and_all_goes_on_when_there_is_room(up: Up) -> None:
    assert up.ask()
    everyone = [psutil.Process(up.process.pid), *psutil.Process(up.process.pid).children(recursive=True)]  # type: ignore[union-attr]
    before = len(up.acknowledged)
    # Any file that would grow beyond this fails as it does on a full disk.
    for process in everyone:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    assert [up.ask() for _ in range(5)] == [False] * 5
    assert len(up.acknowledged) == before
    until(lambda: "File too large" in up.log or "disk" in up.log, "the loop says what is wrong")
    for process in everyone:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(up.ask, "it answers again")
    assert up.ended(up.run()) == "succeeded"


def test_a_project_file_that_is_broken_while_it_runs_leaves_the_last_good_one_in_force(up: Up, folder: Path) -> None:
    good = (folder / "project.py").read_text()
    with up.traffic():
        before = up.failed
        (folder / "project.py").write_text(good + "\nthis is no Python\n")
        until(lambda: (up.status() or {})["project"]["state"] == "broken", "the status says so")
        told = (up.status() or {})["project"]
        assert "line" in told["detail"]
        assert "SyntaxError" in told["detail"]
        assert told["next"]
        assert "the last good declaration goes on" in up.log
        assert up.failed == before, "requests failed"
        assert (up.status() or {})["models"], "the models are watched all the same"
        (folder / "project.py").write_text(good.replace("trials=2", "trials=3"))
        until(lambda: (up.status() or {})["project"]["state"] == "good", "the mended one is taken up")
    run = up.run()
    assert up.ended(run) == "succeeded"
    parts = up.parts()
    assert len(parts.metadata.runs.trials(run)) == 3, "the new declaration is in force"
    parts.online.close()
    (folder / "project.py").write_text(good)


def test_sigterm_in_the_middle_of_a_run_ends_well_and_the_run_goes_on_at_the_next_start(up: Up, folder: Path) -> None:
    add_trips(folder, 400, 40)
    run = up.run()
    until(lambda: up.state(run) == "running", "it runs")
    with up.traffic():
        up.stop()
    up.start()
    assert up.ended(run) == "succeeded"


def test_a_child_that_hangs_holds_up_neither_answers_nor_the_loop(up: Up) -> None:
    run = up.run()
    until(lambda: bool(up.pids("worker")), "something computes for it")
    for pid in up.pids("worker"):
        os.kill(pid, signal.SIGSTOP)
    windows = len(up.log)
    assert all(up.ask() for _ in range(20))
    parts = up.parts()
    rows = parts.lake.version("predictions")
    until(lambda: parts.lake.version("predictions") != rows, f"the loop looks on {windows}")
    parts.online.close()
    # What hangs is ended by cancelling its run, or by hand: the run then goes on with another child.
    for pid in up.pids("worker"):
        up.kill(pid)
    assert up.ended(run) == "succeeded"


@pytest.mark.parametrize("seed", range(3))
def test_a_torn_or_damaged_end_of_a_segment_costs_nothing_that_was_acknowledged(up: Up, seed: int) -> None:
    chance = random.Random(seed)
    up.kill(up.pids("engine")[0])
    assert all(up.ask() for _ in range(10)), "serving goes on without the loop"
    for pid in up.pids("server"):
        up.kill(pid)
    segments = [p for p in (up.home / "log").glob("*.seg") if p.stat().st_size]
    assert segments
    for path in segments:
        with path.open("ab") as file:
            file.write((chance.randrange(10_000)).to_bytes(4, "little") + chance.randbytes(chance.randrange(200)))
    up.start()
