"""What every record shares: causes, and one JSON form that survives a round trip."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from mulle.core.clock import instant, rfc3339

__all__ = ["Cause", "Json", "from_json", "to_json"]

Json = dict[str, Any]
R = TypeVar("R")
_Reader = Callable[[Any], Any]
_PLAIN = (str, int, float, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a record exists: the record (or person) before it, and the reason in words.

    Attributes
    ----------
    type : str
        ``alert``, ``schedule``, ``new_data``, ``run``, ``person``, ``replay`` ...
    id : str
        The id of that record, or a name.
    why : str
        One sentence.
    """

    type: str
    id: str
    why: str


def to_json(value: Any) -> Any:
    """Give a record (or any nest of records) as plain JSON values.

    Parameters
    ----------
    value : record, mapping, sequence or scalar
        Instants become RFC 3339 text in UTC, tuples become lists.

    Returns
    -------
    JSON value

    Examples
    --------
    >>> to_json(Cause(type="person", id="ada", why="asked"))
    {'type': 'person', 'id': 'ada', 'why': 'asked'}
    """
    if isinstance(value, _PLAIN):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value


def from_json(kind: type[R], value: Mapping[str, Any]) -> R:
    """Build a record from its JSON form; unknown members are ignored, so old code reads newer records.

    Parameters
    ----------
    kind : type
        A record class.
    value : mapping
        What `to_json` gave.

    Returns
    -------
    record of that kind

    Examples
    --------
    >>> from_json(Cause, {"type": "person", "id": "ada", "why": "asked", "new": 1}).id
    'ada'
    """
    readers = _readers(kind)  # type: ignore[arg-type]
    return kind(**{name: read(value[name]) if read else value[name] for name, read in readers.items() if name in value})


@lru_cache(maxsize=128)
def _readers(kind: type[Any]) -> dict[str, _Reader | None]:
    hints = typing.get_type_hints(kind)
    return {f.name: _reader(hints[f.name]) for f in fields(kind)}


def _reader(hint: Any) -> _Reader | None:
    """Give what makes a member's value from its JSON form; None where it is the same."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        chosen = [i for i in inner if i is not type(None)]
        one = _reader(chosen[0]) if len(chosen) == 1 else None
        return one and (lambda value: None if value is None else one(value))
    if hint is datetime:
        return instant
    if is_dataclass(hint) and isinstance(hint, type):
        return lambda value: value if isinstance(value, hint) else from_json(hint, value)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        each = _reader(inner[0])
        return (lambda value: tuple(map(each, value))) if each else tuple
    if origin is tuple:
        parts = [_reader(i) for i in inner]
        return lambda value: tuple(read(v) if read else v for read, v in zip(parts, value, strict=True))
    if origin is dict and is_dataclass(inner[1]):
        member = _reader(inner[1])
        return lambda value: {k: member(v) for k, v in value.items()} if member else value
    return None
