"""Where a dataset's rows come from: what a project names, read by `adapters.sources`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import polars as pl

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["Files", "Function", "Http", "Kafka", "Reads", "Shared", "Source", "Sql"]

Rows = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]
Reads = Callable[[dict[str, Any]], "Rows | tuple[Rows, dict[str, Any]] | None"]
"""A user's function: takes the position it gave last ({} at first), gives rows, or rows and its new position."""

_FORMATS = ("csv", "jsonl", "parquet", "arrow")


@dataclass(frozen=True, slots=True, init=False)
class Files:
    """Files below a path, glob or folder that keeps receiving files; local or ``s3://``.

    Parameters
    ----------
    path : str
        Relative paths start at the project.
    format : {"csv", "jsonl", "parquet", "arrow"}, optional
        By default the file's ending tells (``.csv``, ``.jsonl`` or ``.ndjson``, ``.parquet``, ``.arrow``, ``.feather`` or
        ``.ipc``).
    separator : str
        Between a CSV's fields.
    nulls : sequence of str
        A CSV's texts that mean null.

    Raises
    ------
    DeclarationError
        On an unknown format, or a separator of more than one byte.

    Examples
    --------
    >>> Files("data/flights/*.parquet").path
    'data/flights/*.parquet'
    """

    path: str
    format: str | None
    separator: str
    nulls: tuple[str, ...]

    def __init__(self, path: str, *, format: str | None = None, separator: str = ",", nulls: Sequence[str] = ("", "NA")) -> None:
        if format is not None and format not in _FORMATS:
            raise DeclarationError(f"Files({path!r}): unknown format {format!r}", next=f"choose {', '.join(_FORMATS)}")
        if len(separator.encode()) != 1:
            raise DeclarationError(f"Files({path!r}): separator {separator!r} is not one byte", next="name one, such as ';'")
        object.__setattr__(self, "path", str(path))
        object.__setattr__(self, "format", format)
        object.__setattr__(self, "separator", separator)
        object.__setattr__(self, "nulls", (nulls,) if isinstance(nulls, str) else tuple(nulls))


@dataclass(frozen=True, slots=True, init=False)
class Sql:
    """A table or query of any database that SQLAlchemy reaches.

    Parameters
    ----------
    url : str
        SQLAlchemy's; ``${NAME}`` is filled from the environment, so that no secret stands in the project.
    query : str
        A table's name, or a SELECT.
    cursor : str, optional
        A column that only grows (number or time): only rows beyond the last one read are asked for. Without it everything
        is read each time and rows that are published already are left out.
    overlap : str or number, optional
        How far behind the cursor rows may still appear ("1h" for times, a number for numbers): that span is read again
        and rows that are published already are left out.

    Raises
    ------
    DeclarationError
        When an overlap is given without a cursor.

    Examples
    --------
    >>> Sql("sqlite:///shop.db", "orders", cursor="updated_at", overlap="1h").overlap
    datetime.timedelta(seconds=3600)
    """

    url: str = field(repr=False)
    query: str
    cursor: str | None
    overlap: timedelta | float | None

    def __init__(
        self, url: str, query: str, *, cursor: str | None = None, overlap: str | timedelta | float | None = None
    ) -> None:
        if overlap is not None and cursor is None:
            raise DeclarationError("Sql: overlap without cursor", next="name the cursor's column as well")
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "query", query)
        object.__setattr__(self, "cursor", cursor)
        object.__setattr__(self, "overlap", duration(overlap) if isinstance(overlap, str) else overlap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """A topic whose messages are JSON objects, one row each; offsets are kept with the published version.

    Parameters
    ----------
    topic : str
    servers : str, optional
        Bootstrap servers; by default the ``broker`` setting. ``${NAME}`` is filled from the environment.
    options : mapping, optional
        librdkafka's own, such as ``{"security.protocol": "SSL"}``; values are filled from the environment too.
    limit : int
        Most messages of one batch.

    Raises
    ------
    DeclarationError
        Without a topic's name, or when a batch could hold no message.

    Examples
    --------
    >>> Kafka(topic="flights").limit
    200000
    """

    topic: str
    servers: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    limit: int = 200_000

    def __post_init__(self) -> None:
        if not self.topic.strip():
            raise DeclarationError("Kafka: the topic has no name", next='name it: ml.Kafka(topic="...")')
        if self.limit < 1:
            raise DeclarationError(
                f"Kafka(topic={self.topic!r}): limit is {self.limit}", next="let a batch hold 1 message or more"
            )


@dataclass(frozen=True, slots=True, init=False)
class Http:
    """A JSON or CSV endpoint, paged and retried.

    Parameters
    ----------
    url : str
        ``${NAME}`` is filled from the environment, here and in `headers`.
    rows : str, optional
        Where a JSON answer holds its list of rows, such as ``data.items``; by default the answer is the list.
    next : str, optional
        Where a JSON answer names the next page: a URL, or a token sent as `page`. A ``Link: <...>; rel="next"`` header is
        followed without it.
    page : str, optional
        The query parameter that carries a page number (from 1) or the token of `next`; pages end at the first empty one.
    cursor, since : str, optional
        A column that only grows, and the query parameter that asks for rows beyond it. Without them everything is read
        each time and rows that are published already are left out.
    headers : mapping, optional
    format : {"json", "jsonl", "csv"}, optional
        By default the answer's content type tells.
    timeout : str
        For each request.

    Raises
    ------
    DeclarationError
        When only one of `cursor` and `since` is given.

    Examples
    --------
    >>> Http("https://example.org/orders", rows="data", cursor="id", since="after").since
    'after'
    """

    url: str
    rows: str | None
    next: str | None
    page: str | None
    cursor: str | None
    since: str | None
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    format: str | None
    timeout: timedelta

    def __init__(
        self,
        url: str,
        *,
        rows: str | None = None,
        next: str | None = None,
        page: str | None = None,
        cursor: str | None = None,
        since: str | None = None,
        headers: Mapping[str, str] | None = None,
        format: Literal["json", "jsonl", "csv"] | None = None,
        timeout: str | timedelta = "30s",
    ) -> None:
        if (cursor is None) != (since is None):
            raise DeclarationError(f"Http({url!r}): cursor and since go together", next="name the column and its parameter")
        values = {"url": url, "rows": rows, "next": next, "page": page, "cursor": cursor, "since": since}
        values |= {"format": format, "timeout": duration(timeout), "headers": tuple((headers or {}).items())}  # type: ignore[dict-item]
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function that gives rows; a dataset wraps a bare function in it.

    The function takes the position it returned last (``{}`` at first). Where it returns rows alone, everything is taken
    to be given each time, and rows that are published already are left out.
    """

    function: Reads

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))


@dataclass(frozen=True, slots=True)
class Shared:
    """Published versions of another project's dataset, as ``mulle data share`` names them; read-only.

    Parameters
    ----------
    url : str
        Such as ``file:///srv/flights/.mulle/lake/shared/flights.json`` or ``s3://bucket/lake/shared/flights.json``.

    Examples
    --------
    >>> Shared("s3://bucket/lake/shared/flights.json").url
    's3://bucket/lake/shared/flights.json'
    """

    url: str


Source = Files | Sql | Kafka | Http | Function | Shared
