"""Stage 8's records: windows of the prediction log, what they signal, and the alerts they open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Cause, Json

__all__ = ["Alert", "AlertEvent", "Performance", "Signal", "Slice", "Window", "alert_closed_at", "alert_severity", "alert_state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One measured signal of a window against its bound: ``pass``, ``alarm``, ``too_few`` rows, or ``calendar``: not judged.

    Attributes
    ----------
    p_value : float or None
        How probable so much is when nothing has changed; an alarm asks for both, the bound and this.
    windows : int
        How many windows, this one the last, the value is of: what is too little to be seen in one is seen in several.
    """

    feature: str
    signal: str
    value: float | None
    bound: float | None
    verdict: str
    p_value: float | None = None
    windows: int = 1


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
    estimate : float or None
        What the metric was expected to be, from the answers and the features alone.
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
class Slice:
    """The rows of a window with one value of a raw column."""

    column: str
    value: str
    rows: int
    performance: Performance


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
    reference : str
        What it was held against: ``training``, or of that the rows of the same weekday or month.
    bundle : str
        Hash of the bundle whose reference that is.
    histograms : str
        What it counted into the reference's bins, packed: windows of one bundle add up.
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
    slices: tuple[Slice, ...] = ()
    reference: str = "training"
    bundle: str = ""
    histograms: str = field(default="", repr=False)


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
    """``open``, ``update`` or ``close`` of an alert.

    Attributes
    ----------
    severity : str
        The alert's from here on; empty leaves it as it is.
    tell : bool
        People are told of it.
    """

    id: str
    alert: str
    at: datetime
    kind: str
    evidence: Json = field(default_factory=dict)
    severity: str = ""
    tell: bool = True


def alert_state(events: Sequence[AlertEvent]) -> str:
    """Derive ``open`` or ``closed`` from an alert's events, oldest first."""
    return "closed" if any(e.kind == "close" for e in events) else "open"


def alert_closed_at(events: Sequence[AlertEvent]) -> datetime | None:
    """Return when an alert closed, or None while it is open."""
    return next((e.at for e in events if e.kind == "close"), None)


def alert_severity(alert: Alert, events: Sequence[AlertEvent]) -> str:
    """Derive how much an alert matters now: as it was opened, or as it rose since."""
    return next((e.severity for e in reversed(events) if e.severity), alert.severity)
