"""A scheduled batch: rows that a model scores by the clock, without anybody asking."""

from __future__ import annotations

from dataclasses import dataclass

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.errors import DeclarationError

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True, init=False)
class Batch:
    """Score an input by the clock; the loop runs it as ``mulle batch`` would.

    Parameters
    ----------
    model : Model or str
        ``MODEL``, ``MODEL@champion`` or ``MODEL@7``; without a version the champion at that moment.
    input : Dataset or str
        What ``mulle batch --input`` takes: a dataset, files, or a database's table.
    output : str
        What ``mulle batch --output`` takes. ``%Y-%m-%d`` and the like are filled with the job's start, in UTC.
    cron : str
        Minute, hour, day, month and weekday, in UTC.
    max_rejected : float
        Share of rows, 0 to 1, that may break the contract before the job is refused.

    Raises
    ------
    DeclarationError
        When the cron has not five fields, or the share is none.

    Examples
    --------
    >>> Batch("air-time", "flights", "scores/%Y-%m-%d/", "0 5 * * *").cron
    '0 5 * * *'
    """

    model: str
    input: str
    output: str
    cron: str
    max_rejected: float

    def __init__(self, model: Model | str, input: Dataset | str, output: str, cron: str, *, max_rejected: float = 0.1) -> None:
        if len(cron.split()) != 5:
            raise DeclarationError(
                f"Batch: cron {cron!r} has not five fields", next="write minute hour day month weekday, such as '0 4 * * *'"
            )
        if not 0 <= max_rejected <= 1:
            raise DeclarationError(f"Batch: max_rejected is {max_rejected}", next="give a share between 0 and 1")
        object.__setattr__(self, "model", model.name if isinstance(model, Model) else model)
        object.__setattr__(self, "input", input.name if isinstance(input, Dataset) else input)
        object.__setattr__(self, "output", output)
        object.__setattr__(self, "cron", cron)
        object.__setattr__(self, "max_rejected", float(max_rejected))
