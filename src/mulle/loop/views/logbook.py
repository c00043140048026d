"""What a home's log tells, as listings: its lines by model, run, request and level, with the predictions of a request."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.errors import NotFound
from mulle.core.records.base import Json
from mulle.core.records.prediction import PREDICTIONS
from mulle.kernel.logs import Wanted, read_log
from mulle.loop.parts import Parts

__all__ = ["logs_view"]

_BACK = timedelta(days=7)
"""How far back a request's predictions are looked for where no time is named."""


def logs_view(parts: Parts, wanted: Wanted, limit: int) -> Json:
    """List lines of the log, oldest first, the last ones of those that are wanted.

    A request's lines are joined by its predictions: each names the run that made the version that answered. A request is
    found by the id that its client gave, by ours, and by a prediction's.
    """
    lines = list(deque(read_log(parts.settings.home, wanted), maxlen=limit))
    if wanted.request is not None:
        lines += _predictions(parts, wanted.request, wanted.since or parts.clock.now() - _BACK)
        lines = sorted(lines, key=lambda line: str(line["at"]))[-limit:]
    return {"items": lines, "next": None}


def _predictions(parts: Parts, request: str, since: datetime) -> Iterator[Json]:
    named = pl.col("request")
    # Ours follows the client's behind a tilde, and a row's number follows a dot.
    whole = (pl.col("id") == request) | (named == request)
    mine = whole | named.str.starts_with(f"{request}~") | named.str.starts_with(f"{request}.")
    try:
        rows = parts.lake.scan(PREDICTIONS).filter((pl.col("created_at") >= since) & mine & (pl.col("route") != "refused"))
    except NotFound:
        return
    found = rows.select("id", "created_at", "request", "model", "version", "route", "seconds").collect()
    made = parts.metadata.models.many(list(dict.fromkeys(found.select("model", "version").rows())))
    for row in found.iter_rows(named=True):
        version = made.get((row["model"], row["version"]))
        yield {
            "at": rfc3339(row["created_at"]),
            "level": "info",
            "process": "serve",
            "logger": "predictions",
            "text": f"{row['model']}@{row['version']} answered as {row['route']}; see `mulle explain {row['id']}`",
            "model": row["model"],
            "version": row["version"],
            "request": row["request"],
            "prediction": [row["id"]],
            "run": version.run if version else None,
            "seconds": row["seconds"],
        }
