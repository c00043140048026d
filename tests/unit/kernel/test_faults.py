from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from mulle.kernel.faults import point

CODE = "from mulle.kernel.faults import point; point('before:search'); print('alive')"


@pytest.mark.parametrize("fault", [None, "", "after:search", "before:searc"])
def test_nothing_happens_at_another_point(fault: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MULLE_FAULT"} | ({} if fault is None else {"MULLE_FAULT": fault})
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_the_process_is_killed_at_the_named_point() -> None:
    environment = {**os.environ, "MULLE_FAULT": "before:search"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_a_point_lets_its_caller_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULLE_FAULT", raising=False)
    passed = [point("before:search"), point("after:search")]
    assert passed == [None, None]
