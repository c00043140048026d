"""An HTTP endpoint as a source: pages of JSON, JSON lines or CSV, read until they end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import orjson
import polars as pl

from mulle.adapters.sources.delimited import read_csv
from mulle.adapters.sources.environment import filled
from mulle.adapters.sources.jsonlines import read_jsonl
from mulle.adapters.sources.lines import LineFile
from mulle.adapters.sources.objects import Found
from mulle.adapters.sources.spool import Budget, Spool, pieces
from mulle.adapters.sources.web import Client, Page
from mulle.core.clock import rfc3339
from mulle.core.declare.sources import Http
from mulle.core.errors import DataError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

__all__ = ["HttpReader"]

_FORMATS = {
    "application/json": "json",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/x-jsonlines": "jsonl",
    "text/csv": "csv",
}
_NULLS = ("", "NA")
_INSTANTS = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")


class HttpReader:
    """Reads an endpoint page by page; implements `SourceReader`.

    With a cursor, positions are ``{"cursor": the highest value read, "behind": how many rows had it}``. Rows of one
    moment may come one after the other: where that value now has more of them, all are given again, with `repeats` set.
    Without a cursor every read gives everything, with `repeats` set.

    Parameters
    ----------
    source : Http
    backoff : float
        Seconds before the second retry of a request, doubled for each further one.
    """

    def __init__(self, source: Http, *, backoff: float = 0.5) -> None:
        self._source, self._backoff = source, backoff
        parts = urlsplit(source.url)
        self._name = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:  # noqa: ARG002
        """Return the rows beyond the cursor and late ones at it, or all rows, or None when there are none.

        Raises
        ------
        DataError
            When the endpoint refuses, answers something else than rows, its pages go in a circle, or a cursor is null or went
            back.
        Unavailable
            When it is away or busy, after four attempts.
        UsageError
            When the environment lacks a name that the declaration asks for.
        """
        budget = Budget()
        spool, late = Spool(self._name, budget), Spool(self._name, budget)
        cursor = None if self._source.cursor is None else _Cursor(self._name, self._source.cursor, positions.get("cursor"))
        client = Client(self._source, self._name, backoff=self._backoff)
        try:
            for rows in self._frames(client, positions.get("cursor")):
                again, fresh = (None, rows) if cursor is None else cursor.parted(rows)
                for part, kept in ((again, late), (fresh, spool)):
                    if part is not None and part.height:
                        kept.add(part)
            if cursor is not None:
                cursor.refuse_going_back()
        except BaseException:
            spool.clear()
            late.clear()
            raise
        finally:
            client.close()
        if late.rows <= positions.get("behind", 0):
            late.clear()
        given = [each.portion() for each in (late, spool) if each.rows]
        if not given:
            return None
        if cursor is None:
            return Batch(pieces=pieces(given), positions={}, origin=self._name, repeats=pl.lit(True))
        reached = {"cursor": cursor.highest, "behind": cursor.behind}
        repeats = cursor.repeats() if late.rows else None
        return Batch(pieces=pieces(given), positions=reached, origin=self._name, repeats=repeats)

    def _frames(self, client: Client, last: object) -> Iterator[pl.DataFrame]:
        source, numbered = self._source, self._source.page is not None and self._source.next is None
        query = {source.since: last} if source.since is not None and last is not None else {}
        base = _with(filled(source.url), query)
        url, number = (_with(base, {source.page: 1}) if numbered else base), 1
        seen: set[str | bytes] = set()
        while True:
            page = client.get(url)
            if not {url, page.body}.isdisjoint(seen):
                raise DataError(f"{self._name}: page {number} was given before", next="see next= and page=", page=number)
            seen |= {url}
            if numbered:
                seen = {url, page.body}  # a server that ignores the number gives one page for ever
            answer, rows = self._rows(page)
            if rows is not None:
                yield rows
            number += 1
            following = self._following(page, answer, base)
            if numbered:
                following = _with(base, {source.page: number}) if rows is not None else None
            if following is None:
                return
            url = following

    def _following(self, page: Page, answer: Any, base: str) -> str | None:
        source = self._source
        if source.next is None:
            return page.link
        value = _dug(answer, source.next)
        if value is None or value is False or value == "":
            return None
        is_url = isinstance(value, str) and value.startswith(("http://", "https://", "/", "?"))
        if source.page is None or is_url:
            return urljoin(page.url, str(value))
        return _with(base, {source.page: value})

    def _rows(self, page: Page) -> tuple[Any, pl.DataFrame | None]:
        """Read a page: the JSON answer, where it is one, and its rows, None when it has none."""
        if not page.body.strip():
            return None, None
        kind = self._source.format or self._told(page.type)
        if kind != "json":
            return None, self._read(page.body, kind)
        try:
            answer = orjson.loads(page.body)
        except orjson.JSONDecodeError as error:
            raise DataError(f"{self._name} gives no JSON: {error}", next="see the URL, or name format=") from error
        rows = self._listed(answer)
        return answer, self._read(b"\n".join(orjson.dumps(row) for row in rows), "jsonl") if rows else None

    def _listed(self, answer: Any) -> list[dict[str, Any]]:
        path = self._source.rows
        rows = _dug(answer, path) if path else answer
        if rows is None and path and _has(answer, path):
            return []
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return rows
        where = f"at '{path}'" if path else "as the answer"
        has = f"; it has {', '.join(map(str, list(answer)[:8]))}" if isinstance(answer, dict) else ""
        raise DataError(f"{self._name}: no list of objects {where}{has}", next="name where the rows are with rows=")

    def _read(self, body: bytes, kind: str) -> pl.DataFrame | None:
        stream = io.BytesIO(body)
        lines = LineFile(stream, Found(self._name, "", len(body), 0), quoted=kind == "csv")
        if kind == "csv":
            spool, _ = read_csv(lines, lines.head(), separator=",", nulls=_NULLS, text=(), budget=Budget())
        else:
            spool = read_jsonl(lines, budget=Budget())
        return pl.concat(pieces([spool.portion()])) if spool.rows else None

    def _told(self, content_type: str) -> str:
        kind = content_type.partition(";")[0].strip().lower()
        found = _FORMATS.get(kind) or ("json" if kind.endswith("+json") else None)
        if found is None:
            raise DataError(
                f"{self._name} gives {kind or 'no content type'}, not JSON or CSV", next="see the URL, or name format="
            )
        return found


class _Cursor:
    """Follows a cursor over the pages of one read.

    Attributes
    ----------
    highest : object
        The highest value met, None before the first.
    behind : int
        How many rows had it.
    """

    def __init__(self, endpoint: str, column: str, last: object) -> None:
        self._endpoint, self._column, self._last = endpoint, column, last
        self.highest: object = None
        self.behind = 0

    def parted(self, rows: pl.DataFrame) -> tuple[pl.DataFrame | None, pl.DataFrame]:
        """Give the rows at the value that the last read ended with, and those beyond."""
        name = self._column
        if name not in rows.columns:
            raise DataError(f"{self._endpoint}: no column '{name}' for the cursor", next="name one it has", column=name)
        if nulls := rows[name].null_count():
            self._refuse(f"is null in {nulls} rows")
        values = [_plain(v) for v in rows[name].to_list()]
        known = [v for v in (self._last, self.highest) if v is not None]
        if known and isinstance(known[0], str) != isinstance(values[0], str):
            self._refuse("changed its type")
        keys = _comparable(pl.Series([*values, *known]))
        here = keys[: rows.height]
        top = here.arg_max()
        assert top is not None
        count = int((here == here[top]).sum())
        if self.highest is None or here[top] > keys[-1]:
            self.highest, self.behind = values[top], count
        elif here[top] == keys[-1]:
            self.behind += count
        if self._last is None:
            return None, rows
        return rows.filter(here == keys[rows.height]), rows.filter(here > keys[rows.height])

    def refuse_going_back(self) -> None:
        """Raise where all rows lie before the value that the last read ended with."""
        if self._last is not None and self.highest is not None and not _reach(pl.Series([self.highest]), self._last)[0]:
            self._refuse(f"went back: it was {self._last}, and is {self.highest}", "name a column that only grows")

    def repeats(self) -> pl.Expr:
        """Choose the published rows that those at the last value may repeat."""
        last = self._last
        return pl.col(self._column).map_batches(lambda values: _reach(values, last), return_dtype=pl.Boolean)

    def _refuse(self, said: str, next: str = "name another column") -> None:
        raise DataError(f"{self._endpoint}: cursor '{self._column}' {said}", next=next, column=self._column)


def _reach(values: pl.Series, last: object) -> pl.Series:
    """Tell which values are not below one, whether a time is kept as a time or as text."""
    bound, keys = _comparable(pl.Series([last])), _comparable(values)
    if keys.dtype == pl.Date and bound.dtype.is_temporal():
        keys = keys.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if keys.dtype.is_numeric() != bound.dtype.is_numeric() or keys.dtype.is_temporal() != bound.dtype.is_temporal():
        return pl.repeat(True, values.len(), eager=True)  # not comparable: any may be among them
    found: pl.Series = keys >= bound[0]
    return found.fill_null(False)


def _with(url: str, query: dict[Any, Any]) -> str:
    """Add to a URL's query; a parameter that is there is replaced."""
    if not query:
        return url
    parts = urlsplit(url)
    kept = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k not in query]
    return urlunsplit(parts._replace(query=urlencode([*kept, *query.items()])))


def _dug(answer: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(answer, dict):
            return None
        answer = answer.get(part)
    return answer


def _has(answer: Any, path: str) -> bool:
    *above, last = path.split(".")
    holder = _dug(answer, ".".join(above)) if above else answer
    return isinstance(holder, dict) and last in holder


def _plain(value: Any) -> Any:
    return rfc3339(value) if isinstance(value, datetime) else value if isinstance(value, int | float | str) else str(value)


def _comparable(values: pl.Series) -> pl.Series:
    if values.dtype != pl.String:
        return values
    for form in _INSTANTS:  # as text, 10:00:00.5Z would come before 10:00:00Z
        try:
            return values.str.to_datetime(form, time_unit="us", time_zone="UTC")
        except pl.exceptions.PolarsError:
            continue
    return values
