"""A small project with its data, the process that its engines are forked from, and counts of what its home holds."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mulle.core.clock import instant, rfc3339
from mulle.core.settings import Settings, load_settings

HERE = Path(__file__).parent
START = instant("2024-03-01T00:00:00Z")
THREADS = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
AREAS, KINDS = ("north", "south"), ("bike", "car", "van")


@dataclass(frozen=True)
class Life:
    """What became of one life: its exit status (negative: the signal), the stages it began, the children it left."""

    exit: int
    started: list[str]
    state: list[str]
    refused: list[str]
    children: list[int]
    survivors: list[int]


@dataclass
class Home:
    """A project's folder, its home and the warm process that lives are forked from."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return load_settings({"project": self.folder}, {})

    def live(self, fault: str = "", *, start: bool = False) -> Life:
        """Live once: start a run or take up the unfinished one, until its end or the fault."""
        self.begin(fault, start=start)
        return self.end()

    def begin(self, fault: str = "", *, start: bool = False) -> None:
        """Let a life begin; `end` waits for it."""
        if self.process is None:
            command = [sys.executable, str(HERE / "life.py"), str(self.folder)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder,
                env={**os.environ, **THREADS, "CHAOS_HOLD": str(self.folder / "hold"), **self.environment},
            )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"fault": fault, "start": start}) + "\n")
        self.process.stdin.flush()

    def end(self) -> Life:
        """Wait for the life that was begun."""
        assert self.process is not None
        assert self.process.stdout is not None
        return Life(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the warm process."""
        if self.process is not None:
            self.process.communicate()


def make_home(folder: Path) -> Home:
    """Write the project and its first 400 trips."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.py").write_text((HERE / "project.py.txt").read_text())
    (folder / "data").mkdir()
    pl.DataFrame({"kind": KINDS, "wheels": [2, 4, 4]}).write_csv(folder / "data" / "kinds.csv")
    add_trips(folder, 0, 400)
    return Home(folder)


def add_trips(folder: Path, first: int, count: int, *, kind: str | None = None) -> None:
    """Add trips, half an hour apart, and the weather of their hours; a `kind` of its own makes them fail their check."""
    chance = random.Random(first)
    trips = []
    for number in range(first, first + count):
        at, chosen, distance = START + timedelta(minutes=30 * number), chance.choice(KINDS), chance.uniform(1, 20)
        minutes = distance * (1 + KINDS.index(chosen)) + chance.gauss(0, 1)
        trips.append(
            {
                "id": number,
                "at": rfc3339(at),
                "ended_at": rfc3339(at + timedelta(minutes=max(1.0, minutes))),
                "area": AREAS[number % 2],
                "kind": kind or chosen,
                "distance": distance,
                "minutes": minutes,
            }
        )
    weather = [
        {"area": area, "seen_at": rfc3339(START + timedelta(minutes=60 * hour)), "wind": chance.uniform(0, 9)}
        for hour in range(first // 2, (first + count) // 2)
        for area in AREAS
    ]
    for name, rows in (("trips", trips), ("weather", weather)):
        path = folder / "data" / name / f"{first:05d}.csv"
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame(rows).write_csv(path)


def counts(settings: Settings) -> dict[str, int]:
    """Count the records by table."""
    tables = (
        "runs", "run_events", "trials", "gate_results", "model_versions", "deployments", "dataset_versions", "quarantines",
    )  # fmt: skip
    return {t: ask(settings.home / "mulle.db", f"select count(*) from {t}")[0][0] for t in tables}


def journal(settings: Settings, run: str) -> list[str]:
    """List the steps that the engine's journal committed for a run, in order."""
    query = "select function_name from operation_outputs where workflow_uuid = ? order by function_id"
    return [name for (name,) in ask(settings.home / "engine.db", query, run)]


def answer(settings: Settings, run: str, step: str) -> dict[str, Any]:
    """Return what the engine's journal committed as a step's result."""
    query = "select output from operation_outputs where workflow_uuid = ? and function_name = ?"
    return dict(json.loads(ask(settings.home / "engine.db", query, run, step)[0][0])["result"])


def tracked(settings: Settings) -> dict[str, Any]:
    """Count MLflow's parent and child runs and those not ended; list the model's versions and aliases.

    Read from its database: the client takes seconds to import, and would be the code under test.
    """
    path = settings.home / "mlflow.db"
    runs, children, unfinished = (
        ask(path, f"select count(*) from {table}")[0][0]
        for table in (
            "runs",
            "tags where key = 'mlflow.parentRunId'",
            "runs where status not in ('FINISHED', 'FAILED', 'KILLED')",
        )
    )
    return {
        "parents": runs - children,
        "children": children,
        "unfinished": unfinished,
        "versions": [v for (v,) in ask(path, "select version from model_versions order by version")],
        "aliases": dict(ask(path, "select alias, version from registered_model_aliases order by alias")),
    }


def ask(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask a SQLite database."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()
