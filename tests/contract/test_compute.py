"""What every compute adapter must do; an adapter is added to `POOLS`, with what it needs to be made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from mulle.adapters.compute.dask import DaskCompute
from mulle.adapters.compute.local import LocalCompute
from mulle.core.errors import ContractError, Deadline, MulleError, Unavailable, UsageError
from mulle.core.ports.compute import Compute

HERE = Path(__file__).parent
POOLS: dict[str, Callable[[pytest.FixtureRequest], Compute]] = {
    "dask": lambda request: DaskCompute(f"dask://{request.getfixturevalue('scheduler')}"),
    "local": lambda _: LocalCompute(),
}


@pytest.fixture(autouse=True)
def _tasks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A scheduler with two workers, each a process; they can import the tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as cluster:
            yield cluster.scheduler_address.removeprefix("tcp://")


@pytest.fixture(params=sorted(POOLS))
def compute(request: pytest.FixtureRequest, _tasks_importable: None) -> Iterator[Compute]:
    pool = POOLS[request.param](request)
    yield pool
    pool.close()


def task(name: str) -> str:
    return f"compute_tasks:{name}"


def test_arguments_and_answers_arrive_whole(compute: Compute) -> None:
    arguments = {"text": "물레\n" * 100_000, "number": 0.1, "nested": [{"a": None}, True], "nothing": float("inf")}
    assert compute.call(task("echo"), arguments) == arguments


def test_prints_of_a_task_do_not_reach_the_caller(compute: Compute, capfd: pytest.CaptureFixture[str]) -> None:
    assert compute.call(task("noise"), {}) == {}
    assert capfd.readouterr().out == ""


def test_an_error_of_ours_comes_back_as_itself(compute: Compute) -> None:
    with pytest.raises(ContractError) as caught:
        compute.call(task("refuse"), {"field": "origin"})
    assert caught.value.detail == "row 3 has no origin"
    assert caught.value.next == "send it"
    assert caught.value.facts == {"model": "air-time", "row": 3, "field": "origin"}


@pytest.mark.parametrize(
    ("name", "cause"),
    [("divide", "ZeroDivisionError"), ("leave", "SystemExit"), ("unspeakable", "TypeError"), ("wordless", "TypeError")],
)
def test_a_foreign_exception_comes_with_its_cause_and_place(compute: Compute, name: str, cause: str) -> None:
    with pytest.raises(MulleError) as caught:
        compute.call(task(name), {})
    assert type(caught.value) is MulleError
    assert caught.value.facts["cause"] == cause
    assert caught.value.detail.startswith(f"compute_tasks:{name} failed: {cause}")
    assert str(caught.value.facts["traceback"][-1]).startswith(cause)
    assert compute.call(task("echo"), {"x": 1}) == {"x": 1}


@pytest.mark.parametrize("name", ["compute_tasks:absent", "compute_tasks", "compute_tasks:HERE"])
def test_a_task_that_is_none_is_wrong_use(compute: Compute, name: str) -> None:
    with pytest.raises(UsageError, match="there is no task"):
        compute.call(name, {})


def test_a_task_that_overruns_is_killed_with_all_it_started(compute: Compute, tmp_path: Path) -> None:
    compute.call(task("echo"), {})
    started = tmp_path / "started"
    with pytest.raises(Deadline, match=r"after 0\.5 s"):
        compute.call(task("compute"), {"started": str(started)}, timeout=0.5)
    assert gone(*pids(started))
    assert compute.call(task("echo"), {"x": 1}, timeout=10) == {"x": 1}


def test_a_process_that_dies_is_told_and_replaced(compute: Compute) -> None:
    with pytest.raises(Unavailable, match="SIGKILL") as caught:
        compute.call(task("die"), {})
    assert caught.value.retryable
    assert compute.call(task("echo"), {"x": 1}) == {"x": 1}


def test_a_process_that_holds_more_than_it_was_given_is_stopped_and_the_pool_lives_on(compute: Compute) -> None:
    with pytest.raises(MulleError) as caught:
        compute.call(task("hold"), {"megabytes": 2000}, memory=400_000_000, timeout=60)
    # Whichever sees it first: the kernel, which refuses the next piece, or the pool, which kills.
    assert "memory" in (caught.value.facts.get("killed"), str(caught.value.facts.get("cause")).removesuffix("Error").lower())
    assert compute.call(task("hold"), {"megabytes": 50}, memory=400_000_000) == {"held": 50}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process may allocate")
def test_one_request_for_far_too_much_fails_and_the_process_lives_on(compute: Compute) -> None:
    with pytest.raises(MulleError) as caught:
        compute.call(task("ask_for"), {"bytes_": 50_000_000_000}, memory=400_000_000)
    assert caught.value.facts["cause"] == "MemoryError"
    assert compute.call(task("hold"), {"megabytes": 900}) == {"held": 900}, "the bound ends with the task"


def test_what_a_child_imports_first_is_no_part_of_its_first_task_s_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(1.0)\n")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{tmp_path}")
    pool = LocalCompute(warm=["slow_to_import"])
    try:
        assert pool.call(task("echo"), {"x": 1}, timeout=0.9) == {"x": 1}
    finally:
        pool.close()


def test_closing_ends_a_call_under_way(compute: Compute, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(compute.call, task("compute"), {"started": str(started)})
        found = pids(started)
        compute.close()
        with pytest.raises(Unavailable, match="closed"):
            call.result(5)
    assert gone(*found)
    with pytest.raises(Unavailable):
        compute.call(task("echo"), {})
    compute.close()


def test_a_run_that_is_stopped_takes_its_process_with_it_and_no_other_run_s(compute: Compute, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(compute.call, task("compute"), {"started": str(started)}, owner="run")
        found = pids(started)
        compute.stop("another")
        assert not call.done()
        compute.stop("run")
        with pytest.raises(Unavailable, match="its run goes on no more"):
            call.result(30)
    assert gone(*found)
    assert compute.call(task("echo"), {"x": 1}, owner="another") == {"x": 1}


def test_local_children_are_warm_modest_and_free_of_engine_and_tracking() -> None:
    pool = LocalCompute(warm=["decimal", "no.such.module"])
    try:
        seen = pool.call(task("whoami"), {})
    finally:
        pool.close()
    assert seen["pid"] != os.getpid()
    assert seen["modules"] == ["decimal"]
    assert seen["threads"] == ["1", "2"]
    assert seen["nice"] == min(19, os.nice(0) + 5)


def test_local_children_work_side_by_side_and_one_is_used_again_and_again() -> None:
    pool = LocalCompute(2)
    try:
        with ThreadPoolExecutor(4) as threads:
            seen = list(threads.map(lambda _: pool.call(task("whoami"), {"wait": 0.1})["pid"], range(6)))
        assert set(seen) == set(pool.pids())
        assert len({pool.call(task("whoami"), {})["pid"] for _ in range(3)}) == 1
    finally:
        pool.close()


def test_a_child_killed_while_idle_is_replaced() -> None:
    pool = LocalCompute()
    try:
        os.kill(pool.pids()[0], signal.SIGKILL)
        gone(*pool.pids())
        assert pool.call(task("echo"), {"x": 1}) == {"x": 1}
    finally:
        pool.close()


def test_what_children_print_goes_to_the_log(tmp_path: Path) -> None:
    pool = LocalCompute(log=tmp_path / "compute.log")
    try:
        pool.call(task("noise"), {})
    finally:
        pool.close()
    assert (tmp_path / "compute.log").read_text().splitlines()[-2:] == ["from C", "to stderr"]


PARENT = """
import sys
from mulle.adapters.compute.dask import DaskCompute
from mulle.adapters.compute.local import LocalCompute
pool = LocalCompute()
pool.call("compute_tasks:compute", {"started": sys.argv[1]})
"""


def test_no_child_outlives_its_killed_parent_even_while_c_holds_the_interpreter(tmp_path: Path) -> None:
    started = tmp_path / "started"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(started)])
    found = pids(started)
    assert not gone(*found, within=0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(*found)


def test_no_descriptor_or_thread_is_left_behind() -> None:
    process = psutil.Process()
    LocalCompute().close()
    before = process.num_fds(), threading.active_count()
    for _ in range(3):
        pool = LocalCompute(2)
        with pytest.raises(Unavailable):
            pool.call(task("die"), {})
        pool.close()
        del pool
    assert (process.num_fds(), threading.active_count()) == before


def pids(started: Path) -> list[int]:
    end = time.monotonic() + 10
    while not started.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return [int(pid) for pid in started.read_text().split()]


def gone(*ids: int, within: float = 2.0) -> bool:
    end = time.monotonic() + within
    while any(map(_alive, ids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(_alive, ids))


def _alive(pid: int) -> bool:
    # A zombie is dead: who adopted it here may be slow to bury it.
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
