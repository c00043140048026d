"""A batch job from order to manifest: planned or taken up, its chunks done in parallel, and counted once each."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import fields
from pathlib import Path

import polars as pl

from mulle.core.clock import duration, rfc3339
from mulle.core.errors import Conflict, Deadline, Refused, Unavailable
from mulle.core.ports.compute import Compute
from mulle.core.records.base import Cause, Json, to_json
from mulle.kernel.faults import point
from mulle.loop.batch.chunk import SAMPLES, done_file, open_bench, score_chunk
from mulle.loop.batch.plan import Order, Plan, batches_folder, keep_document, plan_job, read_plan
from mulle.loop.parts import Parts

__all__ = ["MANIFEST", "batch_manifest", "jobs", "run_batch", "unfinished"]

MANIFEST = "manifest.json"
TASK = "mulle.bootstrap.tasks:run_chunk"
_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*@")
_LIVES = 3
"""A chunk whose process died is given to another so many times."""

Told = Callable[[int, int, int], None]
"""Hears of progress: rows done, rows rejected, rows in all."""


def run_batch(
    parts: Parts,
    order: Order,
    *,
    causes: tuple[Cause, ...],
    compute: Compute | None = None,
    processes: int = 1,
    anew: bool = False,
    told: Told = lambda *_: None,
) -> Json:
    """Score an input; an unfinished job of the same order is taken up where it was.

    Parameters
    ----------
    compute : Compute, optional
        Where chunks are done; by default in this process, one after the other.
    processes : int
        How many chunks are under way at a time.
    anew : bool
        Forget an unfinished job, and do again what is done.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    Refused
        When more rows break the contract than the order allows; the manifest is kept.
    Conflict
        When the output holds something else.
    """
    folder, plan = _planned(parts, order, causes, anew)
    before = _finished(plan, folder)
    if before is not None and not anew:
        return before
    _claim(plan)
    state = _State(plan, folder)
    pending = [n for n in range(len(plan.spans)) if n not in state.done]
    told(state.rows, state.rejected, plan.rows)
    for answer in _answers(parts, folder, pending, compute, processes):
        state.add(answer)
        _publish(parts, state)
        told(state.rows, state.rejected, plan.rows)
        point("during:batch")
        if state.rejected > order.max_rejected * max(plan.rows, 1):
            break
    _publish(parts, state)
    return _ended(parts, state)


def unfinished(home: Path) -> Iterator[Plan]:
    """Give the plans of jobs that were begun and not ended, oldest first."""
    for folder in sorted(batches_folder(home).glob("*/")):
        if (folder / "plan.json").is_file() and not (folder / MANIFEST).is_file():
            yield read_plan(folder)


def jobs(home: Path, limit: int = 50) -> list[Json]:
    """List the jobs of a home, newest first, each as its manifest or, while it is unfinished, as its beginning."""
    folders = sorted((f for f in batches_folder(home).glob("*/") if (f / "plan.json").is_file()), reverse=True)
    return [_manifest_of(folder) for folder in folders[:limit]]


def batch_manifest(home: Path, name: str) -> Json | None:
    """Find what scored something: the manifest of a job's id, of its output folder, or of a file in it; None when none did."""
    folder = batches_folder(home) / name
    if "/" not in name and (folder / "plan.json").is_file():
        return _manifest_of(folder)
    path = Path(name).resolve()
    for place in (path, path.parent, path.parent.parent):
        if (place / MANIFEST).is_file():
            found: Json = json.loads((place / MANIFEST).read_text())
            return found if "bundle" in found and "input" in found else None
    return None


def _manifest_of(folder: Path) -> Json:
    if (folder / MANIFEST).is_file():
        found: Json = json.loads((folder / MANIFEST).read_text())
        return found
    plan = read_plan(folder)
    return _told(_State(plan, folder), "running", None)


class _State:
    """What is done of a job, read back from its folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.done: dict[int, Json] = {}
        self.published = 0
        self.rows = self.rejected = 0
        for number in range(len(plan.spans)):
            path = done_file(folder, number)
            if path.is_file():
                self.add(json.loads(path.read_text()))

    def add(self, answer: Json) -> None:
        self.done[int(answer["chunk"])] = answer
        self.rows += int(answer["rows"])
        self.rejected += int(answer["rejected"])


def _planned(parts: Parts, order: Order, causes: tuple[Cause, ...], anew: bool) -> tuple[Path, Plan]:
    home = parts.settings.home
    for plan in unfinished(home):
        if plan.key == order.key:
            if not anew:
                return batches_folder(home) / plan.id, plan
            shutil.rmtree(batches_folder(home) / plan.id)
    plan = plan_job(parts, order, causes)
    folder = batches_folder(home) / plan.id
    if anew or _finished(plan, folder) is None:
        keep_document(folder / "plan.json", to_json(plan))
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return folder, plan


def _finished(plan: Plan, folder: Path) -> Json | None:
    """Return the manifest of an earlier job that did the very same, if its output still stands."""
    if plan.folder is None:
        for other in sorted(folder.parent.glob(f"*/{MANIFEST}"), reverse=True):
            found: Json = json.loads(other.read_text())
            if found.get("digest") == plan.digest and found["state"] == "done":
                return found
        return None
    path = plan.folder / MANIFEST
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    return found if found.get("digest") == plan.digest and found["state"] == "done" else None


def _claim(plan: Plan) -> None:
    """Take the output folder: empty, or this job's own; another's answers are never mixed with ours."""
    folder = plan.folder
    if folder is None:
        return
    if folder.is_dir() and any(folder.iterdir()):
        path = folder / MANIFEST
        holder = json.loads(path.read_text()) if path.is_file() else {}
        if holder.get("id") != plan.id:
            if holder.get("key") != plan.key:
                what = f"what another command wrote, job {holder['id']}" if holder.get("id") else "something else"
                raise Conflict(f"{folder} holds {what}", next="name an empty folder; %Y-%m-%d in its name is filled in")
            _emptied(folder)
    keep_document(folder / MANIFEST, {"id": plan.id, "key": plan.key, "digest": plan.digest, "state": "running"})


def _emptied(folder: Path) -> None:
    for part in (*folder.glob("part-*"), *folder.glob(".part-*"), folder / MANIFEST):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder / "rejected", ignore_errors=True)


def _answers(parts: Parts, folder: Path, pending: list[int], compute: Compute | None, processes: int) -> Iterator[Json]:
    if compute is None:
        bench = open_bench(folder, parts.lake, parts.files, parts.table) if pending else None
        for chunk in pending:
            assert bench is not None
            yield score_chunk(bench, chunk)
        return
    settings = {name: str(value) for name, value in _settings(parts).items()}
    limit = duration(parts.settings.stage_limit).total_seconds()

    def ask(chunk: int) -> Json:
        arguments = {"settings": settings, "job": folder.name, "chunk": chunk}
        for life in range(_LIVES):
            try:
                return compute.call(TASK, arguments, timeout=limit)
            except Unavailable as error:
                if life == _LIVES - 1 or isinstance(error, Deadline):
                    raise
        raise AssertionError

    waiting = iter(pending)
    with ThreadPoolExecutor(processes, thread_name_prefix="mulle-batch") as pool:
        flying: set[Future[Json]] = {pool.submit(ask, chunk) for _, chunk in zip(range(processes), waiting, strict=False)}
        try:
            while flying:
                ended, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
                    flying |= {pool.submit(ask, chunk) for chunk in [next(waiting, None)] if chunk is not None}
        finally:
            for future in flying:
                future.cancel()


def _settings(parts: Parts) -> Json:
    return {f.name: getattr(parts.settings, f.name) for f in fields(parts.settings)}


def _publish(parts: Parts, state: _State) -> None:
    """Put the next chunks, in order, into the lake's table: their number is the sequence, so none comes twice."""
    plan = state.plan
    if not plan.table:
        return
    while state.published in state.done:
        number = state.published
        path = state.folder / "parts" / str(state.done[number]["part"]["name"])
        if path.is_file():
            rows = pl.read_parquet(path).with_columns(pl.lit(plan.id).alias("batch"))
            note = {"batch": plan.id, "model": plan.model, "version": plan.version, "chunk": number}
            parts.lake.append(plan.output, rows, application=f"batch-{plan.id}", sequence=number + 1, note=note)
            point("during:batch:appended")
            path.unlink()
        state.published += 1


def _ended(parts: Parts, state: _State) -> Json:
    plan = state.plan
    most = plan.order.max_rejected * max(state.rows, 1) if len(state.done) == len(plan.spans) else -1
    refused = state.rejected > most
    manifest = _told(state, "refused" if refused else "done", rfc3339(parts.clock.now()))
    if plan.folder is not None:
        keep_document(plan.folder / MANIFEST, manifest)
    keep_document(state.folder / MANIFEST, manifest)
    for leftover in ("input", "parts"):
        shutil.rmtree(state.folder / leftover, ignore_errors=True)
    if refused:
        raise Refused(
            f"{state.rejected:,} of {state.rows:,} rows break the contract, at most {plan.order.max_rejected:.0%} may",
            next=f"see {_place(plan, state.folder)}, mend the input, or allow more with --max-rejected",
            batch=plan.id, rejected=state.rejected, rows=state.rows, reasons=manifest["reasons"],
        )  # fmt: skip
    return manifest


def _place(plan: Plan, folder: Path) -> str:
    return str((plan.folder or folder) / "rejected")


def _told(state: _State, word: str, finished: str | None) -> Json:
    plan = state.plan
    done = [state.done[n] for n in sorted(state.done)]
    reasons: Counter[str] = Counter()
    for answer in done:
        reasons.update(answer["reasons"])
    samples = [sample for answer in done for sample in answer["samples"]][:SAMPLES]
    joined = {name: version.version for name, version in plan.joined.items()}
    where = {"folder": plan.output} if plan.folder else {"table": _PASSWORD.sub(r"\1***@", plan.output)}
    kind = "sql" if plan.sql else "delta" if plan.table else plan.order.format
    by = {"members": {"models": len(plan.members), "rows": sum(a["by_members"] for a in done)}} if plan.each else {}
    return {
        "id": plan.id, "created_at": rfc3339(plan.created_at), "finished_at": finished, "state": word,
        "causes": to_json(plan.causes), "model": plan.model, "version": plan.version, "bundle": plan.bundle,
        "input": {**plan.input, "rows": plan.rows, "files": list(plan.files)}, "joined": joined, "joins": "offline",
        "now": rfc3339(plan.created_at), "chunks": {"done": len(done), "all": len(plan.spans)},
        "rows_in": state.rows, "rows_out": sum(a["answered"] for a in done), "rejected": state.rejected,
        "reasons": [{"reason": r, "rows": n} for r, n in reasons.most_common()], "samples": samples,
        "rejects": _place(plan, state.folder) if state.rejected else None,
        "output": {**where, "format": kind, "files": [a["part"] for a in done]}, **by,
        "schedule": plan.order.schedule, "key": plan.key, "digest": plan.digest,
    }  # fmt: skip
