"""CSV: types are inferred on the first rows and held to; where a later value does not fit, the column's type widens."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection

import polars as pl

from mulle.adapters.sources.lines import Block, LineFile
from mulle.adapters.sources.spool import Budget, Spool
from mulle.core.errors import DataError

__all__ = ["read_csv"]

_PREFIX = 1_000
_SEPARATORS = ",;\t|"
_INSTANTS = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f%#z")
_MOMENTS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f")


class _IsText(Exception):
    """A column of numbers or times holds other text: the whole file must be read again with it as text."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def read_csv(
    lines: LineFile, head: bytes, *, separator: str, nulls: Collection[str], text: Collection[str], budget: Budget
) -> tuple[Spool, list[str]]:
    """Read the rows of a CSV file; the types are those that inference over all of them gives.

    Parameters
    ----------
    lines : LineFile
        Its blocks come after the header.
    head : bytes
        The header.
    separator : str
    nulls : collection of str
        Texts that mean null.
    text : collection of str
        Columns that are text whatever they look like.
    budget : Budget

    Returns
    -------
    Spool, list of str
        The rows, and the columns that are text.

    Raises
    ------
    DataError
        When it cannot be read; names file, line and column.
    """
    names = _names(lines.name, head, separator)
    forced = {c for c in text if c in names}
    spool = Spool(lines.name, budget)
    while True:
        table = _Table(lines.name, head, names, separator, nulls, forced)
        try:
            for block in lines.blocks():
                spool.add(table.frame(block))
            return spool, [c for c, t in table.types.items() if t == pl.String]
        except _IsText as found:
            forced.add(found.column)
            spool.clear()
        except BaseException:
            spool.clear()
            raise


class _Table:
    """Turns blocks into frames; holds the types settled so far."""

    def __init__(
        self, name: str, head: bytes, names: list[str], separator: str, nulls: Collection[str], text: Collection[str]
    ) -> None:
        self._name, self._head, self._names = name, head, names
        self._separator, self._nulls = separator, list(nulls)
        self._text = text
        self._formats: dict[str, str] = {}
        self.types: dict[str, pl.DataType] = {}

    def frame(self, block: Block) -> pl.DataFrame:
        """Read a block; types may widen, and are kept for the next."""
        if len(self._names) > 1 and block.data[:1] in b"\r\n":  # blank lines at the start would count as the width
            rest = block.data.lstrip(b"\r\n")
            block = Block(rest, block.line + block.data[: len(block.data) - len(rest)].count(b"\n"))
        if not block.data:
            return pl.DataFrame()
        if not self.types:
            self._infer(block)
        while True:
            as_text = {n for n, t in self.types.items() if t == pl.Null} | self._formats.keys()
            try:
                found = self._parsed(block.data, {n: pl.String() if n in as_text else t for n, t in self.types.items()})
            except pl.exceptions.PolarsError as error:
                self._widen(error, block)
                continue
            if self._settled(found):
                return self._checked(self._typed(found), block)

    def _infer(self, block: Block) -> None:
        _refuse_other_separator(self._name, self._head, self._names, self._separator, block.data)
        try:
            raw = self._parsed(block.data, dict.fromkeys(self._names, pl.String()), rows=_PREFIX)
            self.types = {n: pl.String() if n in self._text else _inferred(raw[n]) for n in self._names}
        except pl.exceptions.PolarsError as error:
            raise self._explained(error, block) from error
        self._formats = {n: f for n, t in self.types.items() if (f := _format(raw[n], t)) is not None}

    def _parsed(self, data: bytes, types: dict[str, pl.DataType], rows: int | None = None) -> pl.DataFrame:
        return pl.read_csv(
            data, has_header=False, schema=types, separator=self._separator, null_values=self._nulls, n_rows=rows, glob=False
        )

    def _settled(self, found: pl.DataFrame) -> bool:
        """Tell whether the types hold; otherwise they were changed, and the block is to be read again."""
        for name, form in list(self._formats.items()):
            if _in_format(found[name], self.types[name], form) is None:
                del self._formats[name]
                return False
        fresh = [n for n, t in self.types.items() if t == pl.Null and found[n].null_count() < found.height]
        for name in fresh:
            some = found[name].drop_nulls().head(_PREFIX)
            self.types[name] = _inferred(some)
        return not fresh

    def _typed(self, found: pl.DataFrame) -> pl.DataFrame:
        times = [c for n, f in self._formats.items() if (c := _in_format(found[n], self.types[n], f)) is not None]
        return found.with_columns(*times, *(pl.col(n).cast(pl.Null) for n, t in self.types.items() if t == pl.Null))

    def _widen(self, error: pl.exceptions.PolarsError, block: Block) -> None:
        blamed = re.search(r"could not parse .* at column .*\(column number (\d+)\)", str(error), re.S)
        name = self._names[int(blamed.group(1)) - 1] if blamed else None
        if name is None or self.types[name] == pl.String:
            raise self._explained(error, block) from error
        if self.types[name] == pl.Int64:
            types: dict[str, pl.DataType] = dict.fromkeys(self._names, pl.String())
            column = self._parsed(block.data, types)[name]
            if not column.str.contains(r"^[+-]?\d{19,}$").any():  # digits that a float would lose: identifiers
                try:
                    self._parsed(block.data, types | {name: pl.Float64()})
                except pl.exceptions.PolarsError:
                    raise _IsText(name) from error
                self.types[name] = pl.Float64()
                return
        raise _IsText(name) from error

    def _checked(self, frame: pl.DataFrame, block: Block) -> pl.DataFrame:
        if len(self._names) == 1 or not frame.height or not frame[self._names[-1]].null_count():
            return frame
        # A short line reads as a row whose last fields are null.
        if (error := self._short(block)) is not None:
            raise error
        if b"\n\n" in block.data or b"\n\r\n" in block.data:  # blank lines are no rows
            return frame.filter(~pl.all_horizontal(pl.all().is_null()))
        return frame

    def _short(self, block: Block) -> DataError | None:
        data, width = block.data, len(self._names)
        short = _short_line(data, self._separator.encode(), width)
        if short is None:
            return None
        fields, index, last = short
        line = block.line + index
        cut = last and not data.endswith(b"\n")
        said = f"the file ends in the middle of line {line}" if cut else f"line {line} is too short"
        return DataError(
            f"{self._name}: {said}: {fields} of {width} fields",
            next="write the file again" if cut else "mend the line",
            file=self._name,
            line=line,
        )

    def _explained(self, error: Exception, block: Block) -> DataError:
        data, width = block.data, len(self._names)
        try:
            data.decode()
        except UnicodeDecodeError as wrong:
            line = block.line + data.count(b"\n", 0, wrong.start)
            said = f"line {line} is not UTF-8 (byte {data[wrong.start]:#04x})"
            return DataError(f"{self._name}: {said}", next="save the file as UTF-8", file=self._name, line=line)
        if (found := _long_line(data, self._separator, width)) is not None:
            line, fields = block.line + found[0], found[1]
            said = f"line {line} has {fields} fields, the header {width}"
            return DataError(f"{self._name}: {said}", next="quote the values, or mend the line", file=self._name, line=line)
        if (short := self._short(block)) is not None:
            return short
        for number, text in enumerate(data.split(b"\n"), block.line):
            if text.count(b'"') % 2:
                said = f"the quotes of line {number} do not pair up"
                return DataError(f"{self._name}: {said}", next="double a quote inside a value", file=self._name, line=number)
        return DataError(f"{self._name} cannot be read: {str(error).splitlines()[0]}", next="mend the file", file=self._name)


def _names(name: str, head: bytes, separator: str) -> list[str]:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: line 1 is not UTF-8", next="save the file as UTF-8", file=name, line=1) from error
    if "\0" in text:
        raise DataError(f"{name}, line 1: holds a NUL byte", next="write it as text", file=name, line=1)
    if "\r" in text:
        raise DataError(f"{name}: lines end in a carriage return alone", next="end them in a newline", file=name, line=1)
    if not text.strip():
        raise DataError(f"{name}: the first line is blank", next="name the columns in the first line", file=name, line=1)
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{name}: line 1 is no header: {error}", next="name the columns there", file=name, line=1) from error
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(
            f"{name}: more than one column is named '{twice[0]}'", next="name each once", file=name, line=1, column=twice[0]
        )
    return names


def _refuse_other_separator(name: str, head: bytes, names: list[str], separator: str, data: bytes) -> None:
    if len(names) > 1:
        return
    some = [line for line in data[: 1 << 16].split(b"\n")[:5] if line.strip()]
    for other in _SEPARATORS.replace(separator, ""):
        counts = {line.count(other.encode()) for line in (head, *some)}
        if counts != {0} and len(counts) == 1:
            raise DataError(
                f"{name}: one column only, with {other!r} between its parts",
                next=f"declare it: ml.Files(..., separator={other!r})",
                file=name,
                line=1,
            )


def _inferred(texts: pl.Series) -> pl.DataType:
    """Give the type of the first texts that are not null; Null when all are."""
    some = texts.drop_nulls()
    if some.is_empty():
        return pl.Null()
    buffer = some.to_frame("x").write_csv().encode()
    dtype = pl.read_csv(buffer, infer_schema_length=None, try_parse_dates=True, null_values=[]).schema["x"]
    return pl.String() if dtype in (pl.Int128, pl.Null) else dtype


def _format(texts: pl.Series, dtype: pl.DataType) -> str | None:
    # Reading times by one exact format is many times faster than by whichever fits.
    zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
    forms = ("%Y-%m-%d",) if dtype == pl.Date else _INSTANTS if zoned else _MOMENTS if isinstance(dtype, pl.Datetime) else ()
    return next((f for f in forms if _in_format(texts, dtype, f) is not None), None)


def _in_format(texts: pl.Series, dtype: pl.DataType, form: str) -> pl.Series | None:
    try:
        if isinstance(dtype, pl.Datetime):
            return texts.str.to_datetime(form, time_unit="us", time_zone=dtype.time_zone, cache=False)
        return texts.str.to_date(form, cache=False)
    except pl.exceptions.PolarsError:
        return None


def _long_line(data: bytes, separator: str, width: int) -> tuple[int, int] | None:
    """Find the first line with too many fields: which it is (from 0), and how many it has."""
    rows = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator)
    try:
        return next(((rows.line_num - 1, len(row)) for row in rows if len(row) > width), None)
    except csv.Error:
        return None


def _short_line(data: bytes, separator: bytes, width: int) -> tuple[int, int, bool] | None:
    """Find the first line with too few fields: how many it has, which line it is (from 0), whether it is the last."""
    bare = re.sub(rb'"[^"]*"', lambda q: b"\0" * q.group().count(b"\n"), data) if b'"' in data else data
    ends = bare.count(b"\n") + (not bare.endswith(b"\n"))
    if bare.count(separator) == ends * (width - 1):
        return None
    index, lines = 0, bare.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    for number, line in enumerate(lines):
        fields = line.count(separator) + 1
        if fields < width and line.strip(b"\r"):
            return fields, index, number == len(lines) - 1
        index += 1 + line.count(b"\0")
    return None
