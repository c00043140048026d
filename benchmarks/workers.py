"""Claim: workers on PostgreSQL share out a thousand queued runs, and do each once. Needs MULLE_TEST_POSTGRES.

``python -m benchmarks.workers HOME DATABASE`` is one of these workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks.claim import Claim, Side
from benchmarks.engine import same, under_seconds
from benchmarks.side import Work
from mulle.core.records.base import Json
from mulle.loop.stages import Told

__all__ = ["CLAIMS", "alone", "make", "shared_out"]

_WORKERS = 3
_STAGES = ("ingest", "check", "publish")


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Note how many runs there are."""
    (folder / "size.json").write_text(json.dumps(size))


def shared_out(folder: Path) -> Work:
    """Queue runs of fifty models on a database of its own, and wait until three workers have done them."""
    return _work(folder, _WORKERS)


def alone(folder: Path) -> Work:
    """Let one worker do them."""
    return _work(folder, 1)


def _work(folder: Path, workers: int) -> Work:
    import psycopg

    from mulle.adapters.metadata.connect import open_metadata

    server = os.environ["MULLE_TEST_POSTGRES"]
    runs = json.loads((folder / "size.json").read_text())["runs"]
    name = f"bench_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    database, home = f"{server.rpartition('/')[0]}/{name}", Path(tempfile.mkdtemp(dir=folder))
    store = open_metadata(database)
    command = [sys.executable, "-m", "benchmarks.workers", str(home), database]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(workers)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    count = [0]

    def run() -> int:
        count[0] += 1
        for number in range(runs):
            store.queue.put(f"{count[0]}-{number}", model=f"m{number % 50}")
        while store.queue.unfinished():
            time.sleep(0.02)
        return runs

    def keep(made: int, path: Path) -> None:
        for process in started:
            process.communicate()
        done = Counter((home / "done.txt").read_text().split())
        wanted = {f"{turn + 1}-{number}": len(_STAGES) for turn in range(count[0]) for number in range(made)}
        assert done == wanted, "a run was done twice, or not at all"
        path.with_suffix(".json").write_text(json.dumps(made))
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    return Work(run=run, keep=keep)


class _Silent:
    def tell(self, run: str, *told: Told) -> None: ...


def main(home: Path, database: str) -> None:
    """Take runs until the input ends."""
    from mulle.adapters.metadata.connect import open_metadata
    from mulle.loop.engine import Engine

    done = os.open(home / "done.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(run: str, results: Json) -> Json:
        os.write(done, f"{run}\n".encode())
        return {"seen": len(results)}

    engine = Engine(home, dict.fromkeys(_STAGES, step), _Silent(), open_metadata(database).queue, database=database)
    engine.start()
    print("ready", flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
    ended.wait()
    engine.close()


CLAIMS = (
    Claim(
        name="Runs on workers",
        says="{runs} queued runs of three toy stages, of 50 models, on three workers with PostgreSQL; none twice.",
        make="benchmarks.workers:make",
        sizes={"small": {"runs": 60}, "full": {"runs": 1_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.workers:shared_out", repeat=1),
            Side(name="One worker", call="benchmarks.workers:alone", repeat=1),
        ),
        same=same,
        targets=(under_seconds(120.0, "all of them"),),
    ),
)

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
