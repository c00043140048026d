"""A claim about quality: tables, rounds and sides; each cell runs in a process of its own and is kept when it is done."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from benchmarks.cell import Task, hash_of
from benchmarks.claim import Outcome, Side, Size
from benchmarks.measure import outcome_of
from benchmarks.scoring import score
from benchmarks.tables import TARGET, Parted, Table, bundled, classic, made, part

__all__ = ["Cell", "Goal", "Round", "Study", "cells"]

_HERE = Path(__file__).parent
_SOURCE = _HERE.parent / "src" / "mulle"
_PASSED = ("core", "kernel", "adapters/compute", "lifecycle/training", "lifecycle/registry", "loop/compute")
"""What our side's answers depend on; a change elsewhere leaves its finished cells as they are."""

_OVERSTAY = 5
"""A side is stopped after so many times its time, and two minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Tables that are searched with so much time.

    Attributes
    ----------
    seconds : float
    seeds : tuple of int
    tables : tuple of str
        All by default.
    most : int or None
        Of those named, the first so many that are there.
    rows : int or None
        At most so many of each.
    """

    seconds: float
    seeds: tuple[int, ...]
    tables: tuple[str, ...] = ()
    most: int | None = None
    rows: int | None = None

    def of(self, there: Sequence[Table]) -> tuple[Table, ...]:
        """Choose its tables."""
        by_name = {t.name: t for t in there}
        named = tuple(by_name[n] for n in self.tables or by_name if n in by_name)
        return named[: self.most]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a side reached on a table, with some seconds and a seed.

    Attributes
    ----------
    score : float or None
        Mean absolute error, or log loss, on the test rows; None when it failed.
    wall : float
        Seconds from the rows to a model that answers.
    busy : float
        Share of the machine that others took meanwhile.
    hash : str
        Of the table's rows and their parting.
    """

    table: str
    origin: str
    task: str
    rows: int
    seconds: float
    seed: int
    side: str
    score: float | None
    wall: float
    busy: float
    hash: str
    settings: Mapping[str, object]
    found: str
    versions: Mapping[str, str]
    failed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a study promises of the cells of one round; see `benchmarks.claim.Target`."""

    says: str
    bound: float
    figure: Callable[[Sequence[Cell]], float | None]

    def met(self, found: Sequence[Cell]) -> bool | None:
        """Tell whether the figure stays at or under the bound; None when it cannot be told."""
        value = self.figure(found)
        return None if value is None else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Work whose result is compared instead of its time; the first side is ours."""

    name: str
    says: str
    cores: int
    rounds: Mapping[Size, tuple[Round, ...]]
    sides: tuple[Side, ...]
    targets: tuple[Goal, ...]


def cells(
    study: Study, size: Size, *, peers: bool, data: Path | None, kept: Path | None, say: Callable[[str], None]
) -> Iterator[Cell]:
    """Measure every cell that is not kept yet, and give all of them.

    Parameters
    ----------
    study : Study
    size : {"small", "full"}
    peers : bool
        Whether sides of other environments take part.
    data : Path, optional
        A folder with the classic tables.
    kept : Path, optional
        Where finished cells are kept; one whose rows, task, code or pins differ is another cell.
    say : callable
        Told what is being done.
    """
    there = [*bundled(), *made(), *(classic(data) if data else ())]
    for turn in study.rounds[size]:
        for table in turn.of(there):
            parted = part(table, turn.rows)
            for seed in turn.seeds:
                task = _task(study, turn, parted, seed)
                for side in study.sides:
                    if (peers or side.peer is None) and (side.seeded or seed == turn.seeds[0]):
                        yield _kept(side, parted, task, kept, say)


def _task(study: Study, turn: Round, parted: Parted, seed: int) -> Task:
    kind, classes = parted.table.task, parted.classes
    return Task(kind=kind, target=TARGET, classes=classes, seconds=turn.seconds, cores=study.cores, seed=seed)


def _kept(side: Side, parted: Parted, task: Task, kept: Path | None, say: Callable[[str], None]) -> Cell:
    name = f"{parted.table.name}, {task.seconds:g} s, seed {task.seed}: {side.name}"
    file = f"{parted.table.name}-{task.seconds:g}s-{task.seed}-{side.slug}-{_digest(side, parted, task)}.json"
    path = None if kept is None else kept / file
    if path is not None and path.exists():
        say(f"{name}: kept from before")
        return Cell(**json.loads(path.read_text()))
    say(name)
    cell = _measured(side, parted, task)
    # What could not be installed today may be tomorrow; every other failure is a result.
    if path is not None and not cell.failed.startswith("could not be installed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(cell), indent=2))
        temporary.replace(path)
    return cell


def _digest(side: Side, parted: Parted, task: Task) -> str:
    """Name what a cell's result depends on: the rows, the task, and the code or the pins of the side."""
    module = _HERE.parent / f"{side.call.split(':')[0].replace('.', '/')}.py"
    code = [module, _HERE / "cell.py", _HERE / "scoring.py"]
    ours = sorted(path for name in _PASSED for path in (_SOURCE / name).rglob("*.py"))
    code += [_HERE / "pins" / f"{side.peer}.txt"] if side.peer else ours
    told = [parted.hash, asdict(task), *(hash_of(p) for p in code)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _measured(side: Side, parted: Parted, task: Task) -> Cell:
    with TemporaryDirectory(prefix="mulle-bench-") as temporary:
        folder = Path(temporary)
        parted.train.write_parquet(folder / "train.parquet")
        parted.test.write_parquet(folder / "test.parquet")
        task.write(folder)
        given = {"train": hash_of(folder / "train.parquet"), "test": hash_of(folder / "test.parquet")}
        watch = _Others()
        outcome = outcome_of(side, folder, seconds=_OVERSTAY * task.seconds + 120)
        busy, found, told = watch.share(), None, {"settings": {}, "found": ""}
        if not outcome.failed:
            told = json.loads((folder / f"{side.slug}.left").read_text())
            found = score(parted, np.load(folder / f"{side.slug}.npy"))
            if given != {n: told[n] for n in given}:
                outcome, found = replace(outcome, failed="it read other rows than it was given"), None
            elif found is None:
                outcome = replace(outcome, failed="its answers have a wrong shape, or are no numbers")
    return _cell(side, parted, task, outcome, found, busy, told)


def _cell(side: Side, parted: Parted, task: Task, outcome: Outcome, found: float | None, busy: float, told: Mapping) -> Cell:
    return Cell(
        table=parted.table.name,
        origin=parted.table.origin,
        task=task.kind,
        rows=parted.train.height,
        seconds=task.seconds,
        seed=task.seed,
        side=side.name,
        score=found,
        wall=outcome.best if outcome.runs else 0.0,
        busy=busy,
        hash=parted.hash,
        settings=told["settings"],
        found=told["found"],
        versions=dict(outcome.versions),
        failed=outcome.failed,
    )


class _Others:
    """Watches how much of the machine others take: what was busy, less what our own children used."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """Give the share of all cores since the beginning."""
        taken = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return max(0.0, taken / (time.monotonic() - self._began) / (os.cpu_count() or 1))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
