"""The tables that searches are compared on: what scikit-learn brings, some that are made, and those of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

__all__ = ["TARGET", "Parted", "Table", "bundled", "classic", "made", "part"]

TARGET = "target"
_TEST = 0.25
_SPLIT_SEED = 20

_BUNDLED = {
    "iris": "multiclass",
    "wine": "multiclass",
    "breast_cancer": "binary",
    "digits": "multiclass",
    "diabetes": "regression",
}

_CLASSIC = {
    "abalone": ("regression", "Class_Rings"),
    "california_housing": ("regression", "medianHouseValue"),
    "credit_g": ("binary", "class"),
    "diamonds": ("regression", "price"),
    "kr_vs_kp": ("binary", "class"),
    "phoneme": ("binary", "Class"),
    "vehicle": ("multiclass", "Class"),
    "wine_quality": ("regression", "quality"),
}
"""Task and target of the tables that ``--data`` may bring, one Parquet file each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table to learn from.

    Attributes
    ----------
    name : str
    origin : {"bundled", "made", "data"}
    task : {"regression", "binary", "multiclass"}
    frame : callable
        Loads it: features ``f0`` to ``fk``, numbers or text, and the target (float64, or classes as text).
    """

    name: str
    origin: str
    task: str
    frame: Callable[[], pl.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """A table's rows to learn from, and the others that no side is told the truth of.

    Attributes
    ----------
    classes : tuple of str
        In the order in which probabilities are asked for; empty for numbers.
    """

    table: Table
    train: pl.DataFrame
    test: pl.DataFrame
    truth: np.ndarray
    classes: tuple[str, ...]

    @property
    def hash(self) -> str:
        """The rows on both sides, and what is to be found."""
        parts = (*(f.write_csv() for f in (self.train, self.test)), "\n".join(map(str, self.truth.tolist())))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def bundled() -> tuple[Table, ...]:
    """Name the tables that scikit-learn brings."""

    def load(name: str) -> pl.DataFrame:
        import sklearn.datasets as there

        return _frame(*getattr(there, f"load_{name}")(return_X_y=True), number=_BUNDLED[name] == "regression")

    return tuple(Table(name=n, origin="bundled", task=t, frame=lambda n=n: load(n)) for n, t in _BUNDLED.items())


def made() -> tuple[Table, ...]:
    """Name the tables that are made, seeded."""

    def friedman() -> pl.DataFrame:
        from sklearn.datasets import make_friedman1

        return _frame(*make_friedman1(n_samples=2_000, n_features=10, noise=1.0, random_state=1), number=True)

    def noisy(rows: int, classes: int) -> pl.DataFrame:
        from sklearn.datasets import make_classification

        sizes = {"n_samples": rows, "n_features": 20, "n_informative": 8, "n_redundant": 4, "n_classes": classes}
        return _frame(*make_classification(**sizes, flip_y=0.1, random_state=2), number=False)

    return (
        Table(name="friedman1", origin="made", task="regression", frame=friedman),
        Table(name="noisy_binary", origin="made", task="binary", frame=lambda: noisy(4_000, 2)),
        Table(name="noisy_classes", origin="made", task="multiclass", frame=lambda: noisy(4_000, 4)),
    )


def classic(folder: Path) -> tuple[Table, ...]:
    """Name the tables of a folder, or of its ``classic/``, that we know the target of.

    Raises
    ------
    FileNotFoundError
        When it holds none.
    """
    paths = {n: p for n in _CLASSIC for p in (folder / f"{n}.parquet", folder / "classic" / f"{n}.parquet") if p.exists()}
    if not paths:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(f'{n}.parquet' for n in _CLASSIC)}")

    def load(name: str) -> pl.DataFrame:
        task, target = _CLASSIC[name]
        rows = pl.read_parquet(paths[name]).filter(pl.col(target).is_not_null())
        values = rows[target].cast(pl.Float64 if task == "regression" else pl.String).alias(TARGET)
        features = rows.drop(target).with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
        return features.rename({c: f"f{i}" for i, c in enumerate(features.columns)}).with_columns(values)

    return tuple(Table(name=n, origin="data", task=_CLASSIC[n][0], frame=lambda n=n: load(n)) for n in paths)


def part(table: Table, rows: int | None = None) -> Parted:
    """Part a table's rows once and for all: a quarter, each class with its share, is for the test.

    Parameters
    ----------
    table : Table
    rows : int, optional
        Take so many of its rows only.
    """
    frame = table.frame()
    if rows is not None and rows < frame.height:
        frame = frame.sample(rows, seed=_SPLIT_SEED)
    last = _last(frame[TARGET].to_list() if table.task != "regression" else [0] * frame.height)
    train, test = frame.filter(~pl.Series(last)), frame.filter(pl.Series(last))
    classes = () if table.task == "regression" else tuple(sorted(set(train[TARGET].to_list())))
    return Parted(table=table, train=train, test=test.drop(TARGET), truth=test[TARGET].to_numpy(), classes=classes)


def _last(strata: Sequence[object]) -> np.ndarray:
    random, last, groups = np.random.default_rng(_SPLIT_SEED), np.zeros(len(strata), dtype=bool), {}
    for at, value in enumerate(strata):
        groups.setdefault(value, []).append(at)
    for _, positions in sorted(groups.items(), key=lambda g: str(g[0])):
        last[random.permutation(positions)[: round(len(positions) * _TEST)]] = True
    return last


def _frame(features: Any, target: Any, *, number: bool) -> pl.DataFrame:
    values = pl.Series(TARGET, target, dtype=pl.Float64) if number else pl.Series(TARGET, [str(t) for t in target.tolist()])
    return pl.DataFrame({f"f{i}": column for i, column in enumerate(features.T)}).with_columns(values)
