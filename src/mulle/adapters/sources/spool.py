"""Brings rows that arrive in portions under one schema and gives them back in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from mulle.core.errors import DataError, Unavailable

__all__ = ["Budget", "Portion", "Spool", "fitted", "joined", "pieces", "together"]

_MEMORY = 512 << 20
_ROWS = 65_536

Types = Mapping[str, pl.DataType]


class Budget:
    """How many bytes of rows a batch may hold in memory; shared by its spools."""

    def __init__(self, left: int = _MEMORY) -> None:
        self._left = left

    def take(self, size: int) -> bool:
        """Take `size` bytes; False when that many are not left."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._left += size


class Spool:
    """Rows in the order they were added: in memory up to a budget, then on disk.

    Types may widen from one frame to the next: nulls take any type, integers become floats. What is added is known to be
    readable, and has one schema, before the first row is given back.

    Examples
    --------
    >>> spool = Spool("orders")
    >>> spool.add(pl.DataFrame({"x": [1]})); spool.add(pl.DataFrame({"x": [0.5], "y": ["a"]}))
    >>> spool.portion().schema
    {'x': Float64, 'y': String}
    """

    def __init__(self, name: str, budget: Budget | None = None) -> None:
        self._name, self._budget = name, budget or Budget()
        self._kept: deque[pl.DataFrame | Path] = deque()
        self._folder: TemporaryDirectory[str] | None = None
        self._types: dict[str, pl.DataType] = {}
        self.rows = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows.

        Raises
        ------
        DataError
            When a column's type conflicts with the rows before.
        Unavailable
            When the disk is full.
        """
        self._types = together([("the rows before", self._types), (self._name, frame.schema)])
        self.rows += frame.height
        if frame.height:
            self._kept.append(frame if self._budget.take(int(frame.estimated_size())) else self._written(frame))

    def clear(self) -> None:
        """Forget everything that was added."""
        for kept in self._kept:
            if isinstance(kept, pl.DataFrame):
                self._budget.give(int(kept.estimated_size()))
        self._kept.clear()
        self._types, self.rows = {}, 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def portion(self) -> Portion:
        """Give what was added, to be read once."""
        return Portion(name=self._name, schema=self._types, frames=self._drained())

    def _drained(self) -> Iterator[pl.DataFrame]:
        try:
            while self._kept:
                kept = self._kept.popleft()
                if isinstance(kept, Path):
                    yield pl.read_ipc(kept)
                    kept.unlink()
                else:
                    self._budget.give(int(kept.estimated_size()))
                    yield kept
        finally:
            self.clear()

    def _written(self, frame: pl.DataFrame) -> Path:
        try:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="mulle-")
            path = Path(self._folder.name) / f"{len(self._kept)}-{self.rows}.arrow"
            frame.write_ipc(path, compression="lz4")
        except OSError as error:
            raise Unavailable(
                f"{self._name}: rows could not be kept on disk: {error}", next="free the temporary folder (TMPDIR)"
            ) from error
        return path


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of one origin: its name, its columns and types, and its frames, read once."""

    name: str
    schema: Types
    frames: Iterable[pl.DataFrame]


def pieces(portions: Sequence[Portion]) -> Iterator[pl.DataFrame]:
    """Give the rows of all portions under one schema, in order; small frames are put together.

    The schema is settled at the call, the rows are read as they are asked for.

    Raises
    ------
    DataError
        When two portions' types conflict; names portion and column.
    """
    schema = together([(p.name, p.schema) for p in portions])
    return _gathered((fitted(frame, schema) for portion in portions for frame in portion.frames), schema)


def _gathered(frames: Iterable[pl.DataFrame], schema: Types) -> Iterator[pl.DataFrame]:
    waiting: list[pl.DataFrame] = []
    height = given = 0
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        if height >= _ROWS:
            yield pl.concat(waiting) if len(waiting) > 1 else frame
            waiting, height, given = [], 0, given + 1
    if height or not given:
        yield pl.concat([pl.DataFrame(schema=schema), *waiting])


def together(schemas: Iterable[tuple[str, Types]]) -> dict[str, pl.DataType]:
    """Join named schemas into the one that holds the rows of all.

    Raises
    ------
    DataError
        When a column's types conflict; names the column and who has it.

    Examples
    --------
    >>> together([("a.csv", {"x": pl.Int64()}), ("b.csv", {"x": pl.Float64(), "y": pl.Null()})])
    {'x': Float64, 'y': Null}
    """
    found: dict[str, pl.DataType] = {}
    owners: dict[str, str] = {}
    for name, schema in schemas:
        for column, dtype in schema.items():
            both = joined(found[column], dtype) if column in found else dtype
            if both is None:
                raise DataError(
                    f"{name}: column '{column}' is {dtype}, and {found[column]} in {owners[column]}",
                    next=f"give it one type, or declare the dataset with schema={{'{column}': 'String'}}",
                    file=name,
                    column=column,
                )
            if both != found.get(column):
                owners[column] = name
            found[column] = both
    return found


def joined(a: pl.DataType, b: pl.DataType) -> pl.DataType | None:
    """Give the type that holds the values of both without changing what they mean, or None.

    Examples
    --------
    >>> joined(pl.Int64(), pl.Float64()), joined(pl.Int64(), pl.String())
    (Float64, None)
    """
    if a == b:
        return a
    for one, other in ((a, b), (b, a)):
        if one == pl.Null:
            return other
        if _is_text(one) and _is_text(other):
            return pl.String()
        if isinstance(one, pl.Datetime) and isinstance(other, pl.Date):
            return one
    alike = any(all(isinstance(t, kind) for t in (a, b)) for kind in (pl.Struct, pl.List, pl.Duration))
    if (a.is_numeric() and b.is_numeric()) or alike:
        empty = [pl.DataFrame(schema={"x": t}) for t in (a, b)]
        try:
            return pl.concat(empty, how="vertical_relaxed").schema["x"]
        except pl.exceptions.PolarsError:
            return None
    if isinstance(a, pl.Datetime) and isinstance(b, pl.Datetime):
        # A time without a zone is UTC, as everywhere.
        return pl.Datetime("us", a.time_zone if a.time_zone == b.time_zone else "UTC")
    return None


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, (pl.String, pl.Categorical, pl.Enum))


def fitted(frame: pl.DataFrame, schema: Types) -> pl.DataFrame:
    """Give the frame the schema's columns and types; columns that it lacks are null."""
    if frame.schema == schema:
        return frame
    return frame.select(_fitted(name, frame.schema.get(name), dtype) for name, dtype in schema.items())


def _fitted(name: str, has: pl.DataType | None, wanted: pl.DataType) -> pl.Expr:
    if has is None:
        return pl.lit(None, dtype=wanted).alias(name)
    column = pl.col(name)
    if has == wanted:
        return column
    if isinstance(wanted, pl.Datetime) and isinstance(has, (pl.Datetime, pl.Date)):
        zone = has.time_zone if isinstance(has, pl.Datetime) else None
        column = column.cast(pl.Datetime(wanted.time_unit, zone))
        if wanted.time_zone == zone:
            return column
        return column.dt.convert_time_zone("UTC") if zone else column.dt.replace_time_zone("UTC")
    return column.cast(wanted)
