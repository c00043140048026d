"""How a window's requests were served, whatever the answers were: the share that failed, and how long they took."""

from __future__ import annotations

import polars as pl

from mulle.core.declare.monitor import Monitor
from mulle.core.records.window import Signal
from mulle.lifecycle.monitoring.outcomes import answered

__all__ = ["CALLERS", "service_signals"]

CALLERS = ("schema", "malformed", "too-large", "content-type", "usage", "not-found")
"""Kinds of errors that the caller made: nothing of the service is shown by them."""


def service_signals(monitor: Monitor, logged: pl.DataFrame) -> list[Signal]:
    """Hold a window's requests against the declared bounds.

    Parameters
    ----------
    monitor : Monitor
        Its `service`; without one there is no signal.
    logged : polars.DataFrame
        Rows of the log's table of the window, those refused among them.

    Returns
    -------
    list of Signal
        ``errors`` (share of requests, 0 to 1) and ``p99`` (seconds per row); of the model as a whole, so without a feature.
    """
    bounds = monitor.service
    if bounds is None or not logged.width:
        return []
    given = answered(logged)
    refused = logged.filter(pl.col("route") == "refused") if "error" in logged.columns else logged.clear()
    # A challenger's fault took nobody's time, and its champion answered.
    failed = refused.filter((pl.col("seconds") > 0) & ~pl.col("error").is_in(CALLERS)).height if refused.height else 0
    signals = []
    if bounds.errors is not None:
        # A request of several rows numbers them behind a dot, and fails as a whole.
        asked = given["request"].str.replace(r"\.\d+$", "").n_unique() + failed
        signals.append(_signal("errors", failed / asked if asked else None, bounds.errors, asked, monitor.min_rows))
    if bounds.p99 is not None:
        found = given["seconds"].quantile(0.99, "higher") if given.height else None
        value = None if found is None else float(found)
        signals.append(_signal("p99", value, bounds.p99.total_seconds(), given.height, monitor.min_rows))
    return signals


def _signal(name: str, value: float | None, bound: float, rows: int, least: int) -> Signal:
    verdict = "too_few" if value is None or rows < least else "alarm" if value > bound else "pass"
    return Signal(feature="", signal=name, value=value, bound=bound, verdict=verdict)
