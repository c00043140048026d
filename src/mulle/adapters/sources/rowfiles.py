"""Files read by spans: rows of Parquet and Arrow files, bytes of CSV and JSON lines files cut at line ends."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import orjson
import polars as pl

from mulle.adapters.sources.objects import Found, Store, store_of, unreadable
from mulle.core.errors import DataError
from mulle.core.ports.rowfiles import Broken, RowFile, Rows, Span

__all__ = ["SpanFiles"]

_ROWS = 131_072
_BYTES = 16 << 20
_SHOWN = 200
_NULLS = ["", "NA"]
_ENDINGS = {
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".csv": "csv", ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}  # fmt: skip


class SpanFiles:
    """Implements `RowFiles` for a local folder and S3.

    Parameters
    ----------
    folder : Path
        Where relative paths start.
    rows : int
        Most rows in a span of a columnar file.
    size : int
        About so many bytes in a span of a text file.
    """

    def __init__(self, folder: Path, *, rows: int = _ROWS, size: int = _BYTES) -> None:
        self._folder, self._rows, self._size = folder, rows, size

    def look(self, pattern: str) -> Sequence[RowFile]:
        """Find and cut the files; see the port. Each is read once, for its hash."""
        store = store_of(pattern, self._folder)
        found = [(f, kind) for f in store.files(pattern) if f.size and (kind := _ENDINGS.get(Path(f.name).suffix.lower()))]
        if not found:
            raise DataError(
                f"{pattern}: no file of rows is there", next=f"name files that end in {', '.join(_ENDINGS)}", file=pattern
            )
        return [self._looked(store, f, kind) for f, kind in found]

    def read(self, span: Span, columns: Sequence[str]) -> Rows:
        """Read a span; see the port."""
        store, found = self._opened(span)
        try:
            if span.kind in ("parquet", "arrow"):
                return _columnar(span, columns)
            with store.open(found) as stream:
                stream.seek(span.start)
                data = stream.read(span.end - span.start)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(found, error) from error
        return _csv(span, data) if span.kind == "csv" else _json_lines(span, data)

    def _opened(self, span: Span) -> tuple[Store, Found]:
        store, found = store_of(span.name, self._folder), Found(span.name, span.path, span.size, span.mtime_ns)
        if not store.is_same(found):
            raise DataError(
                f"{span.name} changed since the job began", next="put the file back, or begin anew: --anew", file=span.name
            )
        return store, found

    def _looked(self, store: Store, found: Found, kind: str) -> RowFile:
        try:
            with store.open(found) as stream:
                if kind in ("parquet", "arrow"):
                    mark = store.mark(found) or hashlib.file_digest(stream, "sha256").hexdigest()[:32]  # type: ignore[arg-type]
                    spans = self._rows_of(found, kind)
                else:
                    mark, spans = self._lines_of(stream, found, kind)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(found, error) from error
        return RowFile(name=found.name, size=found.size, hash=mark, rows=sum(s.rows for s in spans), spans=tuple(spans))

    def _rows_of(self, found: Found, kind: str) -> list[Span]:
        count = int(_scanned(_place(found), kind).select(pl.len()).collect().item())
        return [
            _span(found, kind, start, min(start + self._rows, count), start, min(self._rows, count - start))
            for start in range(0, count, self._rows)
        ]

    def _lines_of(self, stream: BinaryIO, found: Found, kind: str) -> tuple[str, list[Span]]:
        digest, spans = hashlib.sha256(), []
        columns: tuple[str, ...] = ()
        start, line = 0, 1
        for part in _whole_lines(stream, self._size, quoted=kind == "csv"):
            digest.update(part)
            end, first = start + len(part), 0
            if kind == "csv" and not start:
                columns, first = _header(part, found)
            body, skipped = part[first:], part[:first].count(b"\n")
            rows = body.count(b"\n") + (not body.endswith(b"\n"))
            if body.strip():
                spans.append(_span(found, kind, start + first, end, line + skipped, rows, columns))
            line += part.count(b"\n")
            start = end
        return digest.hexdigest()[:32], spans


def _span(found: Found, kind: str, start: int, end: int, row: int, rows: int, columns: tuple[str, ...] = ()) -> Span:
    return Span(
        name=found.name, path=found.path, kind=kind, size=found.size, mtime_ns=found.mtime_ns, start=start, end=end, row=row,
        rows=rows, columns=columns,
    )  # fmt: skip


def _place(found: Found) -> str:
    return f"s3://{found.path}" if found.name.startswith("s3://") else found.path


def _scanned(place: str, kind: str) -> pl.LazyFrame:
    if kind == "arrow":
        return pl.scan_ipc(place)
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    options = {"aws_allow_http": "true"} if plain and place.startswith("s3://") else None
    return pl.scan_parquet(place, storage_options=options, glob=False)


def _columnar(span: Span, columns: Sequence[str]) -> Rows:
    rows = _scanned(_place(Found(span.name, span.path, span.size, span.mtime_ns)), span.kind)
    wanted = set(columns)
    chosen = [c for c in rows.collect_schema().names() if c in wanted]
    frame = rows.select(chosen).slice(span.start, span.end - span.start).collect()
    return Rows(values=frame, text=False, numbers=range(span.row, span.row + span.rows))


def _whole_lines(stream: BinaryIO, size: int, *, quoted: bool) -> Iterator[bytes]:
    """Give a stream in parts of about `size` bytes that end where a row does; a quoted field may hold line ends."""
    rest = b""
    while data := stream.read(size):
        rest += data
        cut = _cut(rest, quoted)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _cut(data: bytes, quoted: bool) -> int:
    """Find the end of the last whole row, or 0.

    Examples
    --------
    >>> _cut(b'a,b', True), _cut(b'a\\n"b\\nc', True), _cut(b'a\\n"b\\nc', False)
    (0, 2, 5)
    """
    at = data.rfind(b"\n")
    open_quotes = data.count(b'"', 0, at) if quoted and at >= 0 else 0
    while at >= 0 and open_quotes % 2:
        before = data.rfind(b"\n", 0, at)
        open_quotes -= data.count(b'"', max(before, 0), at)
        at = before
    return at + 1


def _header(part: bytes, found: Found) -> tuple[tuple[str, ...], int]:
    end = next((i + 1 for i, b in enumerate(part) if b == 10 and part.count(b'"', 0, i) % 2 == 0), len(part))
    text = part[:end].decode("utf-8-sig", "replace")
    names = next(iter(csv.reader(io.StringIO(text))), [])
    if not names or len(set(names)) != len(names):
        raise DataError(f"{found.name}: the header has no names, or one twice", next="mend the file", file=found.name)
    return tuple(names), end


def _csv(span: Span, data: bytes) -> Rows:
    try:
        frame = pl.read_csv(
            data, has_header=False, schema=dict.fromkeys(span.columns, pl.String()), null_values=_NULLS, glob=False,
            encoding="utf8", truncate_ragged_lines=False,
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        return _csv_by_line(span, data)
    # Polars fills a short line with nulls and passes over a blank one; only the slow reader tells which line it was.
    if frame.height != span.rows or not _is_even(data, frame):
        return _csv_by_line(span, data)
    return Rows(values=frame, text=True, numbers=range(span.row, span.row + frame.height))


def _is_even(data: bytes, frame: pl.DataFrame) -> bool:
    """Tell whether every line has every field."""
    if frame.width == 1 or not frame[frame.columns[-1]].null_count():
        return True
    return b'"' not in data and data.count(b",") == frame.height * (frame.width - 1)


def _csv_by_line(span: Span, data: bytes) -> Rows:
    reader = csv.reader(io.StringIO(data.decode("utf-8", "replace"), newline=""))
    kept: list[list[str | None]] = []
    numbers: list[int] = []
    broken: list[Broken] = []
    width, line = len(span.columns), span.row
    for fields in reader:
        here, line = line, span.row + reader.line_num
        if not fields:
            continue
        if len(fields) != width:
            broken.append(Broken(here, f"{len(fields)} fields, the header has {width}", ",".join(fields)[:_SHOWN]))
        elif any("\ufffd" in field for field in fields):
            broken.append(Broken(here, "not UTF-8", ",".join(fields)[:_SHOWN]))
        else:
            kept.append([None if field in _NULLS else field for field in fields])
            numbers.append(here)
    frame = pl.DataFrame(kept, schema=dict.fromkeys(span.columns, pl.String()), orient="row")
    return Rows(values=frame, text=True, numbers=numbers, broken=broken)


def _json_lines(span: Span, data: bytes) -> Rows:
    objects, numbers, broken = [], [], []
    for number, line in enumerate(data.split(b"\n"), span.row):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            broken.append(Broken(number, f"not JSON: {str(error).partition(':')[0]}", line[:_SHOWN].decode("utf-8", "replace")))
            continue
        if isinstance(found, dict):
            objects.append(found)
            numbers.append(number)
        else:
            broken.append(Broken(number, "not a JSON object", line[:_SHOWN].decode("utf-8", "replace")))
    return Rows(values=objects, text=False, numbers=numbers, broken=broken)
