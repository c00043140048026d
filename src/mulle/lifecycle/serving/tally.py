"""Counters of the inference plane, kept as plain numbers so that counting costs next to nothing on the hot path."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

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
        self.labels: Counter[str] = Counter()
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def request(self, model: str, version: int | str, route: str, status: int, seconds: float) -> None:
        """Count an answered or refused request."""
        self.requests[(model, str(version), route, status)] += 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
