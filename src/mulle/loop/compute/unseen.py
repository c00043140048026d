"""Rows that neither champion nor challenger has seen: by what each row's version and availability prove, or of the log."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from mulle.core.errors import ContractError, TransformError
from mulle.core.records.bundle import InputField
from mulle.core.records.model import ModelVersion
from mulle.kernel.bookkeeping import VERSION
from mulle.kernel.bundle import Predictor
from mulle.kernel.dtypes import INSTANT
from mulle.kernel.rows import cast_inputs, frame_from_rows, raw_inputs
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.evaluation.compare import Side
from mulle.loop.compute.work import KNOWN, SINCE, TIME, Work, joined_with, read_rows
from mulle.loop.rollout.evidence import answered_with_truth, shares_of, truth_of

__all__ = ["Logged", "first_known", "logged_pairs", "unseen"]


@dataclass(frozen=True, slots=True)
class Logged:
    """Rows that the champion answered in production and whose labels came, with the challenger's answers to them.

    Attributes
    ----------
    rows : polars.DataFrame
        As a request carried them.
    truth : numpy.ndarray, shape (n,)
    champion, challenger : Side
    """

    rows: pl.DataFrame
    truth: npt.NDArray[np.generic]
    champion: Side
    challenger: Side


def first_known(work: Work, rows: pl.DataFrame) -> pl.DataFrame:
    """Give when each row's outcome was first there to be trained on.

    Parameters
    ----------
    work : Work
    rows : polars.DataFrame
        Of the run, in the contract's types.

    Returns
    -------
    polars.DataFrame
        ``__since`` (the data version that first had the row with its outcome; 0 where none is found) and ``__known`` (the
        earliest moment at which that outcome was available; null where the dataset has no time). In the order of `rows`.
    """
    dataset = work.model.features.dataset
    version = work.versions[dataset.name]
    inputs = raw_inputs(version.schema, hidden=work.model.hidden, key=dataset.key, time=dataset.time)
    told_by = list(dataset.identity or [f.name for f in inputs])
    # Without spans: a version that a restore left behind may have been trained on as well.
    every = read_version(work.lake, dataset, replace(version, spans=()), superseded=True)
    every = every.filter(pl.col(work.model.target).is_not_null())
    if dataset.time and not rows[TIME].null_count():
        every = every.filter(pl.col(dataset.time) >= rows[TIME].min())
    known = pl.col(dataset.available).min() if dataset.available else pl.lit(None, INSTANT)
    first = every.group_by(told_by).agg(pl.col(VERSION).min().alias(SINCE), known.alias(KNOWN)).collect()
    first = cast_inputs(first, inputs).group_by(told_by).agg(pl.col(SINCE, KNOWN).min())
    found = rows.select(told_by).join(first, on=told_by, how="left", nulls_equal=True, maintain_order="left")
    return found.select(pl.col(SINCE).fill_null(0), KNOWN)


def unseen(work: Work, champion: ModelVersion, rows: pl.DataFrame) -> pl.Series:
    """Tell which rows of the holdout the champion's last fit cannot have seen.

    It took every row of its data version whose outcome was available at its cutoff. What came with a later version, late or
    not, or was not available yet, it has not seen.
    """
    told = rows.select(SINCE, KNOWN) if work.member else first_known(work, rows)
    # Of another dataset that may hold the same rows nothing is known but the time.
    read = champion.data.get(work.model.features.dataset.name)
    later = pl.lit(False) if read is None else pl.col(SINCE) > read
    return told.select(later | (pl.col(KNOWN) > champion.refit_cutoff).fill_null(False)).to_series()


def logged_pairs(work: Work, champion: ModelVersion, predictor: Predictor, challenger: Predictor) -> Logged | None:
    """Give the champion's own logged answers with labels by the run's cutoff, to rows that neither model was fitted on.

    Rows that are older than the champion's last fit, or are among the run's own rows, are left out: so the challenger's last
    fit, which is what would serve, answers them.

    Returns
    -------
    Logged or None
        None when there is none, or the log does not hold what the challenger reads (redacted columns).
    """
    dataset, model = work.model.features.dataset, work.model
    said = answered_with_truth(work.lake, model.name, champion.version, champion.refit_cutoff, work.cutoff)
    if said.is_empty():
        return None
    inputs = challenger.contract.inputs
    try:
        rows = _as_asked(said, inputs, model.name, dataset.time)
        told_by = list(dataset.identity or [f.name for f in inputs if f.required or f.name == dataset.time])
        seen = read_rows(work).select(told_by).unique().with_columns(pl.lit(True).alias("_seen"))
        fresh = (
            rows.select(told_by).join(seen, on=told_by, how="left", nulls_equal=True, maintain_order="left")["_seen"].is_null()
        )
        said, rows = said.filter(fresh), rows.filter(fresh)
        if said.is_empty():
            return None
        answers = challenger.score(challenger.transform(joined_with(work, challenger.features, rows)))
    except (ContractError, TransformError):
        return None
    classes = predictor.contract.classes
    before = Side(truth_of(said["value"], model), shares_of(said["probabilities"], predictor.contract), classes)
    after = Side(np.asarray(answers.values), answers.probabilities, challenger.contract.classes)
    return Logged(rows, truth_of(said["truth"], model), before, after)


def _as_asked(said: pl.DataFrame, inputs: tuple[InputField, ...], model: str, time: str | None) -> pl.DataFrame:
    asked = [orjson.loads(text) for text in said["row"].to_list()]
    if time is not None:
        # A row that was sent without its time was answered as of the moment that the log tells.
        asked = [{**row, time: at} for row, at in zip(asked, said["time"].to_list(), strict=True)]
    return frame_from_rows(asked, inputs, model=model, time=time, now=said["time"][0])
