"""What compute on Dask does beyond the port: who may work, who ends with whom, and what is said when nobody answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from mulle.adapters.compute import dask as module
from mulle.adapters.compute.dask import LOCAL, DaskCompute
from mulle.core.errors import Unavailable, UsageError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as made:
            yield made


@pytest.fixture
def url(cluster: LocalCluster) -> str:
    return "dask://" + cluster.scheduler_address.removeprefix("tcp://")


def test_a_worker_that_does_not_see_the_home_is_refused_and_told_what_to_do(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DaskCompute(url, shared=[tmp_path]).close()
    # As on another machine, which has a folder of that name with something else in it.
    monkeypatch.setattr(module, "_marked", lambda folder: (str(folder / ".shared-id"), "what only this machine reads"))
    with pytest.raises(UsageError, match="does not see") as caught:
        DaskCompute(url, shared=[tmp_path])
    assert str(tmp_path) in caught.value.detail
    assert "MULLE_HOME" in str(caught.value.next)


def test_a_worker_that_loses_sight_of_the_home_refuses_its_tasks(url: str, tmp_path: Path) -> None:
    pool = DaskCompute(url, shared=[tmp_path])
    try:
        assert pool.call("compute_tasks:echo", {"x": 1}) == {"x": 1}
        (tmp_path / ".shared-id").unlink()
        with pytest.raises(UsageError, match="does not see"):
            pool.call("compute_tasks:echo", {"x": 1})
    finally:
        pool.close()


@pytest.mark.parametrize("url", ["dask://", "spark://x:1"])
def test_what_is_no_url_of_a_cluster_is_wrong_use(url: str) -> None:
    with pytest.raises(UsageError, match="no URL of a Dask cluster"):
        DaskCompute(url)


def test_when_nobody_answers_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(Unavailable, match="no Dask scheduler answers at dask://127"):
        DaskCompute("dask://127.0.0.1:9")


def test_a_cluster_without_workers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECT_SECONDS", 0.5)
    empty = LocalCluster(n_workers=0, processes=True, dashboard_address="127.0.0.1:0")
    with empty, pytest.raises(Unavailable, match="has no worker"):
        DaskCompute("dask://" + empty.scheduler_address.removeprefix("tcp://"))


def test_tasks_that_wait_for_others_leave_them_their_place(url: str, tmp_path: Path) -> None:
    outer, inner = DaskCompute(url, 2, waits=True), DaskCompute(url, 2)
    try:
        with ThreadPoolExecutor(2) as threads:
            # Both workers have but one place; with these two in them nothing else could run.
            started = [tmp_path / "1", tmp_path / "2"]
            waiting = [threads.submit(outer.call, "compute_tasks:compute", {"started": str(path)}) for path in started]
            for path in started:
                pids(path)
            assert inner.call("compute_tasks:echo", {"x": 1}, timeout=30) == {"x": 1}
            outer.close()
            assert all(w.exception(30) for w in waiting)
    finally:
        outer.close()
        inner.close()


CALLER = """
import sys
from mulle.adapters.compute.dask import DaskCompute
DaskCompute(sys.argv[1]).call("compute_tasks:compute", {"started": sys.argv[2]})
"""


def test_a_task_whose_caller_was_killed_is_killed_and_the_place_is_free(url: str, tmp_path: Path) -> None:
    started = tmp_path / "started"
    caller = subprocess.Popen([sys.executable, "-c", CALLER, url, str(started)])
    found = pids(started)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert gone(found)


def test_a_worker_s_death_takes_its_children_along_and_the_task_runs_elsewhere(
    cluster: LocalCluster, url: str, tmp_path: Path
) -> None:
    started, pool = tmp_path / "started", DaskCompute(url)
    try:
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(pool.call, "compute_tasks:compute", {"started": str(started)})
            found = pids(started)
            # Between them is the nursery, where children are forked.
            worker = psutil.Process(found[0]).parents()[1 if sys.platform == "linux" else 0]
            started.unlink()
            os.kill(worker.pid, signal.SIGKILL)
            assert gone(found)
            assert pids(started) != found, "Dask gave it to the worker that is left"
            pool.close()
            assert isinstance(call.exception(30), Unavailable)
    finally:
        pool.close()


def test_a_cluster_of_our_own_ends_with_its_user() -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    pool = DaskCompute(LOCAL)
    made = [p.pid for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert made
    pool.close()
    assert gone([p for p in made if "resource_tracker" not in _command(p)], within=20)


def pids(started: Path, within: float = 60.0) -> list[int]:
    end = time.monotonic() + within
    while not started.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return [int(pid) for pid in started.read_text().split()]


def gone(ids: list[int], within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while any(map(_alive, ids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(_alive, ids))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""
