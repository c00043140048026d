"""Rows to the graph's matrix by hand, with nothing checked: what the limit does, and peers that are given the graph.

Peers read this file in their own environments, so it needs NumPy and ONNX Runtime alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

__all__ = ["Graph"]

Row = dict[str, Any]
Rows = Sequence[Row]

_TERM = re.compile(r"\w{2,}")


class Graph:
    """The compiled model with the fewest steps around it.

    Parameters
    ----------
    folder : Path
        As `benchmarks.serving_project` leaves it.
    """

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "told.json").read_text())
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._run = ort.InferenceSession(told["graph"], options, providers=["CPUExecutionProvider"]).run
        self._encode = _encoder(folder, told["features"])

    def score(self, rows: Rows) -> list[float]:
        """Answer rows."""
        encode = self._encode
        matrix = np.array([encode(row) for row in rows], dtype=np.float32)
        answers: list[float] = self._run(["answer"], {"features": matrix})[0].ravel().tolist()
        return answers


def _encoder(folder: Path, features: list[dict[str, Any]]) -> Callable[[Row], list[float]]:
    if features[0]["kind"] == "term":
        places = {f["part"]: i for i, f in enumerate(features)}
        return partial(_terms, places, [f["weight"] for f in features])
    if (folder / "joined.json").exists():
        joined = json.loads((folder / "joined.json").read_text())
        known = {k: [nan if v is None else v for v in values] for k, values in joined["by_shop"].items()}
        plain = [f["name"] for f in features if f["name"] not in joined["columns"]]
        return partial(_looked_up, known, plain)
    plain = [f["name"] for f in features if f["kind"] == "number" and f["name"] not in ("hour", "weekday")]
    books = [(f["name"], {c: float(i) for i, c in enumerate(f["categories"])}) for f in features if f["kind"] == "category"]
    return partial(_mixed, plain, books)


def _mixed(plain: list[str], books: list[tuple[str, dict[str, float]]], row: Row) -> list[float]:
    at = datetime.fromisoformat(row["at"])
    numbers = [nan if row[n] is None else row[n] for n in plain]
    codes = [book.get(row[n], -1.0) for n, book in books]
    return [*numbers, *codes, at.hour, at.isoweekday()]


def _looked_up(known: dict[str, list[float]], plain: list[str], row: Row) -> list[float]:
    return [*(nan if row[n] is None else row[n] for n in plain), *known[row["shop"]]]


def _terms(places: dict[str, int], weights: list[float], row: Row) -> list[float]:
    found = [0.0] * len(weights)
    for term in _TERM.findall(row["text"].lower()):
        place = places.get(term)
        if place is not None:
            found[place] += weights[place]
    length = sqrt(sum(v * v for v in found)) or 1.0
    return [v / length for v in found]
