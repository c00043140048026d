"""Answering a whole frame at once: what the server says row by row, with the rows apart that the feature function cannot take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mulle.core.errors import TransformError
from mulle.kernel.bundle import Predictor, Scores

__all__ = ["Answered", "answer_frame"]

_MOST = 1_000
"""A function that fails on more rows of one frame than this is at fault itself."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to a frame.

    Attributes
    ----------
    frame : polars.DataFrame
        ``value``, and ``probability.CLASS`` of classifiers; one row per answered row.
    kept : list of int
        Positions of the answered rows.
    failed : list of (int, str)
        The others, with the feature function's reason.
    """

    frame: pl.DataFrame
    kept: list[int]
    failed: list[tuple[int, str]]


def answer_frame(predictor: Predictor, joined: pl.DataFrame) -> Answered:
    """Answer rows that carry their joined columns.

    Raises
    ------
    TransformError
        When the feature function fails on more than a thousand rows: then it is not the rows' fault.
    """
    failed: list[tuple[int, str]] = []
    parts = _parts(predictor, joined, 0, failed)
    if not failed:
        features, kept = parts[0][1], list(range(joined.height))
    else:
        kept = [row for start, part in parts for row in range(start, start + part.height)]
        features = pl.concat([part for _, part in parts], how="vertical_relaxed") if parts else joined.head(0)
    scores = predictor.score(features) if kept else Scores([], None, {})
    return Answered(_framed(predictor, scores), kept, failed)


def _parts(predictor: Predictor, rows: pl.DataFrame, start: int, failed: list[tuple[int, str]]) -> list[tuple[int, pl.DataFrame]]:
    try:
        return [(start, predictor.transform(rows))]
    except TransformError as error:
        if rows.height == 1:
            failed.append((start, str(error.facts.get("cause") or error.detail)))
            if len(failed) > _MOST:
                raise
            return []
        if rows.is_empty():
            raise
    half = rows.height // 2
    return [*_parts(predictor, rows[:half], start, failed), *_parts(predictor, rows[half:], start + half, failed)]


def _framed(predictor: Predictor, scores: Scores) -> pl.DataFrame:
    contract = predictor.contract
    dtype = pl.Float64() if contract.task == "regression" else pl.String()
    columns = [pl.Series("value", scores.values, dtype=dtype)]
    chances = scores.probabilities if scores.probabilities is not None else np.zeros((0, len(contract.classes)))
    columns += [pl.Series(f"probability.{name}", chances[:, i]) for i, name in enumerate(contract.classes)]
    return pl.DataFrame(columns)
