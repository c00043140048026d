"""What every record shares: causes, and one JSON form that survives a round trip."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from mulle.core.clock import instant, rfc3339

__all__ = ["Cause", "Json", "from_json", "to_json"]

Json = dict[str, Any]
R = TypeVar("R")


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
    hints = _hints(kind)  # type: ignore[arg-type]
    return kind(**{name: _read(hints[name], value[name]) for name in hints if name in value})


@lru_cache(maxsize=128)
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _read(hint: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        chosen = [i for i in inner if i is not type(None)]
        return _read(chosen[0], value) if value is not None and len(chosen) == 1 else value
    if hint is datetime:
        return instant(value)
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_json(hint, value)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_read(inner[0], v) for v in value)
    if origin is tuple:
        return tuple(_read(i, v) for i, v in zip(inner, value, strict=True))
    if origin is dict and is_dataclass(inner[1]):
        return {k: _read(inner[1], v) for k, v in value.items()}
    return value
