"""Fleets: one declaration, one model per value of a raw column, with a shared model for what has none of its own."""

from __future__ import annotations

from dataclasses import dataclass

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DeclarationError

__all__ = ["Each", "each", "fleet_of", "key_of", "member_name", "refuse_column"]

_LONGEST = 100
"""Characters of a key; what is longer is no name of a model."""


@dataclass(frozen=True, slots=True)
class Each:
    """How a fleet is cut into members.

    Attributes
    ----------
    column : str
        A raw column that every request carries; each of its values may have a model of its own.
    at_least : int
        Training rows that a member needs for that; with fewer the shared model answers.
    trials : int
        Of a member's search: the dummy baseline, the shared model's settings, then the cheapest candidates as they come.
    """

    column: str
    at_least: int = 100
    trials: int = 4


def each(column: str, *, at_least: int = 100, trials: int = 4) -> Each:
    """Cut a model into a fleet: one member per value of a raw column.

    Parameters
    ----------
    column : str
        Of text, whole numbers, booleans or dates; every request carries it.
    at_least : int
        Training rows that a member needs for a model of its own; at least 20.
    trials : int
        Of each member's search, the dummy baseline counted; at least 2.

    Raises
    ------
    DeclarationError
        On a smaller number.

    Examples
    --------
    >>> each("store", at_least=200)
    Each(column='store', at_least=200, trials=4)
    """
    if at_least < 20:
        raise DeclarationError(f"each({column}): at_least is {at_least}", next="write 20 or more: fewer rows are not trained on")
    if trials < 2:
        raise DeclarationError(f"each({column}): trials is {trials}", next="write 2 or more: the first is the dummy baseline")
    return Each(column=column, at_least=at_least, trials=trials)


def refuse_column(model: str, column: str, dataset: Dataset, hidden: tuple[str, ...]) -> None:
    """Refuse a column that no request carries, as far as the declaration tells.

    Raises
    ------
    DeclarationError
        When it is an outcome, the time, or a joined column.
    """
    carried = "name a raw column that every request carries"
    if column in hidden:
        raise DeclarationError(f"model {model}: each={column!r} is an outcome, which no request carries", next=carried)
    if column == dataset.time:
        raise DeclarationError(f"model {model}: each={column!r} is the time of {dataset.name}", next=carried)
    if "." in column:
        raise DeclarationError(f"model {model}: each={column!r} is a joined column", next=carried)


def member_name(fleet: str, key: object) -> str | None:
    """Name the member of a key, or None where the key cannot be in a name: the shared model answers it.

    Parameters
    ----------
    fleet : str
    key : object
        The column's value: text, a whole number, a boolean (``true``), a date (ISO text).

    Examples
    --------
    >>> member_name("demand", 17), member_name("demand", "a/b"), member_name("demand", None)
    ('demand/17', 'demand/a/b', None)
    """
    text = "" if key is None else str(key).lower() if isinstance(key, bool) else str(key)
    return f"{fleet}/{text}" if text and len(text) <= _LONGEST and text.isprintable() and text == text.strip() else None


def fleet_of(name: str) -> str:
    """Name the fleet of a member, or the model itself.

    Examples
    --------
    >>> fleet_of("demand/17"), fleet_of("demand")
    ('demand', 'demand')
    """
    return name.partition("/")[0]


def key_of(name: str) -> str:
    """Give the key of a member's name; empty for a model that is no member.

    Examples
    --------
    >>> key_of("demand/a/b")
    'a/b'
    """
    return name.partition("/")[2]
