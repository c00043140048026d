"""Files as a source: each is read once, and what is appended to a CSV or JSON lines file is read alone."""

from __future__ import annotations

import hashlib
import time as walltime
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from mulle.adapters.sources.columnar import columnar
from mulle.adapters.sources.delimited import read_csv
from mulle.adapters.sources.frames import FrameReader
from mulle.adapters.sources.jsonlines import read_jsonl
from mulle.adapters.sources.lines import LineFile
from mulle.adapters.sources.objects import Found, S3Store, store_of, unreadable
from mulle.adapters.sources.spool import Budget, Portion, pieces
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError
from mulle.core.ports.source import Batch
from mulle.core.records.base import Json

__all__ = ["FilesReader"]

_ENDINGS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_SETTLED_NS = 60 * 10**9
"""A local file that was left alone for so long is taken to be written to its end."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What one file gave: its position, and its rows when there are new ones.

    `refused` is its position when those are turned away: it keeps, as ``before``, how far the file was read without them.
    """

    position: Json
    refused: Json
    portion: Portion | None = None
    counted: int | None = None
    waits: bool = False


class FilesReader:
    """Reads the new files below a path, glob or folder; implements `SourceReader`.

    Positions are ``{"files": {name: {size, mtime_ns, hash, rows}}}``, and ``text`` for a CSV: its columns of text; ``before``
    is an earlier position, or null, where the rows since then were turned away. A file
    of the same size and modification time is not opened again; one whose content is the same is not read again. A CSV or
    JSON lines file that grew, its old bytes unchanged, gives the appended rows only. Any other change gives the whole file
    again, as corrections of its rows; without a key, which alone tells what is corrected, it is refused. There a last line
    without an end waits too, until it has one or the file was left alone for a minute.

    Text files are read to their end, and Parquet and Arrow files looked into, before the first row is given; a batch's
    rows wait in memory up to 512 MiB and on disk beyond.

    Parameters
    ----------
    folder : Path
        Where relative paths start: the project.
    source : Files
    available : str or None
        The column that tells when a row became known; only used on a replay clock (`until`).
    time : str or None
        Stands in where `available` is null.
    text : collection of str
        Columns of a CSV that are text whatever they look like, such as codes with leading zeros.
    keyed : bool
        Whether a row that is given again takes the place of the earlier one.
    late : bool
        Whether the folder or file may come later: until then there is nothing new.
    """

    def __init__(
        self,
        folder: Path,
        source: Files,
        available: str | None = None,
        *,
        time: str | None = None,
        text: Collection[str] = (),
        keyed: bool = True,
        late: bool = False,
    ) -> None:
        self._source, self._store = source, store_of(source.path, folder)
        self._available, self._time, self._text = available, time, frozenset(text)
        self._chosen: frozenset[str] | None = None
        self._keyed, self._late = keyed, late

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return what is new since `positions`, or None.

        With `until` and a column of availability, the rows of all files that became known after the last read and not
        after `until` are given, in that order.

        Raises
        ------
        DataError
            When a file cannot be read, a plain path or the folder of a glob does not exist, a plain path is empty, or a
            file whose rows have no key was changed; names file, line and column.
        Unavailable
            When the object store is away, or a file changes while it is read.
        """
        files = self._files()
        if self._available is not None and (until is not None or "until" in positions):
            return self._replayed(files, positions, until)
        known: dict[str, Any] = positions.get("files", {})
        seen, budget = dict(known), Budget()
        reads: list[_Read] = []
        for found in files:
            if self._chosen is not None and found.name not in self._chosen:
                continue
            read = self._read(found, known.get(found.name), budget)
            if read is not None:
                seen[found.name] = read.position
                reads += [read] if read.portion else []
        portions = [r.portion for r in reads if r.portion]
        if not portions:
            return None
        counts = [r.counted for r in reads]
        return Batch(
            pieces=pieces(portions),
            positions={"files": seen},
            origin=_origin([p.name for p in portions], [r.portion.name for r in reads if r.portion and r.waits]),
            counted=None if None in counts else sum(c or 0 for c in counts),
            parts=[p.name for p in portions],
            refused={"files": seen | {r.portion.name: r.refused for r in reads if r.portion}},
        )

    def only(self, parts: Collection[str]) -> FilesReader:
        """Give a reader of some of the files."""
        reader = copy(self)
        reader._chosen = frozenset(parts)
        return reader

    def _replayed(self, files: list[Found], positions: Json, until: datetime | None) -> Batch | None:
        budget = Budget()
        portions = [r.portion for f in files if (r := self._read(f, None, budget)) is not None and r.portion]
        if not portions:
            return None
        rows = _zoned(pl.concat(pieces(portions)))
        return FrameReader(rows, self._available, time=self._time, origin=self._source.path).read(positions, until)

    def _files(self) -> list[Found]:
        path = self._source.path
        found = self._store.files(path)
        if not found and self._late:
            return []
        if not self._store.is_plain(path):
            if not found and (missing := self._store.missing(path)) is not None:
                raise DataError(f"{path}: there is no {missing}", next="create it, or mend the path in project.py", file=path)
            kept = [f for f in found if self._kind(f) and f.size]  # a file without content is one still to be written
            if found and not kept and not any(self._kind(f) for f in found) and Path(path).suffix.strip("."):
                raise DataError(f"{path}: no ending tells the format of {found[0].name}", next="name it: ml.Files(..., format=)")
            return kept
        if not found:
            raise DataError(f"no file {path}", next="put the file there, or mend the path in project.py", file=path)
        if self._kind(found[0]) is None:
            raise DataError(f"{path}: its ending tells no format", next="name it: ml.Files(..., format=)", file=path)
        if not found[0].size:
            raise DataError(f"{path} is empty: not even a header", next="write the file again", file=path)
        return found

    def _kind(self, found: Found) -> str | None:
        told = _ENDINGS.get(Path(found.name).suffix.lower())
        wanted = self._source.format
        return wanted if wanted is not None and told in (None, wanted) else (told if wanted is None else None)

    def _read(self, found: Found, known: dict[str, Any] | None, budget: Budget) -> _Read | None:
        if known and (known["size"], known["mtime_ns"]) == (found.size, found.mtime_ns):
            return None
        kind = str(self._kind(found))
        try:
            if kind in ("csv", "jsonl"):
                return self._read_lines(found, known, kind, budget)
            return self._read_columnar(found, known, kind)
        except OSError as error:
            raise unreadable(found, error) from error

    def _read_lines(self, found: Found, known: dict[str, Any] | None, kind: str, budget: Budget) -> _Read | None:
        with self._store.open(found) as stream:
            lines = LineFile(stream, found, quoted=kind == "csv", growing=self._is_growing(found))
            head = lines.head() if kind == "csv" else b""
            if kind == "csv" and not lines.reached:
                return None
            if not lines.resume(known):
                return _same(known, found)
            # What was turned away is published nowhere: from before it, there is nothing to correct.
            if not self._keyed and known and not lines.resumed and not lines.resume(known := _before(known)):
                return _same(known, found)
            self._refuse_changed(found, known if not lines.resumed else None)
            before = known if known and lines.resumed else {}
            if kind == "jsonl":
                spool, facts = read_jsonl(lines, budget=budget), {}
            else:
                text = self._text.union(before.get("text", ()))
                separator, nulls = self._source.separator, self._source.nulls
                spool, columns = read_csv(lines, head, separator=separator, nulls=nulls, text=text, budget=budget)
                facts = {"text": columns}
        position = lines.position(before.get("rows", 0) + spool.rows) | facts
        refused = {**position, "before": _before(known)}
        return _Read(position, refused, spool.portion() if spool.rows else None, waits=lines.reached < found.size)

    def _read_columnar(self, found: Found, known: dict[str, Any] | None, kind: str) -> _Read:
        mark = self._store.mark(found)
        if mark is None:
            with self._store.open(found) as stream:
                mark = hashlib.file_digest(stream, "sha256").hexdigest()[:32]  # type: ignore[arg-type]
        position = {"size": found.size, "mtime_ns": found.mtime_ns, "hash": mark, "rows": 0}
        if known and known["hash"] == mark:
            return _same(known, found)
        self._refuse_changed(found, _before(known))
        portion, rows = columnar(self._store, found, kind)
        position["rows"] = rows
        return _Read(position, {**position, "before": _before(known)}, portion if rows != 0 else None, rows)

    def _is_growing(self, found: Found) -> bool:
        # Objects of S3 appear whole. Where a key tells which row is corrected, and on a replay, nothing need wait.
        if self._keyed or self._available is not None or isinstance(self._store, S3Store):
            return False
        return 0 <= walltime.time_ns() - found.mtime_ns < _SETTLED_NS

    def _refuse_changed(self, found: Found, known: dict[str, Any] | None) -> None:
        if known and not self._keyed:
            raise DataError(
                f"{found.name} was changed after it was read, not only appended to: without a key nothing tells which rows to "
                "correct",
                next="declare key= on the dataset, or put the file back and what is new into a file of its own",
                file=found.name,
            )


def _same(known: dict[str, Any] | None, found: Found) -> _Read:
    """Give the position of a file whose content is that of `known`."""
    position = {**(known or {}), "size": found.size, "mtime_ns": found.mtime_ns}
    return _Read(position, position)


def _before(known: dict[str, Any] | None) -> dict[str, Any] | None:
    """Give how far a file was read without what was turned away; None where nothing of it was taken."""
    return known["before"] if known and "before" in known else known


def _origin(names: list[str], waiting: list[str]) -> str:
    said = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return said + (f"; an unfinished last line waits: {_origin(waiting, [])}" if waiting else "")


def _zoned(rows: pl.DataFrame) -> pl.DataFrame:
    naive = [n for n, d in rows.schema.items() if isinstance(d, pl.Datetime) and d.time_zone is None]
    return rows.with_columns(pl.col(n).dt.replace_time_zone("UTC") for n in naive)
