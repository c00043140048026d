"""Children that are forked from a nursery: they are as new ones would be, and nothing of them or of it is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mulle.adapters.compute import starting
from mulle.adapters.compute.local import LocalCompute
from mulle.bootstrap.processes import _SCORING, _TRIALS, WARM
from mulle.core.errors import Unavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each child is started by itself")

HERE = Path(__file__).parent
SLOW = "import pathlib, time\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.01)\n"
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
PARENT = """
import sys
from mulle.adapters.compute.local import LocalCompute
pool = LocalCompute(2)
pool.call("nursery_tasks:wait", {"started": sys.argv[1]})
"""


@pytest.fixture(autouse=True)
def _tasks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def opened() -> Iterator[Callable[..., LocalCompute]]:
    made: list[LocalCompute] = []

    def opened(*arguments: object, **options: object) -> LocalCompute:
        made.append(LocalCompute(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield opened
    for pool in made:
        pool.close()


Opened = Callable[..., LocalCompute]


def task(name: str) -> str:
    return f"nursery_tasks:{name}"


def test_children_come_from_one_nursery_each_in_a_group_of_its_own_with_its_own_pipes(opened: Opened) -> None:
    pools = [opened() for _ in range(3)]
    seen = [pool.call(task("whoami"), {}) for pool in pools]
    assert len({told["parent"] for told in seen}) == 1
    assert all("mulle.adapters.compute.nursery" in told["command"] for told in seen)
    assert all(told["group"] == told["pid"] for told in seen)
    ends = [{pipe for pipe in told["pipes"] if pipe.startswith(("pipe:", "socket:"))} for told in seen]
    assert all(len(own) == 2 for own in ends), "its socket and its lifeline"
    assert len(set.union(*ends)) == 6
    assert all(told["nice"] == min(19, os.nice(0) + 5) for told in seen)


def test_the_environment_and_the_folder_of_the_moment_reach_a_child(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened().call(task("whoami"), {})
    monkeypatch.setenv("MULLE_WORD", "물레\udcff")
    monkeypatch.setenv("MULLE_LONG", "x" * 100_000)
    monkeypatch.chdir(tmp_path)
    second = opened().call(task("whoami"), {})
    monkeypatch.delenv("MULLE_WORD")
    monkeypatch.setenv("OTHER_WORD", "read by an import, perhaps")
    monkeypatch.setenv("TZ", "Asia/Seoul")
    third = opened().call(task("whoami"), {})
    assert [told["word"] for told in (first, second, third)] == [None, "물레\udcff", None]
    assert [told["folder"] for told in (first, second, third)] == [str(Path(first["folder"])), str(tmp_path), str(tmp_path)]
    assert (second["other"], third["other"]) == (None, "read by an import, perhaps")
    assert third["zone"] == "KST"
    assert first["parent"] == second["parent"] != third["parent"]


def test_an_environment_that_is_too_long_for_a_nursery_starts_the_child_by_itself(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = opened()
    before = other.call(task("whoami"), {})
    for number in range(10):
        monkeypatch.setenv(f"MULLE_LONG_{number}", "x" * 100_000)
    told = opened().call(task("whoami"), {})
    assert told["parent"] == os.getpid()
    assert "mulle.adapters.compute.child" in told["command"]
    assert other.call(task("whoami"), {})["pid"] == before["pid"], "the nursery and its other children are as they were"


def test_two_children_do_not_draw_the_same(opened: Opened) -> None:
    pools = [opened(warm=("numpy",)) for _ in range(3)]
    drawn = [pool.call(task("draw"), {}) for pool in pools]
    assert len({told["python"] for told in drawn}) == len({told["numpy"] for told in drawn}) == 3


def test_how_a_child_ended_is_told(opened: Opened) -> None:
    pool = opened(2)
    with pytest.raises(Unavailable, match="exit code 3") as caught:
        pool.call(task("end"), {"code": 3})
    assert caught.value.facts["code"] == 3


def test_a_nursery_that_is_killed_takes_its_children_along_and_the_next_call_has_another(opened: Opened, tmp_path: Path) -> None:
    pool, started = opened(2), tmp_path / "started"
    nursery = pool.call(task("whoami"), {})["parent"]
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.call, task("wait"), {"started": str(started)})
        until(started.exists)
        before = pool.pids()
        os.kill(nursery, signal.SIGKILL)
        with pytest.raises(Unavailable, match="SIGKILL"):
            call.result(30)
    assert pool.call(task("whoami"), {})["parent"] != nursery
    until(lambda: not any(map(alive, before)))


def test_a_nursery_that_was_stopped_does_not_keep_a_pool_from_closing(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_PATIENCE_SECONDS", 0.1)
    pool = opened()
    told = pool.call(task("whoami"), {})
    os.kill(told["parent"], signal.SIGSTOP)
    pool.close()
    until(lambda: not alive(told["pid"]) and not alive(told["parent"]))
    assert opened().call(task("whoami"), {})["parent"] != told["parent"]


def test_neither_nursery_nor_child_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(started)])
    until(lambda: started.exists() and bool(started.read_text()))
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 3
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(process.pid) for process in family))


def test_fifty_children_leave_no_zombie_and_no_descriptor(opened: Opened) -> None:
    first = opened()
    nursery = psutil.Process(first.call(task("whoami"), {})["parent"])
    gc.collect()
    before = psutil.Process().num_fds(), nursery.num_fds()
    for number in range(50):
        pool = LocalCompute()
        if number % 2:
            with pytest.raises(Unavailable, match="exit code 3"):
                pool.call(task("end"), {"code": 3})
        elif number % 5:
            pool.call(task("whoami"), {})
        pool.close()
        del pool
    # The last ones that were closed at once may not have been refused yet.
    until(lambda: (len(nursery.children()), nursery.num_fds()) == (1, before[1]))
    gc.collect()
    assert psutil.Process().num_fds() <= before[0], "what other tests left may have been closed meanwhile"


def test_a_pool_is_made_and_closed_while_its_nursery_still_imports(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optuna.py").write_text(SLOW.format(str(tmp_path / "go")))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{tmp_path}")
    pool = opened(2, warm=("optuna",))
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.call, task("whoami"), {})
        time.sleep(0.05)
        pool.close()
        with pytest.raises(Unavailable, match="closed"):
            call.result(30)
    second = opened(warm=("optuna",))
    (tmp_path / "go").touch()
    told = second.call(task("whoami"), {})
    assert [child.pid for child in psutil.Process(told["parent"]).children()] == [told["pid"]], "the closed ones were not born"


def test_nurseries_that_are_not_used_any_more_are_ended(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened()
    first = kept.call(task("whoami"), {})["parent"]
    second = opened()
    for number in range(starting._KEPT + 2):
        monkeypatch.setenv("OTHER_WORD", str(number))
        second.close()
        second = opened()
        second.call(task("whoami"), {})
    mine = [p for p in psutil.Process().children() if "mulle.adapters.compute.nursery" in p.cmdline()]
    assert first in [p.pid for p in mine], "it has a child"
    assert len(mine) <= starting._KEPT + 1


@pytest.mark.parametrize("warm", [_SCORING, _TRIALS, WARM], ids=["scoring", "trials", "run"])
def test_a_nursery_has_a_single_thread_whatever_it_imports(opened: Opened, warm: tuple[str, ...]) -> None:
    told = opened(warm=warm).call(task("whoami"), {})
    assert "mulle.adapters.compute.nursery" in told["command"]
    assert set(warm) <= set(told["modules"])
    assert psutil.Process(told["parent"]).num_threads() == 1


def test_libraries_that_start_threads_work_in_forked_children(opened: Opened, tmp_path: Path) -> None:
    pool = opened(2, warm=WARM)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(pool.call, task("work"), {"folder": str(tmp_path)}, timeout=300) for _ in range(2)]
    first, second = (call.result() for call in calls)
    assert first == second
    assert (first["delta"], first["onnx"]) == (7, 6.0)


def test_where_an_import_starts_a_thread_children_are_started_one_by_one(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optuna.py").write_text(THREADED)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{tmp_path}")
    pool = opened(warm=("optuna",), log=tmp_path / "compute.log")
    told = pool.call(task("whoami"), {})
    assert "mulle.adapters.compute.nursery" not in told["command"]
    assert "optuna" in told["modules"]
    assert told["nice"] == min(19, os.nice(0) + 5)
    with pytest.raises(Unavailable, match="exit code 3"):
        pool.call(task("end"), {"code": 3})
    assert "start threads" in (tmp_path / "compute.log").read_text()


def test_children_started_by_themselves_are_told_of_and_ended_alike(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "another")
    pool = opened()
    told = pool.call(task("whoami"), {})
    assert (told["parent"], pool.pids()) == (os.getpid(), (told["pid"],))
    with pytest.raises(Unavailable, match="exit code 3"):
        pool.call(task("end"), {"code": 3})
    assert pool.call(task("whoami"), {})["pid"] != told["pid"]
    last = pool.pids()
    pool.close()
    assert not any(map(alive, last))


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(pid: int) -> bool:
    # A zombie is dead: who adopted it here may be slow to bury it.
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
