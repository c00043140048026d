"""A toy run of three stages for the engine's tests: each call and each word to the observer is a line in a file."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from mulle.adapters.metadata.connect import open_metadata
from mulle.loop.engine import Engine
from mulle.loop.stages import Told

STAGES = ("ingest", "check", "publish")


class Lines:
    def __init__(self, home: Path) -> None:
        self.path = home / "lines.txt"

    def write(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(line + "\n")

    def read(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def tell(self, run: str, *told: Told) -> None:
        for one in told:
            self.write(" ".join(filter(None, (one.kind, one.name, one.state, one.reason))))


def engine(home: Path) -> Engine:
    lines = Lines(home)

    def step(name: str):
        def run(run: str, results: dict) -> dict:
            lines.write(f"call {name} after {','.join(results)}")
            return {"name": name, "of": run}

        return run

    return Engine(home, {name: step(name) for name in STAGES}, lines, open_metadata(f"sqlite:///{home}/mulle.db").queue)


def life(home: Path, fault: str) -> int:
    """Live once: start, take up or submit the run, wait for its end; return the exit status of that process."""
    pid = os.fork()
    if pid == 0:
        os.environ["MULLE_FAULT"] = fault
        toy = engine(home)
        toy.start()
        toy.submit("run-1")
        state = toy.wait("run-1", 20)
        unfinished = toy.unfinished()
        toy.close()
        os._exit(0 if state == "succeeded" and not unfinished else 1)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Die once at every point, then finish; print what each life called."""
    import dbos  # noqa: F401  (once, before the lives are forked: it takes a second)

    home, seen = Path(sys.argv[1]), 0
    for fault in [f"{when}:{name}" for name in STAGES for when in ("before", "after", "committed")] + ["none"]:
        code = life(home, fault)
        lines = Lines(home).read()
        calls = [line.split()[1] for line in lines[seen:] if line.startswith("call")]
        print(fault, -code if code == -signal.SIGKILL else code, ",".join(calls) or "-", flush=True)
        seen = len(lines)


if __name__ == "__main__":
    main()
