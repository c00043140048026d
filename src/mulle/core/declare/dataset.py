"""Datasets and where their rows come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mulle.core.declare.checks import Check
from mulle.core.declare.names import columns, plain_name
from mulle.core.errors import DeclarationError

__all__ = ["Dataset", "Files", "Source"]


@dataclass(frozen=True, slots=True)
class Files:
    """Files below a path or glob, CSV or Parquet by their ending; relative paths start at the project.

    Examples
    --------
    >>> Files("data/flights/*.parquet").path
    'data/flights/*.parquet'
    """

    path: str


Source = Files


@dataclass(frozen=True, slots=True, init=False)
class Dataset:
    """A named table of rows, versioned and checked.

    Parameters
    ----------
    name : str
    source : Source
        Where rows come from.
    key : str or sequence of str, optional
        Columns that name a row's subject.
    time : str, optional
        The moment a prediction is asked for; datetime column, UTC when it has no zone.
    known_at : str, optional
        The moment the outcome columns become known; defaults to `time`.
    outcome : str or sequence of str, optional
        Columns that are not known at `time`: never features, only targets.
    checks : iterable of checks
        What ``ml.unique(...)`` and its like return.

    Raises
    ------
    DeclarationError
        On a name that cannot be a folder, or `known_at` without `time`.

    Examples
    --------
    >>> Dataset("weather", Files("w/*.parquet"), key="origin", time="observed_at").available
    'observed_at'
    """

    name: str
    source: Source
    key: tuple[str, ...]
    time: str | None
    known_at: str | None
    outcome: tuple[str, ...]
    checks: tuple[Check, ...] = field(repr=False)

    def __init__(
        self,
        name: str,
        source: Source,
        *,
        key: str | Iterable[str] | None = None,
        time: str | None = None,
        known_at: str | None = None,
        outcome: str | Iterable[str] | None = None,
        checks: Iterable[Check | tuple[Check, ...]] = (),
    ) -> None:
        if known_at and not time:
            raise DeclarationError(f"dataset {name}: known_at without time", next="declare time= as well")
        flat = tuple(c for item in checks for c in (item if isinstance(item, tuple) else (item,)))
        for attribute, value in {
            "name": plain_name(name, "dataset"),
            "source": source,
            "key": columns(key),
            "time": time,
            "known_at": known_at,
            "outcome": columns(outcome),
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
