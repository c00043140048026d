"""Claim: the checks of a batch cost little more than one pass over it, samples of failing rows included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.claim import Claim, Side, faster_than, within
from benchmarks.side import Work

__all__ = ["CLAIMS", "bare", "differs", "make", "mulle"]

_CODES = {f"c{i}": [f"{letter}{i}" for letter in "ABCDEFGH"] for i in range(4)}
_NUMBERS = [f"x{i}" for i in range(6)]
_WHOLE = [f"n{i}" for i in range(3)]


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``batch.parquet``, 16 columns with a few bad values, and ``checks.json``: 26 of ``[kind, column, arguments]``."""
    random, rows = np.random.default_rng(3), size["rows"]
    columns = {
        "id": random.permutation(rows),
        "at": np.datetime64("2026-01-01", "us") + np.arange(rows),
        **{n: random.normal(size=rows) for n in _NUMBERS},
        **{n: random.integers(0, 1_000, rows) for n in _WHOLE},
        **{n: np.array(codes)[random.integers(0, len(codes), rows)] for n, codes in _CODES.items()},
        "tail": np.char.add("N", random.integers(10_000, 99_999, rows).astype(str)),
    }
    frame = pl.DataFrame({n: pl.Series(n, v.tolist() if v.dtype.kind == "U" else v) for n, v in columns.items()})
    bad = pl.int_range(pl.len()) % 1_000
    frame = frame.with_columns(
        x1=pl.when(bad != 1).then("x1"),
        x4=pl.when(bad != 4).then("x4").otherwise(1e6),
        c3=pl.when(bad != 3).then("c3").otherwise(pl.lit("?")),
        tail=pl.when(bad != 7).then("tail").otherwise(pl.lit("?")),
    )
    frame.write_parquet(folder / "batch.parquet")
    (folder / "checks.json").write_text(json.dumps(_checks()))


def _checks() -> list[tuple[str, str, list]]:
    codes = [("one_of", n, [*values]) for n, values in _CODES.items()]
    patterns = [("matches", n, [f"^[A-H]{n[1:]}$"]) for n in ("c0", "c1", "c2")]
    return [
        ("unique", "id", []),
        *(("not_null", n, []) for n in ("id", "at", "x0", "x1", "x2", "x3", "c0", "tail")),
        *(("between", n, [-8.0, 8.0]) for n in _NUMBERS),
        *(("between", n, [0, 999]) for n in _WHOLE),
        *codes,
        ("matches", "tail", ["^N[0-9]{5}$"]),
        *patterns,
    ]


def mulle(folder: Path) -> Work:
    """Audit the batch as an ingest does: exact counts, and 20 samples of the rows that fail."""
    import mulle as ml
    from mulle.core.clock import instant
    from mulle.lifecycle.data.checks.check import Beside, check_batch

    kinds = {
        "unique": lambda column, _: ml.unique(column),
        "not_null": lambda column, _: ml.not_null(column),
        "between": lambda column, bounds: ml.between(column, *bounds),
        "one_of": ml.one_of,
        "matches": lambda column, pattern: ml.matches(column, *pattern),
    }
    declared = json.loads((folder / "checks.json").read_text())
    batch = ml.Dataset("batch", ml.Files("batch.parquet"), checks=[kinds[k](c, a) for k, c, a in declared])
    rows, now = pl.read_parquet(folder / "batch.parquet"), instant("2026-01-02")

    def keep(results: tuple, path: Path) -> None:
        _keep([r.failed for r in results if r.name != "schema"], path)

    return Work(run=lambda: check_batch(batch, rows.lazy(), Beside(), now=now), keep=keep)


def bare(folder: Path) -> Work:
    """Count with the same masks in one selection, by hand."""
    rows = pl.read_parquet(folder / "batch.parquet")
    masks = {
        "unique": lambda column, _: pl.len() - column.n_unique(),
        "not_null": lambda column, _: column.null_count(),
        "between": lambda column, bounds: (~column.is_between(*bounds)).sum(),
        "one_of": lambda column, codes: (~column.is_in(codes)).sum(),
        "matches": lambda column, pattern: (~column.str.contains(*pattern)).sum(),
    }
    declared = json.loads((folder / "checks.json").read_text())
    counts = [masks[kind](pl.col(column), arguments).alias(str(i)) for i, (kind, column, arguments) in enumerate(declared)]
    return Work(run=lambda: rows.lazy().select(counts).collect().row(0), keep=_keep)


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare the number of failing rows of each check."""
    want, have = (json.loads((folder / f"{name}.json").read_text()) for name in (limit, other))
    kinds = [f"{k}({c})" for k, c, _ in json.loads((folder / "checks.json").read_text())]
    wrong = [f"{kind}: {b}, not {a}" for kind, a, b in zip(kinds, want, have, strict=True) if a != b]
    return "; ".join(wrong)


def _keep(counts: object, path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(counts))


def _peer(name: str, module: str, peer: str, note: str) -> Side:
    return Side(name=name, call=f"benchmarks.peers.{module}:check", peer=peer, note=note)


CLAIMS = (
    Claim(
        name="Checks",
        says="26 checks on {rows} rows of 16 columns in memory, failing rows counted exactly.",
        make="benchmarks.checks:make",
        sizes={"small": {"rows": 10_000}, "full": {"rows": 1_000_000}},
        sides=(
            Side(name="Mulle", call="benchmarks.checks:mulle", note="with 20 samples of each failing check"),
            Side(name="bare Polars", call="benchmarks.checks:bare", note="counts alone, in one selection"),
            _peer("pandera, Polars", "pandera_checks", "pandera", "with every failing value"),
            _peer("pointblank, Polars", "pointblank_checks", "pointblank", "counts alone"),
            _peer("Great Expectations, pandas", "gx_checks", "great-expectations", "counts, with up to 20 samples"),
        ),
        same=differs,
        targets=(
            within("bare Polars", 1.5),
            faster_than("pandera", 2, called="pandera"),
            faster_than("pointblank", 4, called="pointblank"),
            faster_than("great-expectations", 4, called="Great Expectations"),
        ),
    ),
)
