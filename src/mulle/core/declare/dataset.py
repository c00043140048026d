"""Datasets and where their rows come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mulle.core.declare.checks import Check
from mulle.core.declare.names import columns, plain_name
from mulle.core.declare.sources import Function, Source
from mulle.core.errors import DeclarationError

__all__ = ["Dataset"]


@dataclass(frozen=True, slots=True, init=False)
class Dataset:
    """A named table of rows, versioned and checked.

    Parameters
    ----------
    name : str
    source : Source or callable
        Where rows come from: ``ml.Files``, ``ml.Sql``, ``ml.Kafka``, ``ml.Http``, ``ml.Shared``, or a function.
    key : str or sequence of str, optional
        Columns that name a row's subject. A row with the same key (and time, where one is declared) as an earlier one
        takes its place: an upsert.
    time : str, optional
        The moment a prediction is asked for; datetime column, UTC when it has no zone.
    known_at : str, optional
        The moment the outcome columns become known; defaults to `time`.
    outcome : str or sequence of str, optional
        Columns that are not known at `time`: never features, only targets.
    labels : Source or callable, optional
        Where outcome columns come from when they come later or from people: rows with the key (and the time, where one
        is declared), outcome columns, and `known_at` (else the moment they are read counts).
    schema : mapping, optional
        Column to type ("Int64", "Float64", "String", "Boolean", "Date", "Datetime"), where the inferred one is not meant;
        otherwise the first publish infers a column's type, and that is the contract from then on.
    optional : str or sequence of str, optional
        Columns that a batch may lack; they are null then.
    checks : iterable of checks
        What ``ml.unique(...)`` and its like return.

    Raises
    ------
    DeclarationError
        On a name that cannot be a folder, `known_at` without `time`, or `labels` without `key` and `outcome`.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> Dataset("weather", Files("w/*.parquet"), key="origin", time="observed_at").available
    'observed_at'
    """

    name: str
    source: Source
    key: tuple[str, ...]
    time: str | None
    known_at: str | None
    outcome: tuple[str, ...]
    labels: Source | None
    schema: tuple[tuple[str, str], ...]
    optional: tuple[str, ...]
    checks: tuple[Check, ...] = field(repr=False)

    def __init__(
        self,
        name: str,
        source: Source | Callable[..., Any],
        *,
        key: str | Iterable[str] | None = None,
        time: str | None = None,
        known_at: str | None = None,
        outcome: str | Iterable[str] | None = None,
        labels: Source | Callable[..., Any] | None = None,
        schema: Mapping[str, str] | None = None,
        optional: str | Iterable[str] | None = None,
        checks: Iterable[Check | tuple[Check, ...]] = (),
    ) -> None:
        if known_at and not time:
            raise DeclarationError(f"dataset {name}: known_at without time", next="declare time= as well")
        if labels is not None and not (key and outcome):
            raise DeclarationError(
                f"dataset {name}: labels without key and outcome", next="declare the key they name, and the outcome they carry"
            )
        flat = tuple(c for item in checks for c in (item if isinstance(item, tuple) else (item,)))
        for attribute, value in {
            "name": plain_name(name, "dataset"),
            "source": _source(source),
            "key": columns(key),
            "time": time,
            "known_at": known_at,
            "outcome": columns(outcome),
            "labels": None if labels is None else _source(labels),
            "schema": tuple((schema or {}).items()),
            "optional": columns(optional),
            "checks": flat,
        }.items():
            object.__setattr__(self, attribute, value)

    @property
    def available(self) -> str | None:
        """The column that tells when a row's outcome became known: `known_at`, else `time`."""
        return self.known_at or self.time

    @property
    def hidden(self) -> tuple[str, ...]:
        """Columns a request never carries: the outcome and `known_at`."""
        return self.outcome + ((self.known_at,) if self.known_at else ())

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns by which two rows are versions of one row: the key, and the time where one is declared."""
        return (*self.key, *((self.time,) if self.key and self.time else ()))


def _source(given: Source | Callable[..., Any]) -> Source:
    if isinstance(given, Source):
        return given
    if callable(given):
        return Function(given)
    raise DeclarationError(f"{given!r} is no source", next="name ml.Files, ml.Sql, ml.Kafka, ml.Http, ml.Shared or a function")
