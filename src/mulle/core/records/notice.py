"""What people are told of alerts: events that wait for their receivers, and silences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mulle.core.declare.fleet import fleet_of
from mulle.core.records.base import Cause
from mulle.core.records.window import Alert, AlertEvent

__all__ = ["EVERY_MODEL", "Silence", "Untold", "silenced_until"]

EVERY_MODEL = "*"
"""What a silence names that holds for all models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A span in which alerts of a model are recorded and not sent; the last one of a model counts.

    Attributes
    ----------
    model : str
        Its members too, where it is a fleet; ``*`` is every model.
    until : datetime
        One that ends where it begins lifts the one before.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    model: str
    until: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Untold:
    """An event of an alert that not every receiver has been told.

    Attributes
    ----------
    seq : int
        Its place in the outbox.
    attempts : int
        How often it was tried in vain.
    done : tuple of str
        Receivers that took it.
    held : bool
        It came up during a silence.
    """

    seq: int
    alert: Alert
    event: AlertEvent
    attempts: int = 0
    done: tuple[str, ...] = ()
    held: bool = False


def silenced_until(silences: Sequence[Silence], model: str, now: datetime) -> datetime | None:
    """Tell until when nothing of a model is sent, or None.

    Parameters
    ----------
    silences : sequence of Silence
        The last of each name.
    """
    names = {EVERY_MODEL, model, fleet_of(model)}
    return max((s.until for s in silences if s.model in names and s.until > now), default=None)
