"""Claims: drift of a window is told from histograms, in a fraction of a comparison of rows, in memory that does not grow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.claim import OURS, Claim, Outcome, Side, Target, faster_than, memory_under
from benchmarks.side import Work

__all__ = ["CLAIMS", "differs", "known", "make", "make_log", "make_wide", "mulle", "mulle_wide", "mulle_window", "numpy"]

_SHIFT = 0.5
"""Standard deviations by which every fifth number moves; every fifth category gets another favourite."""


def make(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``reference.parquet`` and ``current.parquet``: nine of ten columns are numbers, the others categories."""
    random = np.random.default_rng(7)
    _frame(random, size["rows"], size["columns"], 0.0).write_parquet(folder / "reference.parquet")
    _frame(random, size["current"], size["columns"], _SHIFT).write_parquet(folder / "current.parquet")
    (folder / "drifted.json").write_text(json.dumps(_drifted(size["columns"])))
    reference = pl.read_parquet(folder / "reference.parquet")
    (folder / "stored.json").write_text(json.dumps(_stored(reference)))


def _names(columns: int) -> list[str]:
    return [f"c{i}" if i % 10 == 9 else f"x{i}" for i in range(columns)]


def _drifted(columns: int) -> list[str]:
    return sorted(name for i, name in enumerate(_names(columns)) if i % 5 == 4)


def _frame(random: np.random.Generator, rows: int, columns: int, shift: float) -> pl.DataFrame:
    found = {}
    for i, name in enumerate(_names(columns)):
        moved = shift if i % 5 == 4 else 0.0
        if name.startswith("c"):
            shares = np.array([0.4, 0.3, 0.2, 0.1]) + moved * np.array([-0.4, -0.2, 0.2, 0.4])
            found[name] = pl.Series(random.choice(4, rows, p=shares)).replace_strict([0, 1, 2, 3], list("abcd"))
        else:
            found[name] = pl.Series(random.normal(moved, 1.0, rows))
    return pl.DataFrame(found)


def _specs(columns: list[str]) -> list:
    from mulle.core.records.bundle import FeatureSpec

    return [FeatureSpec(name=c, kind="category" if c.startswith("c") else "number") for c in columns]


def _stored(reference: pl.DataFrame) -> dict:
    from mulle.kernel.histograms import build_reference

    return build_reference(reference, _specs(reference.columns), reference["x0"])


def mulle(folder: Path) -> Work:
    """Count the current rows into the bundle's bins and judge every signal of every column, as a window does."""
    import mulle as ml
    from mulle.kernel.histograms import count, count_values
    from mulle.lifecycle.monitoring.drift import Seen, signals_of

    stored = json.loads((folder / "stored.json").read_text())
    current, monitor = pl.read_parquet(folder / "current.parquet"), ml.Monitor(drift=ml.psi(0.1))

    def run() -> list[str]:
        counted = count(current, stored)
        counted["prediction"] = count_values(current["x0"], stored["prediction"])
        return _alarms(signals_of(monitor, Seen(counted=counted, unseen={}, refused={}), stored))

    return Work(run=run, keep=_keep)


def numpy(folder: Path) -> Work:
    """Compute the one index that alarms by hand, from the same stored counts."""
    stored = json.loads((folder / "stored.json").read_text())["features"]
    current = pl.read_parquet(folder / "current.parquet")

    def share(counts: list[int]) -> np.ndarray:
        return np.maximum(np.asarray(counts, dtype=np.float64) / max(1, sum(counts)), 1e-6)

    def run() -> list[str]:
        found = []
        for name, entry in stored.items():
            if entry["kind"] == "number":
                values = current[name].to_numpy().astype(np.float32)
                have = np.bincount(np.searchsorted(np.float32(entry["edges"]), values), minlength=len(entry["counts"])).tolist()
                want = entry["counts"]
            else:
                tally = dict(current[name].value_counts().rows())
                have, want = [tally.get(v, 0) for v in entry["counts"]], list(entry["counts"].values())
            p, q = share(want), share(have)
            if float(np.sum((q - p) * np.log(q / p))) > 0.1:
                found.append(name)
        return sorted(found)

    return Work(run=run, keep=_keep)


def make_wide(folder: Path, size: Mapping[str, int]) -> None:
    """Write what the rows are like: they are made chunk by chunk while they are read, and never stored."""
    (folder / "size.json").write_text(json.dumps(dict(size)))
    (folder / "drifted.json").write_text(json.dumps([f"x{i}" for i in range(size["columns"]) if i % 20 == 0]))


def mulle_wide(folder: Path) -> Work:
    """Shape the bins by the first chunk of the reference, count all the others into them, then the current rows."""
    import mulle as ml
    from mulle.kernel.histograms import count, merge
    from mulle.lifecycle.monitoring.drift import Seen, signals_of

    size = json.loads((folder / "size.json").read_text())

    def run() -> list[str]:
        reference = _chunks(size, size["rows"], 0.0, 1)
        stored = _stored(next(reference))
        stored = reduce(merge, (count(chunk, stored) for chunk in reference), stored)
        current = reduce(merge, (count(chunk, stored) for chunk in _chunks(size, size["current"], 0.2, 2)))
        seen = Seen(counted=current, unseen={}, refused={})
        return _alarms(signals_of(ml.Monitor(drift=ml.wasserstein(0.1)), seen, stored))

    return Work(run=run, keep=_keep)


def _chunks(size: Mapping[str, int], rows: int, shift: float, seed: int) -> Iterator[pl.DataFrame]:
    random = np.random.default_rng(seed)
    moved = np.where(np.arange(size["columns"]) % 20 == 0, shift, 0.0).astype(np.float32)
    for start in range(0, rows, size["chunk"]):
        drawn = random.standard_normal((size["columns"], min(size["chunk"], rows - start)), dtype=np.float32) + moved[:, None]
        yield pl.DataFrame({f"x{i}": column for i, column in enumerate(drawn)})


def known(folder: Path) -> Work:
    """Say what was made to drift."""
    return Work(run=lambda: json.loads((folder / "drifted.json").read_text()), keep=_keep)


def make_log(folder: Path, size: Mapping[str, int]) -> None:
    """Write ``log.parquet`` and ``labels.parquet`` as the lake has them, and the reference of the bundle that answered."""
    random = np.random.default_rng(11)
    features = _frame(random, size["rows"], size["columns"], _SHIFT)
    reference = _frame(random, 50_000, size["columns"], 0.0)
    (folder / "stored.json").write_text(json.dumps(_stored(reference)))
    (folder / "drifted.json").write_text(json.dumps(_drifted(size["columns"])))
    n = np.arange(size["rows"])
    at = pl.Series(n * 800_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    ids = [f"p{i:07d}" for i in n]
    log = {
        "id": ids, "request": ids, "version": np.ones(len(n), dtype=np.int64), "route": ["champion"] * len(n),
        "key": [f'{{"id":{i}}}' for i in n], "time": at, "features": [json.dumps(row) for row in features.iter_rows(named=True)],
        "value": features["x0"].cast(pl.String), "probabilities": ["{}"] * len(n), "unseen": ["[]"] * len(n),
    }  # fmt: skip
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    labels = {"prediction_id": ids, "key": ["{}"] * len(n), "value": (features["x0"] + 1).cast(pl.String), "known_at": at}
    blank = pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("time")
    pl.DataFrame(labels).with_columns(blank).write_parquet(folder / "labels.parquet")


def mulle_window(folder: Path) -> Work:
    """Judge one window from the rows of the log and their late labels: every signal, and the performance."""
    import mulle as ml
    from mulle.core.clock import EPOCH
    from mulle.lifecycle.monitoring.window import Held, judge_window

    stored = json.loads((folder / "stored.json").read_text())
    log, labels = pl.read_parquet(folder / "log.parquet"), pl.read_parquet(folder / "labels.parquet")
    rows = ml.Dataset("rows", ml.Files("rows.parquet"), key="id", time="at", outcome=["y"])
    shape = ml.features(rows)(lambda frame: frame)
    watched = ml.Monitor(drift=ml.psi(0.1), performance=ml.at_most("mae", 2))
    model = ml.Model("m", features=shape, target="y", task="regression", monitor=watched)
    held = Held(reference=stored, specs=_specs(list(stored["features"])), bundle="b")
    end = EPOCH + timedelta(days=1)

    def run() -> list[str]:
        window = judge_window(
            model, predictions=log, labels=labels, held=held, start=EPOCH, end=end, now=end + timedelta(days=1)
        )  # fmt: skip
        return _alarms(window.signals)

    return Work(run=run, keep=_keep)


def differs(folder: Path, limit: str, other: str) -> str:
    """Compare the columns that are said to drift."""
    want, have = (set(json.loads((folder / f"{name}.json").read_text())) for name in (limit, other))
    wrong = {"missed": want - have, "false": have - want}
    return "; ".join(f"{len(part)} {word} ({', '.join(sorted(part)[:3])})" for word, part in wrong.items() if part)


def _alarms(signals: tuple) -> list[str]:
    from mulle.lifecycle.monitoring.drift import PREDICTION

    return sorted({s.feature for s in signals if s.verdict == "alarm"} - {PREDICTION})


def _keep(drifted: object, path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(drifted))


def _seconds(outcomes: Mapping[str, Outcome]) -> float | None:
    return outcomes[OURS].best if OURS in outcomes else None


_TRUTH = Side(name="what was made to drift", call="benchmarks.drift:known", repeat=1)

CLAIMS = (
    Claim(
        name="Drift",
        says="drift of {current} current rows in {columns} columns against {rows} of reference.",
        make="benchmarks.drift:make",
        sizes={
            "small": {"rows": 20_000, "current": 5_000, "columns": 20},
            "full": {"rows": 300_000, "current": 30_000, "columns": 100},
        },
        sides=(
            Side(name=OURS, call="benchmarks.drift:mulle", note="all signals, against the histograms that the bundle keeps"),
            Side(name="numpy, stored reference", call="benchmarks.drift:numpy", note="one index"),
            Side(name="Evidently", call="benchmarks.peers.evidently_drift:report", peer="evidently", repeat=1, note="preset"),
            Side(name="Evidently, PSI", call="benchmarks.peers.evidently_drift:psi", peer="evidently", repeat=1,
                 note="preset with its PSI"),
        ),
        same=differs,
        targets=(faster_than("evidently", 100, called="Evidently"),),
    ),
    Claim(
        name="Drift, wide",
        says="drift of {current} rows in {columns} columns against {rows}, made in chunks and counted.",
        make="benchmarks.drift:make_wide",
        sizes={
            "small": {"rows": 20_000, "current": 10_000, "columns": 40, "chunk": 5_000},
            "full": {"rows": 3_000_000, "current": 300_000, "columns": 1_000, "chunk": 30_000},
        },
        sides=(Side(name=OURS, call="benchmarks.drift:mulle_wide", repeat=1, note="making the rows included"), _TRUTH),
        same=differs,
        targets=(memory_under(2),),
    ),
    Claim(
        name="A window",
        says="a window of {rows} predictions of {columns} features, judged from the log and its labels.",
        make="benchmarks.drift:make_log",
        sizes={"small": {"rows": 2_000, "columns": 10}, "full": {"rows": 100_000, "columns": 50}},
        sides=(Side(name=OURS, call="benchmarks.drift:mulle_window", note="every signal and the performance"), _TRUTH),
        same=differs,
        targets=(Target(says="under 1 s", bound=1.0, at_least=False, figure=_seconds),),
    ),
)  # fmt: skip
