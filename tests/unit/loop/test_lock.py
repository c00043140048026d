from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mulle.core.errors import Conflict
from mulle.loop.lock import hold, holder

HOLD = """
import sys, time
from pathlib import Path
from mulle.loop.lock import hold
lock = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_holder_is_told_who_holds_it(tmp_path: Path) -> None:
    lock = hold(tmp_path / "home" / "engine.lock")
    with pytest.raises(Conflict) as caught:
        hold(tmp_path / "home" / "engine.lock")
    assert caught.value.facts["pid"] == os.getpid()
    assert f"pid {os.getpid()}" in caught.value.detail
    assert "--home" in caught.value.next
    lock.release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "engine.lock"
    assert holder(path) is None
    lock = hold(path)
    assert holder(path) == os.getpid()
    lock.release()
    lock.release()
    assert holder(path) is None
    hold(path).release()


def test_the_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "engine.lock"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    assert holder(path) == child.pid
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert holder(path) is None
    hold(path).release()
