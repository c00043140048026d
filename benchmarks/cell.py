"""What a side of a study is given and what it leaves: a task and its files, predictions and the settings it chose.

Peers read this file in their own environments, so it needs the standard library and NumPy alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Task", "given", "hash_of", "leave"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be learned, and by what.

    Attributes
    ----------
    kind : {"regression", "binary", "multiclass"}
    target : str
    classes : tuple of str
        In the order in which probabilities are asked for; empty for numbers.
    seconds : float
        By the clock, for all that is done with the rows until a model is there that answers.
    cores : int
    seed : int
    """

    kind: str
    target: str
    classes: tuple[str, ...]
    seconds: float
    cores: int
    seed: int

    def write(self, folder: Path) -> None:
        """Put the task beside ``train.parquet`` and ``test.parquet``."""
        (folder / "task.json").write_text(json.dumps(asdict(self)))


def given(folder: Path) -> Task:
    """Read what is to be done."""
    told = json.loads((folder / "task.json").read_text())
    return Task(**{**told, "classes": tuple(told["classes"])})


def leave(folder: Path, path: Path, predicted: Any, settings: Mapping[str, object], found: str) -> None:
    """Leave the answers to the rows of ``test.parquet``.

    Parameters
    ----------
    folder : Path
        What was given.
    path : Path
        Without ending.
    predicted : array of float, shape (n,) or (n, classes)
        Numbers, or the probability of each class in the task's order.
    settings : mapping
        What the library was called with.
    found : str
        What it chose, in a few words.
    """
    import numpy as np

    np.save(path.with_suffix(".npy"), np.asarray(predicted, dtype=np.float64))
    told = {"train": hash_of(folder / "train.parquet"), "test": hash_of(folder / "test.parquet")}
    path.with_suffix(".left").write_text(json.dumps({**told, "settings": dict(settings), "found": found[:300]}))


def hash_of(path: Path) -> str:
    """Hash a file as a side read it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
