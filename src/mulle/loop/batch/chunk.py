"""One chunk of a batch job: read, sifted, joined at each row's own time, answered, and its part put in place by rename.

It runs in whatever process is given the job's folder and the chunk's number; done twice, it leaves the same files.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mulle.core.ports.lake import Lake
from mulle.core.ports.rowfiles import RowFiles, Rows
from mulle.core.records.base import Json
from mulle.kernel.bundle import Predictor
from mulle.kernel.faults import point
from mulle.kernel.sift import Sifted, Unfit, sift, sift_rows
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.features.join import join_offline
from mulle.lifecycle.serving.bulk import answer_frame
from mulle.loop.batch.plan import Plan, keep_document, read_plan

__all__ = ["Bench", "done_file", "open_bench", "part_name", "score_chunk"]

SAMPLES = 20
_WRITERS = {"parquet": "write_parquet", "csv": "write_csv", "jsonl": "write_ndjson"}


@dataclass(frozen=True, slots=True)
class Bench:
    """What a process keeps between a job's chunks: the plan, the opened bundle, and the tables that are joined."""

    folder: Path
    plan: Plan
    predictor: Predictor
    tables: Mapping[str, pl.DataFrame]
    files: RowFiles


def open_bench(folder: Path, lake: Lake, files: RowFiles) -> Bench:
    """Open a job's bench; a process opens it once for all of its chunks."""
    plan = read_plan(folder)
    predictor = Predictor.open(Path(plan.address), expected=plan.bundle)
    tables = {
        join.dataset.name: read_version(lake, join.dataset, plan.joined[join.dataset.name], superseded=True).collect()
        for _, join in predictor.features.joins
    }
    return Bench(folder, plan, predictor, tables, files)


def part_name(plan: Plan, chunk: int) -> str:
    """Name a chunk's part."""
    return f"part-{chunk:05d}.{'parquet' if plan.table else plan.order.format}"


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
    plan, contract = bench.plan, bench.predictor.contract
    span = plan.spans[chunk]
    wanted = [*(f.name for f in contract.inputs), *plan.order.keep]
    rows = bench.files.read(span, wanted)
    name = f"{plan.model}@{plan.version}"
    sifted = _sifted(rows, bench, name)
    joined = join_offline(sifted.frame, bench.predictor.features, bench.tables) if contract.joins else sifted.frame
    answered = answer_frame(bench.predictor, joined)
    kept = sifted.frame[answered.kept] if answered.failed else sifted.frame
    part = _beside(kept, rows, [sifted.kept[i] for i in answered.kept], bench)
    part = part.hstack(answered.frame).with_columns(pl.lit(plan.version, dtype=pl.Int64).alias("version"))
    failed = [Unfit(sifted.kept[i], "", f"the feature function fails on it: {why}", "") for i, why in answered.failed]
    rejected = [_told(rows, u, span.name) for u in sorted([*sifted.unfit, *failed], key=lambda u: u.row)]
    rejected += [{"file": span.name, "row": b.number, "field": "", "reason": b.reason, "values": b.text} for b in rows.broken]
    told: Json = {
        "chunk": chunk, "rows": len(rows.numbers) + len(rows.broken), "answered": part.height, "rejected": len(rejected),
        "reasons": dict(Counter(_kind(r) for r in rejected)), "samples": rejected[:SAMPLES],
        "part": _place(part, bench, chunk), "rejects": _place_rejects(rejected, bench, chunk),
    }  # fmt: skip
    point("during:batch:placed")
    keep_document(done_file(bench.folder, chunk), told)
    return told


def _sifted(rows: Rows, bench: Bench, name: str) -> Sifted:
    contract, now = bench.predictor.contract, bench.plan.created_at
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
    folder = bench.folder / "parts" if bench.plan.table else Path(bench.plan.output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / part_name(bench.plan, chunk)
    scratch = path.with_name(f".{path.name}.new")
    getattr(part, _WRITERS["parquet" if bench.plan.table else bench.plan.order.format])(scratch)
    with scratch.open("rb") as file:
        mark = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    scratch.replace(path)
    return {"name": path.name, "rows": part.height, "hash": mark}


def _place_rejects(rejected: Sequence[Json], bench: Bench, chunk: int) -> str | None:
    if not rejected:
        return None
    folder = (bench.folder if bench.plan.table else Path(bench.plan.output)) / "rejected"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{chunk:05d}.jsonl"
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text("".join(json.dumps(r, default=str) + "\n" for r in rejected))
    scratch.replace(path)
    return f"rejected/{path.name}"
