"""From trials to settings: the best trial, the ensemble that beats it, and the calibration that helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mulle.core.hashing import hash_json
from mulle.core.records.base import Json
from mulle.lifecycle.training.ensemble import Score, calibrate, choose_members, settings_of
from mulle.lifecycle.training.folds import Rows

__all__ = ["choose"]

_LIBRARY = 20
"""Trials that an ensemble is chosen from: the best ones."""

_OF_A_KIND = 3
"""Of one kind of candidate, at most: a search ends among the like of its best, which err together."""

Floats = npt.NDArray[np.float64]


def choose(
    trials: Sequence[Json], rows: Rows, said: Callable[[int], Floats | None], *, most: int, calibrated: bool
) -> tuple[Json, tuple[str, ...]]:
    """Choose what the search's winner is.

    Parameters
    ----------
    trials : sequence of dict
        Those with a score that may win; at least one.
    rows : Rows
    said : callable
        From a trial's number to its answers to all validation rows, shape (m, outputs).
    most : int
        Members of an ensemble, at most.
    calibrated : bool

    Returns
    -------
    settings : dict
    notes : tuple of str
    """
    ranked = sorted(trials, key=lambda t: (t["score"], t["number"]))
    notes: list[str] = []
    members, mean = [_member(ranked[0], 1.0)], None
    if most > 1 or calibrated:
        library = _library(ranked) if most > 1 else ranked[:1]
        heard = [(t, found) for t in library if (found := said(t["number"])) is not None]
        members, mean = _together(heard, rows, most, notes)
    correction = None
    if calibrated and mean is not None:
        correction = calibrate(mean, _codes(rows), seed=rows.seed)
        notes.append("calibrated" if correction else "not calibrated: the correction does not help on rows it was not fitted on")
    return settings_of(members, correction), tuple(notes)


def _library(ranked: Sequence[Json]) -> list[Json]:
    kinds: Counter[str] = Counter()
    library: dict[str, Json] = {}
    for trial in ranked:
        settings = hash_json(_member(trial, 1.0))
        if settings not in library and kinds[trial["candidate"]] < _OF_A_KIND:
            kinds[trial["candidate"]] += 1
            library[settings] = trial
    return list(library.values())[:_LIBRARY]


def _together(heard: Sequence[tuple[Json, Floats]], rows: Rows, most: int, notes: list[str]) -> tuple[list[Json], Floats]:
    score, answers = _score(rows), [a for _, a in heard]
    weights = choose_members(answers, score, most=most, seed=rows.seed)
    mean = np.asarray(sum(w * answers[i] for i, w in weights.items()))
    every = np.arange(len(mean))
    if most > 1:
        single = score(every, answers[0])
        together = f"an ensemble of {len(weights)} scores {score(every, mean):.6g} on validation, the best model {single:.6g}"
        notes.append(together if len(weights) > 1 else "no ensemble beats the best model on validation")
    return [_member(heard[i][0], w) for i, w in weights.items()], mean


def _member(trial: Json, weight: float) -> Json:
    past = {} if trial["train_on"] == "all" else {"train_on": trial["train_on"]}
    return {"candidate": trial["candidate"], "params": trial["params"], **past, "weight": weight}


def _codes(rows: Rows) -> npt.NDArray[np.int64]:
    return np.searchsorted(np.array(rows.classes), rows.truth.astype(str)).astype(np.int64)


def _score(rows: Rows) -> Score:
    # The task's own metrics, on codes instead of text: an ensemble asks a thousand times.
    if rows.task == "regression":
        truth = rows.truth.astype(np.float64)
        return lambda at, said: float(np.mean(np.abs(truth[at] - said[:, 0])))
    codes = _codes(rows)
    least = float(np.finfo(np.float32).eps)
    return lambda at, said: -float(np.mean(np.log(np.maximum(said[np.arange(len(at)), codes[at]], least))))
