"""pointblank's side, on Polars: one plan, interrogated without collecting extracts or the checked table."""

from __future__ import annotations

import json
from pathlib import Path

import pointblank as pb
import polars as pl

from benchmarks.side import Work

__all__ = ["check"]


def check(folder: Path) -> Work:
    """Interrogate the batch; the answer counts failing rows by step."""
    rows = pl.read_parquet(folder / "batch.parquet")
    declared = json.loads((folder / "checks.json").read_text())

    def run() -> list[int]:
        plan = pb.Validate(data=rows)
        for kind, column, arguments in declared:
            plan = _step(plan, kind, column, arguments)
        failed = plan.interrogate(collect_extracts=False, collect_tbl_checked=False).n_failed()
        return [failed[i + 1] for i in range(len(declared))]

    return Work(run=run, keep=lambda counts, path: path.with_suffix(".json").write_text(json.dumps(counts)))


def _step(plan: pb.Validate, kind: str, column: str, arguments: list) -> pb.Validate:
    if kind == "unique":
        return plan.rows_distinct(columns_subset=column)
    if kind == "not_null":
        return plan.col_vals_not_null(columns=column)
    if kind == "between":
        return plan.col_vals_between(columns=column, left=arguments[0], right=arguments[1], na_pass=True)
    if kind == "one_of":
        return plan.col_vals_in_set(columns=column, set=arguments)
    return plan.col_vals_regex(columns=column, pattern=arguments[0], na_pass=True)
