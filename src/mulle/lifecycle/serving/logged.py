"""What of an answer reaches the log: all of it, unless the model's declaration says less; and what was refused, by kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import orjson

from mulle.core.clock import EPOCH, Clock
from mulle.core.errors import ContractError, LogNotWritable, MulleError
from mulle.kernel.keys import key_text
from mulle.kernel.redact import pseudonym
from mulle.kernel.routes import LogRule
from mulle.lifecycle.serving.ids import fresh_ids
from mulle.lifecycle.serving.log import Segment, pack
from mulle.lifecycle.serving.route import position

__all__ = ["TurnedAway", "refused_record", "trimmed"]

_SALT = "log"
"""Of the choice which rows are kept: the same keys whatever is deployed, so that a key is followed or not at all."""

_BY_ROW = ("id", "request", "route", "time", "row", "value", "probabilities", "freshness", "seconds")


def trimmed(record: dict[str, Any], rule: LogRule, *, paired: bool) -> dict[str, Any] | None:
    """Leave out of a batch's record what its model's declaration does not want logged.

    Parameters
    ----------
    record : dict
        As `score` makes it: one list per field, one object per row.
    rule : LogRule
    paired : bool
        Several versions scored these rows: all are kept, for they are compared row by row.

    Returns
    -------
    dict or None
        None when no row is left. Columns that are redacted are in neither row nor features; of the key their pseudonym is.
    """
    if rule.sample < 1.0 and not paired:
        kept = [i for i, row in enumerate(record["row"]) if _sticky(record, row, i) < rule.sample]
        if not kept:
            return None
        if len(kept) < len(record["row"]):
            record = _rows(record, kept)
    if not rule.redact:
        return record
    hidden, key = frozenset(rule.redact), frozenset(record["key"])
    return {
        **record,
        "row": [
            {n: pseudonym(v) if n in hidden else v for n, v in row.items() if n not in hidden or n in key}
            for row in record["row"]
        ],
        "features": {n: values for n, values in record["features"].items() if n not in hidden},
    }


def _sticky(record: dict[str, Any], row: dict[str, Any], number: int) -> float:
    text = key_text([row.get(name) for name in record["key"]]) if record["key"] else None
    return position(text or record["request"][number], _SALT)


def _rows(record: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    chosen = {n: None if record[n] is None else [record[n][i] for i in kept] for n in _BY_ROW}
    features = {n: [values[i] for i in kept] for n, values in record["features"].items()}
    unseen = {place: record["unseen"][i] for place, i in enumerate(kept) if i in record["unseen"]}
    return {**record, **chosen, "features": features, "unseen": unseen}


def refused_record(
    model: str,
    refused: Sequence[tuple[str, float, int | None, Exception]],
    faults: Sequence[tuple[int, MulleError]],
    *,
    now: datetime,
) -> bytes | None:
    """Frame what was refused, and which challengers failed, for the log: by kind, without the rows themselves.

    Parameters
    ----------
    refused : sequence of (request, started, version, error)
        `started` in seconds of `time.perf_counter`; `version` where one was asked for.
    faults : sequence of (version, error)

    Returns
    -------
    bytes or None
        None when there is nothing to tell.
    """
    if not refused and not faults:
        return None
    at = (now - EPOCH) // timedelta(microseconds=1)
    ended = perf_counter()
    told = [
        {
            "id": request,
            "request": request,
            "version": version,
            "seconds": round(ended - started, 6),
            "error": _kind(error),
            **_field(error),
        }
        for request, started, version, error in refused
    ]
    told += [
        {"id": id, "request": id, "version": version, "seconds": 0.0, "error": _kind(error)}
        for id, (version, error) in zip(fresh_ids(at, len(faults)), faults, strict=True)
    ]
    return pack(orjson.dumps({"refused": told, "model": model, "at": at}))


class TurnedAway:
    """Requests that no version took: none could, the queue was full or their time over; they wait for the log's next turn.

    Parameters
    ----------
    segment : Segment
        Of predictions.
    clock : Clock
    """

    def __init__(self, segment: Segment, clock: Clock) -> None:
        self._segment, self._clock = segment, clock
        self._records: list[bytes] = []

    def add(self, model: str, request: str, started: float, error: MulleError) -> None:
        """Note a request; `started` in seconds of `time.perf_counter`."""
        told = refused_record(model, [(request, started, None, error)], (), now=self._clock.now())
        self._records += [told] if told else []

    def write(self) -> None:
        """Log what waits. What the disk does not take is lost: nobody waits for it."""
        records, self._records = self._records, []
        if records:
            with suppress(LogNotWritable):
                self._segment.write(records)


def _field(error: Exception) -> dict[str, str]:
    field = error.facts.get("field") if isinstance(error, ContractError) else None
    return {"unseen": orjson.dumps([field]).decode()} if field else {}


def _kind(error: Exception) -> str:
    return error.slug if isinstance(error, MulleError) else MulleError.slug
