"""Stage 8's records: windows of the prediction log, what they signal, and the alerts they open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Cause, Json

__all__ = ["Alert", "AlertEvent", "Performance", "Signal", "Window", "alert_closed_at", "alert_state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One measured signal of a window against its bound: ``pass``, ``alarm`` or ``too_few`` rows."""

    feature: str
    signal: str
    value: float | None
    bound: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What late labels say of a window.

    Attributes
    ----------
    value : float or None
        The metric over labelled rows; None without labels.
    labels_share : float
        Labelled rows over rows whose label can still come, 0 to 1.
    never : int
        Rows whose label will never come.
    labelled : int
        Rows labelled.
    """

    metric: str
    value: float | None
    labels_share: float
    labelled: int
    never: int
    bound: float | None = None
    verdict: str = "immature"
    estimate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of a model's answered rows, judged once mature.

    Attributes
    ----------
    start, end : datetime
        By row time; the start belongs to the window, the end does not.
    rows : int
        Answered rows (shadow scores not counted).
    mature : bool
        Enough labels, or the declared delay has passed.
    versions : dict
        Rows by version (text keys).
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    model: str
    start: datetime
    end: datetime
    rows: int
    mature: bool
    versions: dict[str, int]
    signals: tuple[Signal, ...]
    performance: Performance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alarm with its evidence and the command to look closer; its state is derived from its events."""

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    model: str
    signal: str
    feature: str
    severity: str
    evidence: Json = field(default_factory=dict)
    next: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEvent:
    """``open``, ``update`` or ``close`` of an alert."""

    id: str
    alert: str
    at: datetime
    kind: str
    evidence: Json = field(default_factory=dict)


def alert_state(events: Sequence[AlertEvent]) -> str:
    """Derive ``open`` or ``closed`` from an alert's events, oldest first."""
    return "closed" if any(e.kind == "close" for e in events) else "open"


def alert_closed_at(events: Sequence[AlertEvent]) -> datetime | None:
    """Return when an alert closed, or None while it is open."""
    return next((e.at for e in events if e.kind == "close"), None)
