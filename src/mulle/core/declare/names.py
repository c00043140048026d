"""Reading of names and lists in declarations, the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mulle.core.errors import DeclarationError

__all__ = ["columns", "plain_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def columns(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Read one column name or several as a tuple; None is the empty tuple.

    Examples
    --------
    >>> columns("a"), columns(["a", "b"]), columns(None)
    (('a',), ('a', 'b'), ())
    """
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def plain_name(name: str, what: str) -> str:
    """Return the name if it can be a folder, a URL part and an MLflow name at once.

    Raises
    ------
    DeclarationError
        When it cannot.

    Examples
    --------
    >>> plain_name("air-time", "model")
    'air-time'
    """
    if not _NAME.fullmatch(name):
        raise DeclarationError(f"{what} name {name!r} is refused", next="use letters, digits, '-', '_' and '.', at most 100")
    return name
