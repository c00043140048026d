"""Fleets: a request's rows go to the members that their key names, and come back in the rows' own order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from mulle.core.declare.fleet import member_name
from mulle.core.errors import MulleError
from mulle.lifecycle.serving.score import Answer

__all__ = ["members", "spread"]

Rows = Sequence[Mapping[str, Any]]
Send = Callable[[str, Rows, int, "list[bytes] | None"], "asyncio.Future[list[Answer]]"]
Log = Callable[[list[bytes]], "asyncio.Future[None]"]


def members(rows: Rows, each: str, fleet: str, routed: Container[str]) -> dict[str, list[int]]:
    """Name who answers each row: its member where that is routed, else the fleet's shared model.

    Parameters
    ----------
    each : str
        The raw column that names the member; a whole number may come as a float.
    routed : container of str

    Returns
    -------
    dict
        Model to the positions of its rows.

    Examples
    --------
    >>> members([{"s": 1}, {"s": 2.0}, {"s": 9}, {}], "s", "demand", {"demand/1", "demand/2"})
    {'demand/1': [0], 'demand/2': [1], 'demand': [2, 3]}
    """
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        value = row.get(each)
        if type(value) is float and value.is_integer():
            value = int(value)
        name = member_name(fleet, value)
        found.setdefault(name if name is not None and name in routed else fleet, []).append(place)
    return found


def spread(
    rows: Rows, each: str, fleet: str, routed: Container[str], loop: asyncio.AbstractEventLoop, send: Send, log: Log
) -> asyncio.Future[list[Answer]]:
    """Send each row to its member and gather the answers; each names the model that gave it.

    Where several models answer, their log records are held until all have: a request is answered as a whole or not at all.

    Parameters
    ----------
    send : callable
        Queues rows for a model, with the number of the request's part from 0 and a list that takes its log records (None: they
        are written at once).
    log : callable
        Writes the records of all parts.

    Returns
    -------
    future of list of Answer
        In the rows' order; the first error of a part is the whole's.
    """
    groups = members(rows, each, fleet, routed)
    whole: asyncio.Future[list[Answer]] = loop.create_future()
    answers: list[Answer] = [{}] * len(rows)
    held: list[bytes] | None = [] if len(groups) > 1 else None
    left = len(groups)

    def done(model: str, places: list[int], part: asyncio.Future[list[Answer]]) -> None:
        nonlocal left
        error = part.exception()
        if whole.done():
            return
        if error is not None:
            row = error.facts.get("row") if isinstance(error, MulleError) else None
            if isinstance(error, MulleError) and isinstance(row, int):
                error.facts["row"] = places[row]
            whole.set_exception(error)
            return
        for place, answer in zip(places, part.result(), strict=True):
            answer["model"] = model
            answers[place] = answer
        left -= 1
        if not left and held:
            log(held).add_done_callback(written)
        elif not left:
            whole.set_result(answers)

    def written(writing: asyncio.Future[None]) -> None:
        error = writing.exception()
        if not whole.done():
            whole.set_result(answers) if error is None else whole.set_exception(error)

    for number, (model, places) in enumerate(groups.items()):
        part = send(model, [rows[i] for i in places], number, held)
        part.add_done_callback(lambda found, model=model, places=places: done(model, places, found))  # type: ignore[misc]
    return whole
