"""Splitting rows: the holdout for the last word, and the inner validation that the search scores on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.declare.training import Holdout
from mulle.core.errors import DataError

__all__ = ["LEAST_ROWS", "split_rows", "split_validation"]

LEAST_ROWS = 20
"""Fewer rows are not trained on."""

Index = npt.NDArray[np.int64]


def split_rows(rows: pl.DataFrame, *, time: str | None, holdout: Holdout, seed: int) -> tuple[Index, Index]:
    """Split rows into training and holdout.

    Parameters
    ----------
    rows : polars.DataFrame
    time : str or None
        The column that orders rows.
    holdout : Holdout
        With a span and a time, the rows later than the last time minus the span; else a random share.
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
    if holdout.span is not None and time is not None:
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


def _late(times: pl.Series, holdout: Holdout) -> npt.NDArray[np.bool_]:
    if times.null_count():
        raise DataError(
            f"{times.null_count()} of {len(times)} rows have no {times.name}",
            next=f'add the check ml.not_null("{times.name}")',
            column=times.name,
        )
    assert holdout.span is not None
    cut = pl.lit(times.max()) - pl.lit(holdout.span)
    return times.to_frame().select((pl.col(times.name) > cut).alias("late"))["late"].to_numpy()


def _random(n: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    late = np.zeros(n, dtype=bool)
    late[np.random.default_rng(seed).permutation(n)[: max(1, round(n * share))]] = True
    return late


def _too_few(n: int) -> DataError:
    return DataError(f"{n} rows with a known outcome are too few to train on", next=f"bring at least {LEAST_ROWS}", rows=n)
