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
Send = Callable[[str, Rows, int], "asyncio.Future[list[Answer]]"]


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
    rows: Rows, each: str, fleet: str, routed: Container[str], loop: asyncio.AbstractEventLoop, send: Send
) -> asyncio.Future[list[Answer]]:
    """Send each row to its member and gather the answers; each names the model that gave it.

    Parameters
    ----------
    send : callable
        Queues rows for a model; the last argument numbers the request's parts from 0.

    Returns
    -------
    future of list of Answer
        In the rows' order; the first error of a part is the whole's.
    """
    groups = members(rows, each, fleet, routed)
    whole: asyncio.Future[list[Answer]] = loop.create_future()
    answers: list[Answer] = [{}] * len(rows)
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
        if not left:
            whole.set_result(answers)

    for number, (model, places) in enumerate(groups.items()):
        part = send(model, [rows[i] for i in places], number)
        part.add_done_callback(lambda found, model=model, places=places: done(model, places, found))  # type: ignore[misc]
    return whole
