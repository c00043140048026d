"""One chunk of a batch job: read, sifted, joined at each row's own time, answered, and its part put in place by rename.

It runs in whatever process is given the job's folder and the chunk's number; done twice, it leaves the same files.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from mulle.core.ports.lake import Lake
from mulle.core.ports.rowfiles import RowFiles, Rows
from mulle.core.ports.rowtable import RowTable
from mulle.core.records.base import Json
from mulle.core.records.bundle import Contract
from mulle.kernel.bundle import Predictor
from mulle.kernel.faults import point
from mulle.kernel.sift import Sifted, Unfit, sift, sift_rows
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.features.join import join_offline
from mulle.lifecycle.serving.bulk import answer_frame
from mulle.lifecycle.serving.fleet import members
from mulle.loop.batch.plan import Plan, keep_document, read_plan

__all__ = ["Bench", "done_file", "open_bench", "part_name", "score_chunk"]

SAMPLES = 20
_OPEN = 1_000
"""Members whose bundles a process keeps open."""
_WRITERS = {"parquet": "write_parquet", "csv": "write_csv", "jsonl": "write_ndjson"}


@dataclass(frozen=True, slots=True)
class Bench:
    """What a process keeps between a job's chunks: the plan, the opened bundles, and the tables that are joined."""

    folder: Path
    plan: Plan
    predictor: Predictor
    tables: Mapping[str, pl.DataFrame]
    files: RowFiles
    table: RowTable | None = None
    opened: OrderedDict[str, Predictor] = field(default_factory=OrderedDict)

    def answering(self, model: str) -> tuple[int, Predictor]:
        """Give who answers for a model of the job: its version, and its bundle."""
        if model == self.plan.model:
            return self.plan.version, self.predictor
        standing = self.plan.members[model]
        if model not in self.opened:
            self.opened[model] = Predictor.open(Path(standing.address), expected=standing.bundle)
            while len(self.opened) > _OPEN:
                self.opened.popitem(last=False)[1].close()
        self.opened.move_to_end(model)
        return standing.version, self.opened[model]


def open_bench(folder: Path, lake: Lake, files: RowFiles, table: Callable[[str], RowTable]) -> Bench:
    """Open a job's bench; a process opens it once for all of its chunks."""
    plan = read_plan(folder)
    predictor = Predictor.open(Path(plan.address), expected=plan.bundle)
    tables = {
        join.dataset.name: read_version(lake, join.dataset, plan.joined[join.dataset.name], superseded=True).collect()
        for _, join in predictor.features.joins
    }
    return Bench(folder, plan, predictor, tables, files, table(plan.output) if plan.sql else None)


def part_name(plan: Plan, chunk: int) -> str:
    """Name a chunk's part."""
    return f"part-{chunk:05d}.{plan.order.format if plan.folder else 'parquet'}"


def done_file(folder: Path, chunk: int) -> Path:
    """Return the file that says that a chunk is done, and what became of its rows."""
    return folder / "done" / f"{chunk:05d}.json"


def score_chunk(bench: Bench, chunk: int) -> Json:
    """Do one chunk.

    Returns
    -------
    dict
        ``chunk``, ``rows``, ``answered``, ``rejected``, ``reasons`` (by field and what was expected: count), ``samples``,
        ``part`` (name, rows, hash) and ``rejects`` (name or None).
    """
    plan = bench.plan
    span = plan.spans[chunk]
    wanted = [*(f.name for f in bench.predictor.contract.inputs), *([plan.each] if plan.each else []), *plan.order.keep]
    rows = bench.files.read(span, wanted)
    shares = [_answered(rows, model, mine, bench) for model, mine in _who(rows, plan).items()]
    places = [place for share in shares for place in share.places]
    part = _beside(pl.concat([s.rows for s in shares], how="diagonal_relaxed"), rows, places, bench)
    part = part.hstack(pl.concat([s.answers for s in shares], how="diagonal"))
    if len(shares) > 1:
        part = part[np.argsort(places, kind="stable")]
    rejected = [_told(rows, u, span.name) for u in sorted((u for s in shares for u in s.unfit), key=lambda u: u.row)]
    rejected += [{"file": span.name, "row": b.number, "field": "", "reason": b.reason, "values": b.text} for b in rows.broken]
    told: Json = {
        "chunk": chunk, "rows": len(rows.numbers) + len(rows.broken), "answered": part.height, "rejected": len(rejected),
        "reasons": dict(Counter(_kind(r) for r in rejected)), "samples": rejected[:SAMPLES],
        "part": _place(part, bench, chunk), "rejects": _place_rejects(rejected, bench, chunk),
    }  # fmt: skip
    if plan.each:
        told["by_members"] = int((part["model"] != plan.model).sum())
    point("during:batch:placed")
    keep_document(done_file(bench.folder, chunk), told)
    return told


@dataclass(frozen=True, slots=True)
class _Share:
    """What one model answered of a chunk: the rows that keep its contract, their places among all, and what breaks it."""

    rows: pl.DataFrame
    answers: pl.DataFrame
    places: list[int]
    unfit: list[Unfit]


def _who(rows: Rows, plan: Plan) -> dict[str, list[int] | None]:
    """Name the models that answer, with the places of their rows; None for all of them."""
    values = rows.values
    if not plan.each or (isinstance(values, pl.DataFrame) and plan.each not in values.columns):
        return {plan.model: None}
    if not isinstance(values, pl.DataFrame):
        return {**members(values, plan.each, plan.model, plan.members)} or {plan.model: None}
    named = values.select(plan.each).with_row_index("_at").group_by(plan.each, maintain_order=True).agg("_at")
    found: dict[str, list[int] | None] = {}
    for key, at in named.iter_rows():
        (model,) = members([{plan.each: key}], plan.each, plan.model, plan.members)
        found[model] = [*(found.get(model) or ()), *at]
    return found or {plan.model: None}


def _answered(rows: Rows, model: str, places: list[int] | None, bench: Bench) -> _Share:
    version, predictor = bench.answering(model)
    contract = predictor.contract
    sifted = _sifted(rows if places is None else _some(rows, places), contract, f"{model}@{version}", bench)
    joined = join_offline(sifted.frame, predictor.features, bench.tables) if contract.joins else sifted.frame
    answered = answer_frame(predictor, joined)
    failed = [Unfit(sifted.kept[i], "", f"the feature function fails on it: {why}", "") for i, why in answered.failed]
    kept, unfit = [sifted.kept[i] for i in answered.kept], [*sifted.unfit, *failed]
    if places is not None:
        kept, unfit = [places[i] for i in kept], [replace(u, row=places[u.row]) for u in unfit]
    more = [pl.lit(model).alias("model")] if bench.plan.each else []
    return _Share(
        sifted.frame[answered.kept] if answered.failed else sifted.frame,
        answered.frame.with_columns(*more, pl.lit(version, dtype=pl.Int64).alias("version")),
        kept,
        unfit,
    )


def _some(rows: Rows, places: list[int]) -> Rows:
    values = rows.values
    chosen = values[places] if isinstance(values, pl.DataFrame) else [values[i] for i in places]
    return replace(rows, values=chosen, numbers=[rows.numbers[i] for i in places], broken=())


def _sifted(rows: Rows, contract: Contract, name: str, bench: Bench) -> Sifted:
    now = bench.plan.created_at
    if isinstance(rows.values, pl.DataFrame):
        return sift(rows.values, contract.inputs, model=name, time=contract.time, now=now, text=rows.text)
    return sift_rows(rows.values, contract.inputs, model=name, time=contract.time, now=now)


def _beside(frame: pl.DataFrame, rows: Rows, positions: Sequence[int], bench: Bench) -> pl.DataFrame:
    """Give what stands beside an answer: key, time and what was asked for; the row's number where there is no key."""
    contract, keep = bench.predictor.contract, bench.plan.order.keep
    named = [*contract.key, *([contract.time] if contract.time else [])]
    known = frame.select(c for c in dict.fromkeys(named) if c in frame.columns)
    values = rows.values
    if isinstance(values, pl.DataFrame):
        more = values[list(positions)] if len(positions) < values.height else values
        known = known.hstack(more.select(c for c in keep if c in more.columns and c not in known.columns))
    elif keep:
        chosen = [{c: values[i].get(c) for c in keep if c not in known.columns} for i in positions]
        known = known.hstack(pl.from_dicts(chosen, infer_schema_length=None)) if chosen else known
    if not contract.key:
        known = known.with_columns(pl.Series("row", [rows.numbers[i] for i in positions], dtype=pl.Int64))
    return known


def _told(rows: Rows, unfit: Unfit, file: str) -> Json:
    values = rows.values.row(unfit.row, named=True) if isinstance(rows.values, pl.DataFrame) else rows.values[unfit.row]
    reason = f"expected {unfit.expected}, found {unfit.value!r}" if unfit.field else unfit.expected
    told: Json = {"file": file, "row": rows.numbers[unfit.row], "field": unfit.field, "reason": reason, "values": dict(values)}
    return {**told, "kind": f"{unfit.field}: expected {unfit.expected}" if unfit.field else "the feature function failed"}


def _kind(rejected: Json) -> str:
    return str(rejected.pop("kind", rejected["reason"]))


def _place(part: pl.DataFrame, bench: Bench, chunk: int) -> Json:
    if bench.table is not None:
        bench.table.put(part, batch=bench.plan.id, chunk=chunk)
        return {"rows": part.height}
    folder = bench.plan.folder or bench.folder / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / part_name(bench.plan, chunk)
    scratch = path.with_name(f".{path.name}.new")
    getattr(part, _WRITERS[path.suffix.removeprefix(".")])(scratch)
    with scratch.open("rb") as file:
        mark = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    scratch.replace(path)
    return {"name": path.name, "rows": part.height, "hash": mark}


def _place_rejects(rejected: Sequence[Json], bench: Bench, chunk: int) -> str | None:
    if not rejected:
        return None
    folder = (bench.plan.folder or bench.folder) / "rejected"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{chunk:05d}.jsonl"
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text("".join(json.dumps(r, default=str) + "\n" for r in rejected))
    scratch.replace(path)
    return f"rejected/{path.name}"
