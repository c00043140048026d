"""What causes a model's next run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["Retrain", "TRIGGERS"]


TRIGGERS = ("new_data", "drift", "performance")


@dataclass(frozen=True, slots=True, init=False)
class Retrain:
    """What causes a new run.

    Parameters
    ----------
    cron : str, optional
        Five fields, UTC.
    on : iterable of {"new_data", "drift", "performance"}
    cooldown : str
        Least time between two runs that the loop causes.
    takes : str
        On a replay clock: how long a run takes before its model may serve.

    Examples
    --------
    >>> Retrain(on=["drift"], cooldown="1d").on
    ('drift',)
    """

    cron: str | None
    on: tuple[str, ...]
    cooldown: timedelta
    takes: timedelta = field(default=timedelta(hours=1))

    def __init__(
        self,
        *,
        cron: str | None = None,
        on: Iterable[str] = ("drift", "performance"),
        cooldown: str | timedelta = "1d",
        takes: str | timedelta = "1h",
    ) -> None:
        causes = tuple(on)
        for cause in causes:
            if cause not in TRIGGERS:
                raise DeclarationError(f"Retrain(on=...): unknown cause {cause!r}", next=f"choose from {', '.join(TRIGGERS)}")
        if cron is not None and len(cron.split()) != 5:
            raise DeclarationError(
                f"cron {cron!r} has not five fields", next="write minute hour day month weekday, such as '0 4 * * *'"
            )
        object.__setattr__(self, "cron", cron)
        object.__setattr__(self, "on", causes)
        object.__setattr__(self, "cooldown", duration(cooldown))
        object.__setattr__(self, "takes", duration(takes))
