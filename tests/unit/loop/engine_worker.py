"""A worker of toy runs: each step's effect is a line that is published under the run's fence.

Usage: engine_worker.py HOME DATABASE [SECONDS [go]]; prints ``ready`` and works until it is killed or its input ends. With
``go`` it says ``warm`` first, and waits for a line, so that several begin at one moment; one that is refused prints why.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.errors import Conflict, LostFence
from mulle.core.ports.metadata import Metadata
from mulle.core.records.base import Cause, Json
from mulle.core.records.model import ModelVersion
from mulle.loop.engine import Engine, Turns, prepare
from mulle.loop.place import shared_journal
from mulle.loop.stages import Told

NOW = datetime(2024, 1, 1, tzinfo=UTC)
STAGES = ("ingest", "features", "register", "roll_out")


class Quiet:
    def tell(self, run: str, *told: Told) -> None: ...


def steps(home: Path, metadata: Metadata, seconds: float):
    """Each stage says that it works, takes its time, then registers a version of a model of its own name."""

    def step(name: str):
        def work(run: str, results: Json) -> Json:
            write(home, run, name)
            time.sleep(seconds)
            try:
                metadata.models.add(version(f"{run}-{name}-{os.getpid()}-{time.time_ns()}", f"{run}.{name}"))
            except LostFence:
                write(home, run, f"refused:{name}")
                raise
            return {"by": os.getpid()}

        return work

    return {name: step(name) for name in STAGES}


def write(home: Path, run: str, what: str) -> None:
    with (home / "lines.txt").open("a") as file:
        file.write(f"{os.getpid()} {run} {what}\n")


def version(id: str, model: str) -> ModelVersion:
    return ModelVersion(
        id=id, created_at=NOW, causes=(Cause(type="run", id=id, why="test"),), model=model, version=0, run=id, bundle="b",
        address="/b", compiled="onnx", parity=None, metrics={}, size_bytes=1, features=(), data={}, data_cutoff=NOW,
        refit_cutoff=NOW,
    )  # fmt: skip


def main() -> None:
    """Work until the input ends."""
    home, database = Path(sys.argv[1]), sys.argv[2]
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    if len(sys.argv) > 4:
        prepare()
        print("warm", flush=True)
        sys.stdin.readline()
    metadata = open_metadata(database)
    journal = shared_journal("", database)
    engine = Engine(
        home, steps(home, metadata, seconds), Quiet(), metadata.queue, database=journal, turns=Turns(here=1), dead=3.0
    )
    try:
        engine.start()
    except Conflict as error:
        print("refused", error.detail, flush=True)
        return
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), engine.close(), os._exit(0)), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
