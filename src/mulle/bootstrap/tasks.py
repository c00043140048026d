"""The entry points of the compute processes: one task of a run, one chunk of a batch job."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mulle.bootstrap.processes import start_trials, trial_processes
from mulle.bootstrap.stores import open_files, open_lake, open_table
from mulle.core.declare.project import Project
from mulle.core.errors import UsageError
from mulle.core.records.base import Json
from mulle.core.settings import load_settings

if TYPE_CHECKING:
    from mulle.loop.batch.chunk import Bench

__all__ = ["run_chunk", "run_task"]


def run_task(name: str, settings: dict[str, str], arguments: Json) -> Json:
    """Run one compute task of a run; the entry point of the compute processes.

    Parameters
    ----------
    name : str
        ``features``, ``search``, ``evaluate``, ``bundle``, ``gate``, ``cut``, ``members`` or ``reproduce``.
    settings : dict
        Every setting as text.
    arguments : dict
        The task's, and what `loop.compute.work.Work` reads.

    Returns
    -------
    dict
        Small JSON.
    """
    from mulle.loop.compute.bundling import bundle_model
    from mulle.loop.compute.cutting import cut_members
    from mulle.loop.compute.evaluating import evaluate_model
    from mulle.loop.compute.judging import judge_model
    from mulle.loop.compute.members import train_members
    from mulle.loop.compute.searching import search_model
    from mulle.loop.compute.work import Work, build_features

    resolved = load_settings({k: v for k, v in settings.items() if v}, {})
    code = resolved.home / "code" / str(arguments["code"])
    work = Work.of(arguments, open_lake(resolved.lake), resolved.home, _project(code))
    if name == "features":
        start_trials(resolved, work.model.search)
        return build_features(work)
    if name == "search":
        return search_model(work, arguments["search_timeout"], arguments["warm"], trial_processes(resolved))
    if name == "evaluate":
        return evaluate_model(work, arguments["settings"], arguments["spent"])
    if name == "bundle":
        return bundle_model(work, arguments["settings"], arguments["metrics"], code)
    if name == "gate":
        return judge_model(work, arguments["champion"], arguments["evaluation"], arguments["bundle"], arguments["replay"])
    if name == "cut":
        return cut_members(work, arguments["chunk"], arguments["only"])
    if name == "members":
        told = {name: arguments[name] for name in ("chunk", "keys", "settings", "champions", "replay")}
        return train_members(work, **told, code=code)
    if name == "import":
        from mulle.loop.compute.importing import import_model

        return import_model(work, arguments["given"])
    if name == "reproduce":
        from mulle.loop.compute.reproducing import reproduce_model

        return reproduce_model(work, arguments["recorded"], arguments["tolerance"])
    raise UsageError(f"no task '{name}'", next="this is a defect of Mulle; please report it")


def run_chunk(settings: dict[str, str], job: str, chunk: int) -> Json:
    """Do one chunk of a batch job; the entry point of the compute processes.

    Parameters
    ----------
    settings : dict
        Every setting as text.
    job : str
        The job's id: its plan lies in the home.
    chunk : int

    Returns
    -------
    dict
        What `loop.batch.chunk.score_chunk` tells.
    """
    from mulle.loop.batch.chunk import score_chunk

    resolved = load_settings({k: v for k, v in settings.items() if v}, {})
    return score_chunk(_bench(resolved.home, resolved.lake, resolved.project, job), chunk)


@lru_cache(maxsize=4)
def _project(code: Path) -> Project:
    from mulle.kernel.project import load_project

    return load_project(code)


@lru_cache(maxsize=2)
def _bench(home: Path, lake: str, project: Path, job: str) -> Bench:
    from mulle.loop.batch.chunk import open_bench
    from mulle.loop.batch.plan import batches_folder

    return open_bench(batches_folder(home) / job, open_lake(lake), open_files(project), open_table)
