"""pandera's side, on its Polars backend: one schema, validated lazily so that all failures are counted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandera.polars as pa
import polars as pl

from benchmarks.side import Work

__all__ = ["check"]


def check(folder: Path) -> Work:
    """Validate the batch; the answer counts failing values by check."""
    rows = pl.read_parquet(folder / "batch.parquet")
    declared = json.loads((folder / "checks.json").read_text())
    schema = _schema(declared, rows.schema)

    def run() -> pl.DataFrame | None:
        try:
            schema.validate(rows, lazy=True)
        except pa.errors.SchemaErrors as error:
            return error.failure_cases
        return None

    def keep(failures: pl.DataFrame | None, path: Path) -> None:
        found = {} if failures is None else {(c, k): n for c, k, n in failures.group_by("column", "check").len().rows()}
        counts = [sum(n for (c, k), n in found.items() if c == column and _NAMES[kind] in k) for kind, column, _ in declared]
        path.with_suffix(".json").write_text(json.dumps(counts))

    return Work(run=run, keep=keep)


_NAMES = {"unique": "unique", "not_null": "not_nullable", "between": "in_range", "one_of": "isin", "matches": "str_matches"}


def _schema(declared: list[tuple[str, str, list]], types: Mapping[str, pl.DataType]) -> pa.DataFrameSchema:
    made = {
        "between": lambda bounds: pa.Check.in_range(*bounds),
        "one_of": lambda codes: pa.Check.isin(codes),
        "matches": lambda pattern: pa.Check.str_matches(*pattern),
    }
    checks: dict[str, list[pa.Check]] = defaultdict(list)
    told: dict[str, set[str]] = defaultdict(set)
    for kind, column, arguments in declared:
        told[kind].add(column)
        if kind in made:
            checks[column].append(made[kind](arguments))
    return pa.DataFrameSchema(
        {
            name: pa.Column(dtype, checks[name], nullable=name not in told["not_null"], unique=name in told["unique"])
            for name, dtype in types.items()
        }
    )
