"""The rows of a search, split and encoded once: each fold knows nothing but its own training rows; kept in files for workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mulle.core.records.base import from_json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.metrics import class_text
from mulle.lifecycle.training.fit import latest
from mulle.lifecycle.training.split import Split

__all__ = ["Fold", "Narrow", "Rows", "open_rows", "prepare_rows", "save_rows"]

Matrix = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]
Narrow = Callable[[Matrix, Array, Sequence[FeatureSpec]], Sequence[str]]
"""From encoded rows, their targets and specs to the names of the features that are kept."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Encoded rows to fit on and to score on.

    Attributes
    ----------
    specs : tuple of FeatureSpec
        With the categories of the fold's own training rows; all others are coded as never seen.
    """

    train: Matrix
    train_target: Array
    valid: Matrix
    valid_target: Array
    specs: tuple[FeatureSpec, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """What trials are run on.

    Attributes
    ----------
    folds : dict
        The folds by the window that is trained on (``all`` or a duration); windows differ in their training rows alone.
    classes : tuple of str
        Of all rows, sorted; empty for regression.
    """

    folds: dict[str, tuple[Fold, ...]]
    classes: tuple[str, ...]
    task: str
    seed: int

    @property
    def truth(self) -> Array:
        """The targets of all validation rows, fold after fold."""
        return np.concatenate([np.asarray(f.valid_target) for f in next(iter(self.folds.values()))])

    @property
    def size(self) -> int:
        """The most rows that anything is fitted on: what the bounds of a search space go by."""
        return max(len(fold.train) for folds in self.folds.values() for fold in folds)


def prepare_rows(
    matrix: Matrix, target: Array, order: Array | None, splits: Sequence[Split], *, task: str, specs: Sequence[FeatureSpec],
    windows: Sequence[str], seed: int, most: int, narrow: Narrow | None = None,
) -> Rows:  # fmt: skip
    """Split and encode.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, k)
    target : numpy.ndarray, shape (n,)
    order : numpy.ndarray of int64, shape (n,), or None
        Times in microseconds; windows need them.
    splits : sequence of (train, validation)
        Row positions.
    task : str
    specs : sequence of FeatureSpec, length k
    windows : sequence of str
        ``all`` or durations.
    seed : int
    most : int
        Rows of a fold, at most; a seeded sample of more, four fifths of it to fit on.
    narrow : callable, optional
        Chooses the features of each fold from its training rows.

    Returns
    -------
    Rows
    """
    target = np.asarray(target, dtype=np.float64) if task == "regression" else class_text(target).astype(str)
    folds: dict[str, tuple[Fold, ...]] = {}
    for label in windows:
        made = []
        for train, valid in splits:
            kept = train[latest(None if order is None else order[train], label)]
            fit_on = _sampled(kept, most - most // 5, seed)
            score_on = _sampled(valid, most // 5, seed)
            fold = _fold(matrix, target, fit_on, score_on, specs)
            made.append(fold if narrow is None else _narrowed(fold, narrow))
        folds[label] = tuple(made)
    classes = () if task == "regression" else tuple(str(c) for c in np.unique(target))
    return Rows(folds, classes, task, seed)


def _sampled(rows: npt.NDArray[np.int64], most: int, seed: int) -> npt.NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _fold(
    matrix: Matrix, target: Array, fit_on: npt.NDArray[np.int64], score_on: npt.NDArray[np.int64], specs: Sequence[FeatureSpec]
) -> Fold:
    train, valid = matrix[fit_on], matrix[score_on]
    own = []
    for column, spec in enumerate(specs):
        if spec.kind == "category" and spec.categories:
            codes = train[:, column]
            present = np.unique(codes[codes >= 0]).astype(np.int64)
            if len(present) < len(spec.categories):
                for part in (train, valid):
                    part[:, column] = _renumbered(part[:, column], present, len(spec.categories))
                spec = replace(spec, categories=tuple(spec.categories[i] for i in present))
        own.append(spec)
    return Fold(train, target[fit_on], valid, target[score_on], tuple(own))


def _narrowed(fold: Fold, narrow: Narrow) -> Fold:
    names = set(narrow(fold.train, fold.train_target, fold.specs))
    kept = [i for i, spec in enumerate(fold.specs) if spec.name in names]
    return replace(fold, train=fold.train[:, kept], valid=fold.valid[:, kept], specs=tuple(fold.specs[i] for i in kept))


def _renumbered(codes: npt.NDArray[np.float32], present: npt.NDArray[np.int64], categories: int) -> npt.NDArray[np.float32]:
    book = np.full(categories, -1.0, dtype=np.float32)
    book[present] = np.arange(len(present))
    known = codes >= 0
    codes = codes.copy()
    codes[known] = book[codes[known].astype(np.int64)]
    return codes


_PARTS = ("train", "train_target", "valid", "valid_target")


def save_rows(rows: Rows, folder: Path) -> None:
    """Write rows as files that workers map into their memory: no worker holds a copy."""
    for label, folds in rows.folds.items():
        for number, fold in enumerate(folds):
            for part in _PARTS:
                np.save(folder / f"{label}.{number}.{part}.npy", getattr(fold, part))
    about = {
        "folds": {label: [to_json(f.specs) for f in folds] for label, folds in rows.folds.items()},
        "classes": rows.classes,
        "task": rows.task,
        "seed": rows.seed,
    }
    (folder / "rows.json").write_text(json.dumps(about))


@lru_cache(maxsize=1)
def open_rows(folder: Path) -> Rows:
    """Map the rows of a folder."""
    about = json.loads((folder / "rows.json").read_text())
    folds = {}
    for label, several in about["folds"].items():
        made = []
        for number, specs in enumerate(several):
            parts = {p: np.asarray(np.load(folder / f"{label}.{number}.{p}.npy", mmap_mode="r")) for p in _PARTS}
            made.append(Fold(**parts, specs=tuple(from_json(FeatureSpec, s) for s in specs)))
        folds[label] = tuple(made)
    return Rows(folds, tuple(about["classes"]), about["task"], about["seed"])
