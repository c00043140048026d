"""CSV and Parquet files as a source: each file is read once, and what is appended to a CSV is read alone."""

from __future__ import annotations

import hashlib
from datetime import datetime
from glob import has_magic
from pathlib import Path
from typing import Any

import polars as pl

from mulle.adapters.sources.frames import FrameReader
from mulle.core.declare.dataset import Files
from mulle.core.errors import DataError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

__all__ = ["FilesReader"]

_NULLS = ["", "NA"]
_ENDINGS = {".csv", ".parquet"}


class FilesReader:
    """Reads the new files below a path or glob; implements `SourceReader`.

    Positions are ``{"files": {name: {size, mtime_ns, hash, rows}}}``. A file of the same size and modification time is
    not opened again; one whose content is the same is not read again. A CSV that grew, its old bytes unchanged, gives
    the appended rows only; any other change gives the whole file again, as corrections of its rows.

    Parameters
    ----------
    folder : Path
        Where relative paths start: the project.
    source : Files
    available : str or None
        The column that tells when a row became known; only used on a replay clock (`until`).
    time : str or None
        Stands in where `available` is null.
    """

    def __init__(self, folder: Path, source: Files, available: str | None = None, *, time: str | None = None) -> None:
        self._folder, self._source = folder, source
        self._available, self._time = available, time

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return what is new since `positions`, or None.

        With `until` and a column of availability, the rows of all files that became known after the last read and not
        after `until` are given, in that order.

        Raises
        ------
        DataError
            When a file cannot be read, or a plain path does not exist; names it.
        """
        paths = self._paths()
        if self._available is not None and (until is not None or "until" in positions):
            return self._replayed(paths, positions, until)
        known: dict[str, Any] = positions.get("files", {})
        frames, seen, names = [], dict(known), []
        for path in paths:
            name = self._name(path)
            fresh = _fresh(path, known.get(name))
            if fresh is None:
                continue
            rows, seen[name] = fresh
            if rows.height:
                frames.append(rows)
                names.append(name)
        if not frames:
            return None
        origin = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return Batch(rows=_stacked(frames, names), positions={"files": seen}, origin=origin)

    def _replayed(self, paths: list[Path], positions: Json, until: datetime | None) -> Batch | None:
        if not paths:
            return None
        rows = _stacked([_table(p) for p in paths], [self._name(p) for p in paths])
        return FrameReader(_zoned(rows), self._available, time=self._time, origin=self._source.path).read(positions, until)

    def _paths(self) -> list[Path]:
        pattern = self._source.path
        base = Path(pattern) if Path(pattern).is_absolute() else self._folder / pattern
        if base.is_dir():
            return sorted(p for p in base.rglob("*") if p.suffix.lower() in _ENDINGS and p.is_file())
        if not has_magic(pattern):
            if not base.is_file():
                raise DataError(f"no file {base}", next="put the file there, or mend the path in project.py", file=str(base))
            return [base]
        anchor = Path(base.anchor)
        return sorted(p for p in anchor.glob(str(base.relative_to(anchor))) if p.is_file())

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else path.as_posix()


def _fresh(path: Path, known: dict[str, Any] | None) -> tuple[pl.DataFrame, dict[str, Any]] | None:
    try:
        facts = path.stat()
        if known and (known["size"], known["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns):
            return None
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", next="see its permissions", file=str(path)) from error
    digest = hashlib.sha256(content).hexdigest()[:32]
    if known and known["hash"] == digest:
        return None
    rows = _table(path)
    position = {"size": len(content), "mtime_ns": facts.st_mtime_ns, "hash": digest, "rows": rows.height}
    if known and _grew(path, content, known):
        return rows[known["rows"] :], position
    return rows, position


def _grew(path: Path, content: bytes, known: dict[str, Any]) -> bool:
    size = known["size"]
    if path.suffix.lower() != ".csv" or len(content) <= size:
        return False
    # An unfinished last line is not an appended one.
    whole = content[:size].endswith(b"\n") or content[size : size + 1] in (b"\n", b"\r")
    return whole and hashlib.sha256(content[:size]).hexdigest()[:32] == known["hash"]


def _table(path: Path) -> pl.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path, hive_partitioning=False)
        return _without_empty(pl.read_csv(path, null_values=_NULLS, try_parse_dates=True, infer_schema_length=None))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read: {cause}", next="mend or remove the file", file=str(path)) from error


def _without_empty(rows: pl.DataFrame) -> pl.DataFrame:
    # A CSV column without any value says nothing about its type; it takes the type of the other files.
    return rows.with_columns(pl.col(n).cast(pl.Null) for n in rows.columns if rows[n].null_count() == rows.height)


def _zoned(rows: pl.DataFrame) -> pl.DataFrame:
    naive = [n for n, d in rows.schema.items() if isinstance(d, pl.Datetime) and d.time_zone is None]
    return rows.with_columns(pl.col(n).dt.replace_time_zone("UTC") for n in naive)


def _stacked(frames: list[pl.DataFrame], names: list[str]) -> pl.DataFrame:
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        first = frames[0].schema
        for frame, name in zip(frames, names, strict=True):
            for column, dtype in frame.schema.items():
                if first.get(column, dtype) != dtype:
                    said = f"{name}: column '{column}' is {dtype}, and {first[column]} in {names[0]}"
                    raise DataError(said, next="give the files one schema", file=name, column=column) from error
        raise DataError(f"the files' schemas do not fit: {error}", next="give the files one schema") from error
