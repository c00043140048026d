"""What is in the log and not yet in the lake, read without moving anything: for whoever asks about a moment ago."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from mulle.core.ports.lake import Lake
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.lifecycle.serving.log import SUFFIX, read_records
from mulle.lifecycle.serving.rows import label_rows, prediction_rows

__all__ = ["undrained"]

_MAKE: dict[str, Callable[[list[bytes]], pl.DataFrame]] = {PREDICTIONS: prediction_rows, LABELS: label_rows}


def undrained(folder: Path, lake: Lake, table: str) -> pl.DataFrame:
    """Read the rows that the next drain would move.

    Parameters
    ----------
    folder : Path
        The home's log folder (`log_folder`).
    lake : Lake
    table : str
        `PREDICTIONS` or `LABELS`.

    Returns
    -------
    polars.DataFrame
        With the table's columns. A drain that runs meanwhile may have moved some of them already: take each ``id`` once.
    """
    payloads: list[bytes] = []
    for path in sorted(folder.glob(f"{table}-*{SUFFIX}")):
        start = lake.applied(table, path.stem) or 0
        try:
            with path.open("rb") as file:
                file.seek(start)
                payloads += [record.payload for record in read_records(file.read(), start)]
        except FileNotFoundError:  # drained and gone since it was listed
            continue
    return _MAKE[table](payloads)
