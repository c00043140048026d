"""Counters of the inference plane, kept as plain numbers so that counting costs next to nothing on the hot path."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
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
    latency : Counter
        Answered requests by (model, version, place in `BOUNDS`).
    spent : Counter
        Their seconds by (model, version).
    kinds : Counter
        Requests without an answer by (model, version, kind of error).
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
        self.latency: Counter[tuple[str, str, int]] = Counter()
        self.spent: dict[tuple[str, str], float] = defaultdict(float)
        self.kinds: Counter[tuple[str, str, str]] = Counter()
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def request(self, model: str, version: int | str, route: str, status: int, seconds: float) -> None:
        """Count an answered or refused request."""
        told, place = str(version), bisect_left(BOUNDS, seconds)
        self.requests[(model, told, route, status)] += 1
        self.buckets[place] += 1
        self.seconds += seconds
        if route:
            self.latency[(model, told, place)] += 1
            self.spent[(model, told)] += seconds

    def add(self, other: Tally) -> None:
        """Add what another counted."""
        for name in _COUNTERS:
            mine = getattr(self, name)
            for key, count in tuple(getattr(other, name).items()):
                mine[key] += count
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


_COUNTERS = ("requests", "rows", "unseen", "faults", "dropped", "unlogged", "labels", "latency", "spent", "kinds")
