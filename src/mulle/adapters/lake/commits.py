"""What goes with a commit, and the operations that take files away: erasing for good, and clearing out what was superseded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction
from pyarrow.fs import FileSelector, FileSystem

from mulle.core.errors import DataError
from mulle.core.records.base import Json

__all__ = ["FLOOR", "NOTE", "erase", "properties", "vacuum"]

NOTE = "mulle"
"""Where a commit keeps its note."""

FLOOR = "mulle.floor"
"""The table's property that names its oldest version still to be read; those before an erasure are gone."""

_KEYS_AT_ONCE = 500


def properties(application: str, sequence: int, note: Json | None, retries: int) -> CommitProperties:
    """Give a commit its application's sequence, and its note."""
    words = None if note is None else {NOTE: json.dumps({"application": application, "sequence": sequence, "words": note})}
    return CommitProperties(
        app_transactions=[Transaction(application, sequence)], custom_metadata=words, max_commit_retries=retries
    )


def erase(table: DeltaTable, keys: pl.DataFrame, files: FileSystem) -> int:
    """Delete rows by key, then every file and log entry that could still show them.

    Parameters
    ----------
    table : DeltaTable
        At its last version.
    keys : polars.DataFrame
    files : pyarrow FileSystem
        Rooted at the table.

    Returns
    -------
    int
        Rows deleted.
    """
    deleted = 0
    for portion in keys.unique().iter_slices(_KEYS_AT_ONCE):
        deleted += int(table.delete(_predicate(portion))["num_deleted_rows"])
    floor = table.version() + 1
    table.alter.set_table_properties({FLOOR: str(floor)}, raise_if_not_exists=False)
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    # The log's older entries hold the smallest and largest value of each column in each file: they go as well, once a
    # checkpoint stands in for them.
    table.update_incremental()
    table.create_checkpoint()
    for path in _log_entries(files):
        if int(path.rsplit("/", 1)[-1][:20]) < table.version():
            files.delete_file(path)
    return deleted


def vacuum(table: DeltaTable, older: timedelta, needed: Sequence[int], folder: Path | None, *, dry_run: bool) -> tuple[int, int]:
    """Remove files that were superseded more than `older` ago and that no needed version is read from.

    Returns
    -------
    tuple
        How many, and their bytes where they lie in a folder.
    """
    last = table.version()
    # An erasure took the log's older entries away: versions before it are read from what is left.
    floor = int(table.metadata().configuration.get(FLOOR) or 0)
    kept = sorted({version for version in needed if floor <= version <= last})
    hours = int(older.total_seconds() // 3600)
    files = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, keep_versions=kept or None)
    size = 0 if folder is None else sum((folder / f).stat().st_size for f in files if (folder / f).is_file())
    if files and not dry_run:
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, keep_versions=kept or None)
    return len(files), size


def _log_entries(files: FileSystem) -> Iterator[str]:
    for info in files.get_file_info(FileSelector("_delta_log", recursive=False)):
        if info.is_file and info.base_name[:20].isdigit():
            yield info.path


def _predicate(keys: pl.DataFrame) -> str:
    return " OR ".join(
        "(" + " AND ".join(f'"{_quoted(name)}" = {_literal(value)}' for name, value in row.items()) + ")"
        for row in keys.to_dicts()
    )


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, (int, float)):
        return repr(value)
    if value is None:
        raise DataError("a key that is null names no row", next="give every column of the key")
    return "'" + str(value).replace("'", "''") + "'"
