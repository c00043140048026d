"""Splitting rows: the holdout for the last word, and the folds that the search scores on."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.training import Holdout, Validation
from mulle.core.errors import DataError

__all__ = ["LEAST_ROWS", "Split", "group_codes", "split_folds", "split_rows", "split_validation"]

LEAST_ROWS = 20
"""Fewer rows are not trained on."""

Index = npt.NDArray[np.int64]
Split = tuple[Index, Index]
"""Positions of the rows to train on and of those to score on, both ascending."""


def split_rows(rows: pl.DataFrame, *, time: str | None, holdout: Holdout, seed: int) -> tuple[Index, Index]:
    """Split rows into training and holdout.

    Parameters
    ----------
    rows : polars.DataFrame
    time : str or None
        The column that orders rows.
    holdout : Holdout
        With a span and a time, the rows later than the last time minus the span; with `by`, groups of about the share;
        else a random share.
    seed : int
        Of the random share.

    Returns
    -------
    train, holdout : numpy.ndarray of int64
        Row positions, ascending; together every row once.

    Raises
    ------
    DataError
        When there are fewer than `LEAST_ROWS` rows, a time is null, or one side would have too few rows.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> from mulle.core.declare.training import holdout
    >>> days = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(30)]
    >>> train, last = split_rows(pl.DataFrame({"at": days}), time="at", holdout=holdout("7d"), seed=0)
    >>> len(train), last.tolist()
    (23, [23, 24, 25, 26, 27, 28, 29])
    """
    if rows.height < LEAST_ROWS:
        raise _too_few(rows.height)
    if holdout.by:
        late = _grouped(group_codes(rows, holdout.by), holdout.share, seed)
    elif holdout.span is not None and time is not None:
        late = _late(rows[time], holdout)
    else:
        late = _random(rows.height, holdout.share, seed)
    train, last = np.flatnonzero(~late), np.flatnonzero(late)
    if len(train) < LEAST_ROWS or not len(last):
        raise DataError(
            f"the split leaves {len(train)} rows to train on and {len(last)} in the holdout, of {rows.height}",
            next="shorten the holdout (split=ml.holdout(...)) or bring more rows",
            train=len(train),
            holdout=len(last),
        )
    return train, last


def split_validation(n: int, order: npt.NDArray[np.generic] | None, *, seed: int, share: float = 0.2) -> tuple[Index, Index]:
    """Split training rows once more: the latest share by `order`, else a random share, is for scoring trials.

    Parameters
    ----------
    n : int
    order : numpy.ndarray, shape (n,), or None
        Times or anything that sorts; rows of one instant stay on one side.
    seed : int
    share : float
        Of the rows, about.

    Returns
    -------
    train, validation : numpy.ndarray of int64
        Row positions, ascending.

    Raises
    ------
    DataError
        When there are fewer than `LEAST_ROWS` rows.

    Examples
    --------
    >>> split_validation(20, np.arange(20), seed=0)[1].tolist()
    [16, 17, 18, 19]
    """
    if n < LEAST_ROWS:
        raise _too_few(n)
    late = _random(n, share, seed)
    if order is not None:
        cut = np.sort(order)[n - max(1, round(n * share))]
        by_time = np.asarray(order >= cut, dtype=bool)
        # When most rows share the last instant, time cannot split them and the random share stands.
        late = by_time if by_time.sum() <= n * max(0.5, share) else late
    return np.flatnonzero(~late), np.flatnonzero(late)


def split_folds(
    n: int,
    order: npt.NDArray[np.generic] | None,
    validation: Validation | None,
    *,
    strata: npt.NDArray[np.generic] | None = None,
    groups: Index | None = None,
    span: float | None = None,
    seed: int,
) -> list[Split]:
    """Split training rows into the declared folds; without a declaration into the one of `split_validation`.

    Parameters
    ----------
    n : int
    order : numpy.ndarray, shape (n,), or None
        Times or anything that sorts; folds by time need it.
    validation : Validation or None
    strata : numpy.ndarray, shape (n,), optional
        The target, for stratified folds.
    groups : numpy.ndarray of int, shape (n,), optional
        A code for each row's group, for folds by group.
    span : float, optional
        What a sliding fold is trained on, in the unit of `order`.
    seed : int

    Returns
    -------
    list of (train, validation)
        Row positions, ascending. By time, block i of the folds + 1 blocks is scored by a model of the blocks before
        it (Hyndman and Athanasopoulos 2021, Forecasting: Principles and Practice, section 5.10); rows of one instant
        stay on one side. Else each row is in exactly one validation part.

    Raises
    ------
    DataError
        When there are too few rows, times or groups for the folds.

    Examples
    --------
    >>> from mulle.core.declare.training import expanding
    >>> [(len(train), int(valid[0]), int(valid[-1])) for train, valid in split_folds(60, np.arange(60), expanding(2), seed=0)]
    [(20, 20, 39), (40, 40, 59)]
    """
    if validation is None:
        return [split_validation(n, order, seed=seed)]
    if n < LEAST_ROWS:
        raise _too_few(n)
    if validation.kind in ("expanding", "sliding"):
        found = _blocks(order, validation.folds, span if validation.kind == "sliding" else None)
    else:
        fold = _fold_of(n, validation, strata, groups, seed)
        found = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(validation.folds)]
    usable = [(train, valid) for train, valid in found if len(train) >= LEAST_ROWS and len(valid)]
    if len(usable) < 2:
        raise DataError(
            f"{n} rows cannot be split into {validation.folds} folds ({validation.kind})",
            next="ask for fewer folds or bring more rows, times or groups",
            folds=len(usable),
        )
    return usable


def group_codes(rows: pl.DataFrame, by: Sequence[str]) -> Index:
    """Number the groups that several columns' values name together; nulls are a group of their own.

    Raises
    ------
    DataError
        When a column is not there.

    Examples
    --------
    >>> group_codes(pl.DataFrame({"c": ["b", "a", None, "b"]}), ["c"]).tolist()
    [0, 1, 2, 0]
    """
    absent = [name for name in by if name not in rows.columns]
    if absent:
        raise DataError(
            f"there is no column '{absent[0]}' to group by",
            next=f"name a raw column of the dataset: {', '.join(rows.columns[:20])}",
            column=absent[0],
        )
    codes = rows.select((pl.struct(*by).rank("dense") - 1).cast(pl.Int64).alias("code"))["code"].to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _blocks(order: npt.NDArray[np.generic] | None, folds: int, span: float | None) -> list[Split]:
    if order is None:
        raise DataError("folds by time need a time on every row", next="declare the dataset's time, or write ml.kfold(5)")
    n = len(order)
    cuts = np.sort(order)[[round(i * n / (folds + 1)) for i in range(1, folds + 1)]]
    found = []
    for i, cut in enumerate(cuts):
        valid = (order >= cut) & (order < cuts[i + 1] if i + 1 < folds else True)
        train = order < cut
        if span is not None and train.any():
            train &= order > order[train].max() - span
        found.append((np.flatnonzero(train), np.flatnonzero(valid)))
    return found


def _fold_of(n: int, validation: Validation, strata: npt.NDArray[np.generic] | None, groups: Index | None, seed: int) -> Index:
    random = np.random.default_rng(seed)
    if validation.kind == "groups":
        if groups is None:
            raise DataError("folds by group need a group on every row", next="name raw columns: ml.groups(...)")
        return _dealt(groups, validation.folds, random)[groups]
    shuffled = random.permutation(n)
    ranked = shuffled
    if validation.kind == "stratified" and strata is not None:
        # Dealt out in the target's order, round by round: each fold gets each class, or each range, in proportion.
        ranked = shuffled[np.argsort(strata[shuffled], kind="stable")]
    fold = np.empty(n, dtype=np.int64)
    rounds = np.tile(np.arange(validation.folds), (-(-n // validation.folds), 1))
    fold[ranked] = random.permuted(rounds, axis=1).ravel()[:n]
    return fold


def _dealt(groups: Index, folds: int, random: np.random.Generator) -> Index:
    """Deal groups to folds, the largest first, each to the fold that has the fewest rows; groups of a size at random."""
    sizes = np.bincount(groups)
    order = random.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    heap = [(0, fold) for fold in range(folds)]
    given = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        rows, fold = heap[0]
        given[group] = fold
        heapq.heapreplace(heap, (rows + int(sizes[group]), fold))
    return given


def _grouped(groups: Index, share: float, seed: int) -> npt.NDArray[np.bool_]:
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    # Whole groups up to the share: at least one, and never all.
    many = max(1, min(len(sizes) - 1, int(np.searchsorted(np.cumsum(sizes[order]), share * len(groups))) + 1))
    late = np.zeros(len(sizes), dtype=bool)
    late[order[:many]] = True
    return np.asarray(late[groups], dtype=bool)


def _late(times: pl.Series, holdout: Holdout) -> npt.NDArray[np.bool_]:
    if times.null_count():
        raise DataError(
            f"{times.null_count()} of {len(times)} rows have no {times.name}",
            next=f'add the check ml.not_null("{times.name}")',
            column=times.name,
        )
    assert holdout.span is not None
    at = pl.col(times.name)
    whole = (at.max() - at.min()) * holdout.most
    cut = at.max() - pl.min_horizontal(pl.lit(holdout.span), whole)
    return times.to_frame().select((at > cut).alias("late"))["late"].to_numpy()


def _random(n: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    late = np.zeros(n, dtype=bool)
    late[np.random.default_rng(seed).permutation(n)[: max(1, round(n * share))]] = True
    return late


def _too_few(n: int) -> DataError:
    return DataError(f"{n} rows with a known outcome are too few to train on", next=f"bring at least {LEAST_ROWS}", rows=n)
