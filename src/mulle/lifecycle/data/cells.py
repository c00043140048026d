"""A cell of a table as a JSON value."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta

from mulle.core.clock import rfc3339

__all__ = ["plain"]


def plain(value: object, *, items: int | None = None, letters: int | None = None) -> object:
    """Give a cell as a JSON value: instants as RFC 3339, durations in seconds, what JSON has no word for as text.

    Parameters
    ----------
    value : object
    items, letters : int, optional
        Lists and texts are cut behind so many.

    Examples
    --------
    >>> plain(date(2013, 3, 1)), plain(float("nan")), plain(b"a"), plain(timedelta(minutes=1))
    ('2013-03-01', 'nan', "b'a'", 60.0)
    >>> plain(["long text", 2, 3], items=2, letters=4)
    ['long…', 2]
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return rfc3339(value) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (list, tuple)):
        return [plain(v, items=items, letters=letters) for v in value[:items]]
    if isinstance(value, dict):
        return {str(k): plain(v, items=items, letters=letters) for k, v in value.items()}
    text = str(value)
    return text if letters is None or len(text) <= letters else f"{text[:letters]}…"
