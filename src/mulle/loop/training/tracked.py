"""What MLflow is told of runs, versions and aliases: at once or, while it is away, by a word in the home that is kept for later.

MLflow is a projection of the records, so nothing that it misses is lost, and no run or release waits for it.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mulle.core.errors import Conflict, MulleError, NotFound, Unavailable
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import OUTCOMES, Run, run_stages
from mulle.kernel.faults import point
from mulle.loop.lock import hold, holder
from mulle.loop.parts import Parts
from mulle.loop.place import ENGINE
from mulle.loop.rollout.route import project_aliases
from mulle.loop.training.changes import declared
from mulle.loop.training.leavings import pages, write_leavings

__all__ = ["CatchUp", "catch_up", "tell_aliases", "tell_members", "tell_run", "untold"]

_FOLDER = "tracking"
_PAUSE = 30.0
"""Seconds between two attempts to tell what is left."""

log = logging.getLogger("mulle.tracking")


def tell_run(parts: Parts, run: Run, results: Json, version: ModelVersion | None = None) -> dict[str, str]:
    """Tell MLflow of a run and, where it made one, of its version.

    Parameters
    ----------
    results : dict
        Of the run's stages.

    Returns
    -------
    dict
        MLflow's ids; empty while MLflow is away.
    """
    try:
        found = _told(parts, run, results, version)
    except Unavailable as error:
        _later(parts, f"run-{run.id}", {"run": run.id, "model": run.model, "results": results}, error)
        return {}
    if version is not None:
        parts.metadata.models.set_tracking(version.id, found)
    return found


def tell_members(parts: Parts, run: Run) -> None:
    """Tell MLflow, in a fleet's one run, of its members: a table, and what sums them up; none is registered there."""
    try:
        _told_members(parts, run)
    except Unavailable as error:
        _later(parts, f"run-{run.id}-members", {"run": run.id, "model": run.model}, error)


def tell_aliases(parts: Parts, model: str) -> None:
    """Point MLflow's aliases where the deployments point.

    Nobody waits for an MLflow that was just found away, nor for its library, seconds to import, where a loop runs that can tell.
    """
    item, home = {"model": model}, parts.settings.home
    if untold(home) or holder(home / ENGINE) not in (None, os.getpid()):
        _later(parts, _then(model), item)
        return
    try:
        project_aliases(parts, model)
    except Unavailable as error:
        _later(parts, _then(model), item, error)


def untold(home: Path) -> list[Path]:
    """List what MLflow is still to be told, in the order in which it is."""
    return sorted((home / _FOLDER).glob("*.json"))


def catch_up(parts: Parts) -> int:
    """Tell MLflow what it missed, until all is told or it is away again; return how much was told."""
    done = 0
    try:
        lock = hold(parts.settings.home / "tracking.lock", "telling MLflow")
    except Conflict:
        return 0
    try:
        for path in untold(parts.settings.home):
            item = json.loads(path.read_text())
            try:
                _caught_up(parts, item)
            except Unavailable as error:
                log.warning("%s; %d things wait to be told", error.detail, len(untold(parts.settings.home)))
                break
            except (MulleError, OSError, LookupError, TypeError) as error:
                # It must not keep the rest; the records have it all the same.
                log.error("MLflow cannot be told of %s: %s", path.stem, error, extra={"model": item["model"]})
                path.rename(path.with_suffix(".refused"))
                continue
            path.unlink(missing_ok=True)
            done += 1
    finally:
        lock.release()
    return done


class CatchUp:
    """Looks for what MLflow is still to be told, in a thread of its own: a server that hangs keeps nobody else waiting."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._next = 0.0

    def look(self, parts: Parts) -> None:
        """Begin to tell what is left, where something is and the last attempt was long ago; returns at once."""
        under_way = self._thread is not None and self._thread.is_alive()
        if under_way or time.monotonic() < self._next or not untold(parts.settings.home):
            return
        self._next = time.monotonic() + _PAUSE
        self._thread = threading.Thread(target=_quietly, args=(parts,), name="mulle-tracking-late", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Let what is being told end; the rest is told after the next start."""
        if self._thread is not None:
            self._thread.join(seconds)


def _quietly(parts: Parts) -> None:
    try:
        if told := catch_up(parts):
            log.info("MLflow was told of %d things that waited", told)
    except Exception:
        log.exception("MLflow could not be told what it missed")


def _caught_up(parts: Parts, item: Json) -> None:
    if "run" in item:
        run = parts.metadata.runs.get(item["run"])
        if run is None:
            raise NotFound(f"no run {item['run']}", next="see `mulle runs ls`")
        if "results" in item:
            version = parts.metadata.models.of_run(run.id)
            found = _told(parts, run, item["results"], version)
            if version is not None:
                parts.metadata.models.set_tracking(version.id, found)
        else:
            _told_members(parts, run)
    project_aliases(parts, item["model"])


def _later(parts: Parts, name: str, item: Json, error: Unavailable | None = None) -> None:
    folder = parts.settings.home / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
    temporary.write_text(json.dumps(item))
    temporary.replace(folder / f"{name}.json")
    if error is not None:
        log.warning("%s; it is told later, when MLflow is back", error.detail, extra={"model": item["model"]})


def _then(model: str) -> str:
    # After the runs, for an alias points at a version that is registered there.
    return f"then-{hash_json(model)[:12]}"


def _told(parts: Parts, run: Run, results: Json, version: ModelVersion | None) -> dict[str, str]:
    home, runs, tracking = parts.settings.home, parts.metadata.runs, parts.tracking()
    data = [from_json(DatasetVersion, v) for v in results["publish"]["versions"].values()]
    trials, gates = runs.trials(run.id), runs.gates(run.id)
    stages = [s for s in run_stages(runs.events(run.id)) if s.state == "done"]
    metrics = results["evaluate"]["metrics"] | {f"seconds.{s.name}": s.seconds for s in stages}
    tags = {"mulle.code": run.code, "mulle.git": run.git or "", "mulle.causes": "; ".join(c.why for c in run.causes)}
    tags |= {f"mulle.data.{v.dataset}": str(v.version) for v in data}
    tags |= {"mulle.resources.cpus": str(os.cpu_count()), "mulle.resources.processes": str(parts.settings.processes)}
    if chosen := results["search"].get("selection"):
        tags["mulle.selection"] = f"{chosen['by']}: {len(chosen['kept'])} of {len(chosen['scores'])}"
        tags["mulle.features"] = ", ".join(chosen["kept"])
    with TemporaryDirectory() as folder:
        code, project = home / "code" / run.code, parts.settings.project
        tags |= write_leavings(Path(folder), run, trials, gates, code=code, project=project)
        shown = pages(trials, results)
        parent = tracking.log_run(run, trials, metrics, gates, tags, data=data, files=Path(folder), pages=shown)
    point("during:log")
    return {"run_id": parent} if version is None else tracking.register(version, Path(version.address), parent)


def _told_members(parts: Parts, run: Run) -> None:
    members, model = parts.metadata.runs.members(run.id), declared(parts.project, parts.settings.home, run)
    counted = Counter(m.outcome for m in members)
    metrics = {f"members.{name}": float(counted[name]) for name in OUTCOMES}
    better = [m.value / m.shared for m in members if m.outcome == "trained" and m.value is not None and m.shared]
    metrics |= {"members.seconds": sum(m.seconds for m in members)}
    metrics |= {f"members.{model.metric}.of_shared": median(better)} if better else {}
    with TemporaryDirectory() as folder:
        with (Path(folder) / "members.csv").open("w", newline="") as file:
            rows = [to_json(replace(m, run="")) for m in members]
            names = [n for n in (rows[0] if rows else {"model": ""}) if n != "run"]
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        tags = {"mulle.fleet": model.name, "mulle.code": run.code}
        parts.tracking().log_run(run, parts.metadata.runs.trials(run.id), metrics, (), tags, files=Path(folder))
