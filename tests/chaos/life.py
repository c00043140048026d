"""Lives of an engine's process: each is forked from this warm one, starts or takes up a run, and dies where it is told to.

Reads one order a line (JSON: the fault to die at, whether to start a run) and answers what became of that life.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import psutil

from mulle.bootstrap.parts import wire
from mulle.core.errors import Conflict
from mulle.core.records.base import Cause
from mulle.core.settings import load_settings
from mulle.kernel.faults import VARIABLE
from mulle.loop.parts import Parts
from mulle.loop.runner import open_engine, run_model


def life(project: Path, fault: str, start: bool, told: int) -> None:
    """Run, or take up what is unfinished, and tell each stage that starts."""

    def say(kind: str, value: object) -> None:
        os.write(told, json.dumps([kind, value]).encode() + b"\n")

    def progress(run: str, stage: str, state: str, seconds: float) -> None:
        if stage == "state":
            say("state", state)
        elif state == "started":
            say("started", stage)

    if fault:
        os.environ[VARIABLE] = fault
    # As `mulle up` does: what is open is closed, and the stage under way may end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parts: Parts = wire(load_settings({"project": project}, {}))
    # Made now, so that every death leaves a child behind that has to notice it.
    say("children", parts.compute().pids())  # type: ignore[attr-defined]
    if start:
        run_model(parts, "duration", causes=[Cause(type="person", id="test", why="a test asked")], progress=progress)
        return
    try:
        with open_engine(parts, progress=progress) as engine:
            for run in engine.unfinished():
                engine.wait(run)
    except Conflict as error:
        say("refused", error.detail)


def lived(project: Path, fault: str, start: bool) -> dict[str, object]:
    """Fork a life and wait for its end and for its children's."""
    heard, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        os.dup2(2, 1)
        code = 1
        try:
            life(project, fault, start, told)
            code = 0
        except SystemExit:
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(told)
    found: dict[str, list[object]] = {"started": [], "state": [], "children": [], "refused": []}
    with os.fdopen(heard) as lines:
        for line in lines:
            kind, value = json.loads(line)
            found[kind].append(value)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    children = [int(c) for told in found["children"] for c in told]  # type: ignore[attr-defined]
    return {**found, "exit": code, "children": children, "survivors": survivors(children)}


def survivors(pids: list[int], seconds: float = 10.0) -> list[int]:
    """Wait until none of the processes lives, and give those that do not end."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.005)
    return left


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Import once what each life needs; nothing that starts a thread, for threads do not survive a fork."""
    import dbos  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking.client  # noqa: F401

    import mulle.adapters.lake.delta
    import mulle.adapters.metadata.connect
    import mulle.adapters.online.lmdb
    import mulle.adapters.sources.frames
    import mulle.adapters.tracking.mlflow  # noqa: F401

    project = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(lived(project, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
