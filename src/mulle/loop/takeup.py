"""Ending a run by hand, and beginning another where one ended: resumed, forked from a stage, repeated with other parameters.

Records are never edited, so what goes on is a run of its own: with the code, data and cutoff of the one before, which is among
its causes, and with the results of the stages that it does not do again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mulle.core.errors import Conflict, NotFound, UsageError
from mulle.core.hashing import derived_id, new_id
from mulle.core.records.base import Cause, Json
from mulle.core.records.run import FINAL, FURTHER, STAGES, Run, RunEvent, run_stages, run_state
from mulle.loop.operate import TAKES, record_run
from mulle.loop.parts import Parts
from mulle.loop.training.changes import CHANGES, SEED, changed

__all__ = ["cancel_run", "take_up"]

_LEFT_BY = {
    "features": ("rows.parquet", "features.parquet"),
    "search": ("search.json", "import.json"),
    "evaluate": ("holdout.parquet", "evaluation.json"),
    "gate": ("gate.json",),
}
"""What a stage leaves in a run's folder for those after it."""


def cancel_run(parts: Parts, run: str, *, by: str, why: str = "") -> None:
    """End a run that waits or runs: whoever works for it stops within a second, and what it still finds is not kept.

    Raises
    ------
    NotFound
        When there is no such run.
    Conflict
        When it has ended.
    """
    record = _record(parts, run)
    reason = f"{by} cancelled it" + (f": {why}" if why else "")
    event = RunEvent(
        id=derived_id(record.created_at, run, "state", "cancelled", ""),
        run=run, at=parts.clock.now(), kind="state", name="cancelled", detail={"reason": reason},
    )  # fmt: skip
    before = run_state(parts.metadata.runs.events(run))
    if before not in FINAL:
        # The store keeps no state after a run's end, whoever comes first.
        parts.metadata.runs.add_events(event)
        before = run_state(parts.metadata.runs.events(run))
        if before == "cancelled":
            return
    raise Conflict(f"run {run} has already ended: {before}", next=f"see `mulle runs show {run}`", run=run, state=before)


def take_up(parts: Parts, run: str, *, by: str, start: str | None = None, changes: Json | None = None, why: str = "") -> Run:
    """Record a run that goes on where another ended, or from a named stage of it.

    Parameters
    ----------
    run : str
        The run before.
    start : str, optional
        The first stage that is done again; by default the one at which the run failed or was cancelled.
    changes : dict, optional
        What the new run does otherwise; see `mulle.loop.training.changes`.

    Returns
    -------
    Run
        Queued.

    Raises
    ------
    NotFound
        When there is no such run.
    Conflict
        When it has not ended, or ended without a stage to take up.
    UsageError
        When there is no such stage, an earlier one has left nothing, or a change comes after the stage it is for.
    """
    record = _record(parts, run)
    events = parts.metadata.runs.events(run)
    state = run_state(events)
    if state not in FINAL:
        raise Conflict(f"run {run} is {state}", next=f"`mulle runs cancel {run}`, or wait for its end", run=run, state=state)
    done = [s.name for s in run_stages(events) if s.state in ("done", "skipped")]
    begin = _begin(run, state, start, done)
    stages = [name for name in STAGES[: STAGES.index(begin)] if name not in FURTHER]
    _check(parts, run, begin, stages, done, changes or {})
    merged = {**record.options.get(CHANGES, {}), **(changes or {})}
    options = {k: v for k, v in record.options.items() if k not in (TAKES, CHANGES)}
    options |= {TAKES: {"of": run, "stages": stages}} if stages else {}
    options |= {CHANGES: merged} if merged else {}
    changed(parts.project.model(record.model), options)
    now = parts.clock.now()
    with_changes = " with " + ", ".join(f"{k}={v}" for k, v in changes.items()) if changes else ""
    causes = (
        Cause(type="person", id=by, why=why or f"asked to go on from {begin}{with_changes}"),
        Cause(type="run", id=run, why=f"its code, data and cutoff; results before {begin}"),
    )
    made = replace(record, id=new_id(now), created_at=now, causes=causes, options=options, seed=merged.get(SEED, record.seed))
    _link(parts, record.id, made.id, stages)
    record_run(parts, made, lambda: _copy_records(parts, record.id, made, stages))
    return made


def _record(parts: Parts, run: str) -> Run:
    record = parts.metadata.runs.get(run)
    if record is None:
        raise NotFound(f"no run '{run}'", next="see `mulle runs ls`", run=run)
    return record


def _begin(run: str, state: str, start: str | None, done: Sequence[str]) -> str:
    if start is not None:
        if start not in STAGES:
            raise UsageError(f"no stage '{start}'", next=f"choose from {', '.join(STAGES)}")
        return start
    if state in ("succeeded", "rejected"):
        raise Conflict(f"run {run} was not interrupted: it {state}", next="name a stage to begin at with --from", run=run)
    return next(name for name in STAGES if name not in done)


def _check(parts: Parts, run: str, begin: str, stages: Sequence[str], done: Sequence[str], changes: Json) -> None:
    missing = [name for name in stages if name not in done]
    if missing:
        raise UsageError(f"run {run} has no result of {missing[0]}", next=f"begin there: --from {missing[0]}", run=run)
    if changes and STAGES.index(begin) > STAGES.index("search"):
        raise UsageError(f"{', '.join(changes)} shape the search, which comes before {begin}", next="use --from search")
    folder = parts.settings.home / "runs" / run
    if "features" in stages and not (folder / "features.parquet").exists():
        raise UsageError(f"what run {run} computed was cleared away", next="begin anew: --from features", run=run)


def _link(parts: Parts, old: str, new: str, stages: Sequence[str]) -> None:
    # Files are only ever replaced whole, so two runs may share one.
    source, target = parts.settings.home / "runs" / old, parts.settings.home / "runs" / new
    target.mkdir(parents=True, exist_ok=True)
    for name in (name for stage in stages for name in _LEFT_BY.get(stage, ())):
        if (source / name).exists():
            _share(source / name, target / name)


def _share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _copy_records(parts: Parts, old: str, made: Run, stages: Sequence[str]) -> None:
    runs = parts.metadata.runs
    for event in runs.events(old):
        reused = event.kind == "stage" and event.name in stages and event.state != "started"
        if not reused and not (event.kind == "data" and "publish" in stages):
            continue
        id = derived_id(made.created_at, made.id, event.kind, event.name)
        copied = replace(event, id=id, run=made.id, at=made.created_at)
        runs.add_events(replace(copied, state="skipped", seconds=0.0, detail={"taken_from": old}) if reused else copied)
    if "search" in stages:
        runs.add_trials([replace(trial, run=made.id) for trial in runs.trials(old)])
    if "gate" in stages:
        runs.add_gates(made.id, runs.gates(old))
