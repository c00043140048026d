"""Claims: a durable step costs at most 4 ms, with its records written; a page of 100,000 runs is listed in under 100 ms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.claim import OURS, Claim, Outcome, Side, Target
from benchmarks.side import Work
from mulle.core.records.base import Cause, Json
from mulle.core.records.run import STAGES, Run, RunEvent

__all__ = ["CLAIMS", "bare", "durable", "listed", "looked_up", "make", "make_runs", "same", "under_seconds"]

_RUNS = 4
"""Runs in one measurement of steps; each has all stages but the one that fleets add."""

_STAGES = STAGES[:-1]
_FAR = "run-00001000"
_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_WHY = (Cause(type="person", id="bench", why="measured"),)

_PROJECT = """
import mulle as ml

rows = ml.Dataset("rows", ml.Files("rows.csv"), key="id")

@ml.features(rows)
def shape(rows):
    return rows.select("a")

model = ml.Model("m0", features=shape, target="y", task="regression")
"""


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Note the size: steps need no data."""
    (folder / "size.json").write_text(json.dumps(size))


def durable(folder: Path) -> Work:
    """Run toy stages on the engine, with what a run's recorder writes of each, under its fence."""
    from mulle.adapters.metadata.connect import open_metadata
    from mulle.core.clock import WallClock
    from mulle.core.hashing import derived_id
    from mulle.loop.engine import Engine
    from mulle.loop.stages import Told

    home = folder / "durable"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    metadata, clock, count = open_metadata(f"sqlite:///{home}/mulle.db"), WallClock(), [0]

    class Recorder:
        def tell(self, run: str, *told: Told) -> None:
            metadata.runs.add_events(*(self._event(run, one) for one in told))

        def _event(self, run: str, told: Told) -> RunEvent:
            id, at = derived_id(_T0, run, told.kind, told.name, told.state), clock.now()
            return RunEvent(id=id, run=run, at=at, kind=told.kind, name=told.name, state=told.state, seconds=told.seconds)

    engine = Engine(home, dict.fromkeys(_STAGES, _toy), Recorder(), metadata.queue)
    engine.start()

    def run() -> int:
        for _ in range(_RUNS):
            count[0] += 1
            name = f"run-{count[0]}"
            metadata.runs.add(Run(id=name, created_at=_T0, causes=_WHY, model="m", cutoff=_T0, code="c"))
            engine.submit(name)
            assert engine.wait(name, 60) == "succeeded"
        return _RUNS * len(_STAGES)

    run()
    return Work(run=run, keep=_keep, calls=_RUNS * len(_STAGES))


def bare(folder: Path) -> Work:
    """Run as many steps on DBOS alone, which journals them and tells nobody."""
    import logging

    import dbos

    path = folder / "bare.db"
    path.unlink(missing_ok=True)
    logging.getLogger("dbos").setLevel(logging.ERROR)
    url, serializer = f"sqlite:///{path}", dbos.DBOSPortableJSONSerializer()
    config = {"name": "bare", "system_database_url": url, "log_level": "ERROR", "serializer": serializer}
    dbos.DBOS(config=config)  # type: ignore[arg-type]

    @dbos.DBOS.workflow()
    def workflow() -> int:
        for name in _STAGES:
            dbos.DBOS.run_step({"name": name}, _toy, "run", {})
        return len(_STAGES)

    dbos.DBOS.launch()

    def run() -> int:
        return sum(dbos.DBOS.start_workflow(workflow).get_result() for _ in range(_RUNS))

    run()
    return Work(run=run, keep=_keep, calls=_RUNS * len(_STAGES))


def _toy(run: str, results: Json) -> Json:
    return {"of": run, "seen": len(results)}


def make_runs(folder: Path, size: Mapping[str, int]) -> None:
    """Record runs of a hundred models, each with its stages' events and its end."""
    from sqlalchemy import insert

    from mulle.adapters.metadata import tables
    from mulle.adapters.metadata.connect import open_database
    from mulle.adapters.metadata.database import dump, microseconds

    (folder / "project.py").write_text(_PROJECT)
    (folder / ".mulle").mkdir()
    database = open_database(f"sqlite:///{folder}/.mulle/mulle.db")
    for start in range(0, size["runs"], 5_000):
        runs, events, states = [], [], []
        for n in range(start, min(size["runs"], start + 5_000)):
            id, at, model = f"run-{n:08}", _T0 + timedelta(minutes=n), f"m{n % 100}"
            run = Run(id=id, created_at=at, causes=_WHY, model=model, cutoff=at, code="c")
            runs.append({"seq": n + 1, "id": id, "model": model, "created_at": microseconds(at), "record": dump(run)})
            end = "failed" if n % 10 == 0 else "succeeded"
            for name, kind, state in (*((s, "stage", "done") for s in _STAGES), (end, "state", "")):
                event = RunEvent(id=f"{id}-{name}", run=id, at=at, kind=kind, name=name, state=state, seconds=1.0)
                events.append({"id": event.id, "run": id, "at": microseconds(at), "record": dump(event)})
            told = {"run": id, "run_seq": n + 1, "model": model, "created_at": microseconds(at), "state": end}
            states.append({**told, "at": microseconds(at)})
        with database.write() as connection:
            connection.execute(insert(tables.runs), runs)
            connection.execute(insert(tables.run_events), events)
            connection.execute(insert(tables.run_states), states)


def listed(folder: Path) -> Work:
    """Give the pages that a person asks for: all runs, those of a model, those that failed, and a page far below."""
    from mulle.bootstrap.parts import wire
    from mulle.core.settings import load_settings
    from mulle.loop.views.chain import runs_view

    parts = wire(load_settings({"project": folder}, {}))

    def run() -> list[list[str]]:
        asked = ({}, {"model": "m7"}, {"state": "failed"}, {"after": _FAR})
        return [[item["id"] for item in runs_view(parts, **one)["items"]] for one in asked]  # type: ignore[arg-type]

    run()
    return Work(run=run, keep=_keep, calls=4)


def looked_up(folder: Path) -> Work:
    """Give the ids of the same pages from the tables' own indexes."""
    import sqlite3

    connection = sqlite3.connect(folder / ".mulle" / "mulle.db")
    pages = (
        "SELECT id FROM runs ORDER BY created_at DESC, seq DESC LIMIT 20",
        "SELECT id FROM runs WHERE model = 'm7' ORDER BY created_at DESC, seq DESC LIMIT 20",
        "SELECT run FROM run_states WHERE state = 'failed' ORDER BY created_at DESC, run_seq DESC LIMIT 20",
        f"SELECT id FROM runs WHERE id < '{_FAR}' ORDER BY created_at DESC, seq DESC LIMIT 20",
    )

    def run() -> list[list[str]]:
        return [[id for (id,) in connection.execute(page)] for page in pages]

    return Work(run=run, keep=_keep, calls=4)


def _keep(made: object, path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(made))


def same(folder: Path, ours: str, theirs: str) -> str:
    """Say where two sides did another number of steps."""
    said = [json.loads((folder / f"{name}.json").read_text()) for name in (ours, theirs)]
    return "" if said[0] == said[1] else f"{said[0]} and {said[1]}"[:200]


def under_seconds(seconds: float, what: str) -> Target:
    """Promise to take at most so long."""

    def figure(outcomes: Mapping[str, Outcome]) -> float | None:
        return outcomes[OURS].best if OURS in outcomes else None

    return Target(says=f"{what} in at most {seconds * 1000:g} ms", bound=seconds, at_least=False, figure=figure)


CLAIMS = (
    Claim(
        name="Durable step",
        says="A stage of a run that does nothing: journaled, its start and end recorded, on SQLite.",
        make="benchmarks.engine:make",
        sizes={"small": {}, "full": {}},
        sides=(
            Side(name="Mulle", call="benchmarks.engine:durable", repeat=10),
            Side(name="DBOS alone", call="benchmarks.engine:bare", repeat=10, note="journals, and records nothing"),
        ),
        same=same,
        targets=(under_seconds(0.004, "a step"),),
    ),
    Claim(
        name="Runs listed",
        says="A page of 20 among {runs} runs, with stages, gates and trials: all, of a model, in a state, far below.",
        make="benchmarks.engine:make_runs",
        sizes={"small": {"runs": 2_000}, "full": {"runs": 100_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.engine:listed", repeat=10),
            Side(name="SQL alone", call="benchmarks.engine:looked_up", repeat=10, note="the ids, and nothing of the runs"),
        ),
        same=same,
        targets=(under_seconds(0.1, "a page"),),
    ),
)
