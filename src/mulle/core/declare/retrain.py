"""What causes a model's next run, and what holds one back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["TRIGGERS", "Retrain"]


TRIGGERS = ("new_data", "drift", "performance", "skew", "service", "release")


@dataclass(frozen=True, slots=True, init=False)
class Retrain:
    """What causes a new run.

    Parameters
    ----------
    cron : str, optional
        Five fields, on the clock of `timezone`. Ticks that nobody was there for count once.
    timezone : str
        Such as ``Europe/Berlin``; UTC by default.
    on : iterable of {"new_data", "drift", "performance", "skew", "service", "release"}
        Rows that the last run has not read; alerts; and code, lock files or a Mulle that the last run was not made by.
    new_rows : int, optional
        New data cause a run from so many rows on.
    max_age : str, optional
        New data cause a run, few as they are, when the last one is so long ago.
    new_labels : int, optional
        So many labels since the last run cause one.
    after : str or iterable of str
        Models whose new champion causes a run, for this one is made of what they answer.
    cooldown : str
        Least time between two runs that the loop causes; for two of the schedule, on the schedule's own clock. Doubled with
        each run in a row, from the third on, that was no better than the champion, up to sixteen times.
    per_day : int, optional
        Most runs that the loop causes in 24 hours.
    budget : str, optional
        Longest that the search of a run that the loop causes may take.
    search : str, optional
        Search anew at most so often: a run in between trains the champion's settings on the rows that there are now. By
        default each run searches; one that a person asks for always does.
    takes : str
        On a replay clock: how long a run takes before its model may serve.

    Raises
    ------
    DeclarationError
        On a cause, time zone or number that cannot be.

    Examples
    --------
    >>> Retrain(on=["drift"], cooldown="1d").on
    ('drift',)
    >>> Retrain(on=[], new_rows=10_000, max_age="30d").on
    ('new_data',)
    """

    cron: str | None
    timezone: str
    on: tuple[str, ...]
    new_rows: int | None
    max_age: timedelta | None
    new_labels: int | None
    after: tuple[str, ...]
    cooldown: timedelta
    per_day: int | None
    budget: timedelta | None
    search: timedelta | None
    takes: timedelta

    def __init__(
        self,
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        on: Iterable[str] = ("drift", "performance"),
        new_rows: int | None = None,
        max_age: str | timedelta | None = None,
        new_labels: int | None = None,
        after: str | Iterable[str] = (),
        cooldown: str | timedelta = "1d",
        per_day: int | None = None,
        budget: str | timedelta | None = None,
        search: str | timedelta | None = None,
        takes: str | timedelta = "1h",
    ) -> None:
        _refuse(cron, timezone, {"new_rows": new_rows, "new_labels": new_labels, "per_day": per_day})
        causes = (on,) if isinstance(on, str) else tuple(on)
        for cause in causes:
            if cause not in TRIGGERS:
                raise DeclarationError(f"Retrain(on=...): unknown cause {cause!r}", next=f"choose from {', '.join(TRIGGERS)}")
        if (new_rows is not None or max_age is not None) and "new_data" not in causes:
            causes = (*causes, "new_data")
        given = {
            "cron": cron,
            "timezone": timezone,
            "on": causes,
            "new_rows": new_rows,
            "max_age": None if max_age is None else duration(max_age),
            "new_labels": new_labels,
            "after": (after,) if isinstance(after, str) else tuple(after),
            "cooldown": duration(cooldown),
            "per_day": per_day,
            "budget": None if budget is None else duration(budget),
            "search": None if search is None else duration(search),
            "takes": duration(takes),
        }
        for attribute, value in given.items():
            object.__setattr__(self, attribute, value)


def _refuse(cron: str | None, timezone: str, counts: dict[str, int | None]) -> None:
    if cron is not None and len(cron.split()) != 5:
        raise DeclarationError(
            f"cron {cron!r} has not five fields", next="write minute hour day month weekday, such as '0 4 * * *'"
        )
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DeclarationError(f"timezone {timezone!r} is not known", next="write it as Europe/Berlin, or UTC") from error
    for name, count in counts.items():
        if count is not None and count < 1:
            raise DeclarationError(f"Retrain({name}={count}) is no number to wait for", next="give 1 or more")
