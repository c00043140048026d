"""Counters of the inference plane, kept as plain numbers so that counting costs next to nothing on the hot path."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

__all__ = ["BOUNDS", "Tally"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, in seconds."""


class Tally:
    """What happened since the process began; only the event loop's thread counts.

    Attributes
    ----------
    requests : Counter
        By (model, version, route, status); a request counts under the version and route of its first row.
    rows : Counter
        Scored rows by (model, version, route), shadows too.
    unseen : Counter
        Categories never seen in training, by (model, feature).
    faults : Counter
        Batches that a challenger failed while the champion answered, by (model, version).
    dropped : Counter
        Rows that shadows left out for want of time, by (model, version).
    unlogged : Counter
        Rows scored that the log could not take, by model; only where settings allow that.
    buckets : list of int
        Requests by latency; the last is above every bound.
    seconds : float
        Their sum.
    labels : Counter
        ``accepted``, ``duplicates`` and ``unknown``.

    Examples
    --------
    >>> tally = Tally(); tally.request("air-time", 7, "champion", 200, 0.002); tally.buckets[1]
    1
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str, int]] = Counter()
        self.rows: Counter[tuple[str, str, str]] = Counter()
        self.unseen: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.unlogged: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def request(self, model: str, version: int | str, route: str, status: int, seconds: float) -> None:
        """Count an answered or refused request."""
        self.requests[(model, str(version), route, status)] += 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def add(self, other: Tally) -> None:
        """Add what another counted."""
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds

    def written(self) -> dict[str, Any]:
        """Give the counters as JSON values, for `read`.

        Examples
        --------
        >>> tally = Tally(); tally.request("m", 1, "champion", 200, 0.1); Tally.read(tally.written()).requests
        Counter({('m', '1', 'champion', 200): 1})
        """
        counters = {name: [[key, count] for key, count in getattr(self, name).items()] for name in _COUNTERS}
        return {**counters, "buckets": self.buckets, "seconds": self.seconds}

    @classmethod
    def read(cls, told: Any) -> Tally:
        """Read what `written` gave; counters that it has not are empty."""
        tally = cls()
        for name in _COUNTERS:
            for key, count in told.get(name, ()):
                getattr(tally, name)[tuple(key) if isinstance(key, list) else key] = count
        tally.buckets = list(told.get("buckets", tally.buckets))
        tally.seconds = float(told.get("seconds", 0.0))
        return tally


_COUNTERS = ("requests", "rows", "unseen", "faults", "dropped", "unlogged", "labels")
