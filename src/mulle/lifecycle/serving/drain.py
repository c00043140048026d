"""Draining: the log's segments become rows of the lake, each exactly once, whoever was killed in between.

An append carries the segment's name and the offset it reaches, so the lake itself knows what it has; a dead worker's
segment goes only when all of it is there.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mulle.core.ports.lake import Lake
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.kernel.faults import point
from mulle.lifecycle.serving.log import SUFFIX, Record, read_records
from mulle.lifecycle.serving.progress import read_progress, write_progress
from mulle.lifecycle.serving.rows import label_rows, prediction_rows

__all__ = ["Drained", "drain"]

_CHUNK = 64 * 2**20
_KINDS = (("predictions", PREDICTIONS, prediction_rows), ("labels", LABELS, label_rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How many rows went to the lake; `busy` when another drainer holds the home and nothing was tried."""

    predictions: int = 0
    labels: int = 0
    busy: bool = False


def drain(folder: Path, lake: Lake, *, now: datetime, environment: str = "") -> Drained:
    """Move what is logged and not yet in the lake; one drainer per home.

    Parameters
    ----------
    folder : Path
        The home's log folder (`log_folder`).
    lake : Lake
    now : datetime
        Recorded as the moment of progress.
    environment : str
        Whose log it is, where that is not production: its rows go to tables of their own, ``predictions_staging``.

    Returns
    -------
    Drained

    Raises
    ------
    Unavailable
        When the lake is away; nothing is lost, the next call goes on.
    """
    if not folder.is_dir():
        return Drained()
    with _alone(folder) as held:
        if not held:
            return Drained(busy=True)
        progress = read_progress(folder)
        counts = {}
        for kind, table, _ in _KINDS:
            segments = sorted(folder.glob(f"{kind}-*{SUFFIX}"))
            table += f"_{environment}" if environment else ""
            counts[kind] = sum(_segment(path, kind, table, lake, progress) for path in segments)
        left = {p.name for p in folder.glob(f"*{SUFFIX}")}
        write_progress(folder, {name: told for name, told in progress.items() if name in left})
        _forget_unborn(folder, now)
    return Drained(predictions=counts["predictions"], labels=counts["labels"])


def _segment(path: Path, kind: str, table: str, lake: Lake, progress: dict[str, tuple[int, float]]) -> int:
    with path.open("rb") as file:
        # Taken before reading: whoever is dead by now writes no more, so what is read is all there is.
        dead = _lock(file.fileno())
        begun = time.time()
        size = os.fstat(file.fileno()).st_size
        # Cheap first: the lake is asked only about a segment that may hold more than was drained.
        if not dead and progress.get(path.name, (0, 0.0))[0] == size:
            progress[path.name] = (size, begun)
            return 0
        start, count = lake.applied(table, path.stem) or 0, 0
        # What is written meanwhile waits for the next drain: one commit instead of a chase.
        while start < size and (records := _read(file, start, size)):
            count += _append(records, kind, table, path.stem, lake)
            start = records[-1].end
        progress[path.name] = (start, begun)
        if dead:
            _finish(path, start, size)
            point("during:drain:finished")
    return count


def _read(file: BinaryIO, start: int, end: int) -> list[Record]:
    # Only up to the size first seen: a drain that ran after a busy writer would never arrive.
    length = _CHUNK
    while True:
        file.seek(start)
        data = file.read(min(length, end - start))
        records = list(read_records(data, start))
        if records or len(data) < length:
            return records
        length *= 2


def _append(records: list[Record], kind: str, table: str, application: str, lake: Lake) -> int:
    make = next(make for name, _, make in _KINDS if name == kind)
    rows = make([record.payload for record in records])
    lake.append(table, rows, application=application, sequence=records[-1].end, partition_by=["day"])
    point("during:drain")
    return rows.height


def _finish(path: Path, end: int, size: int) -> None:
    with path.open("rb") as file:
        file.seek(end)
        tail = file.read(8)
    length = int.from_bytes(tail[:4], "little") if len(tail) == 8 else size
    if end < size and end + 8 + length < size:
        # More follows a record that does not check: that is damage, not a torn tail. Keep it for whoever looks.
        path.rename(path.with_suffix(".damaged"))
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    with (folder / "drain.lock").open("a") as file:
        yield _lock(file.fileno())


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_unborn(folder: Path, now: datetime) -> None:
    # A worker killed between making its file and naming it leaves an empty one that nobody will ever write.
    for path in folder.glob(".*.new"):
        with suppress(OSError):
            if now.timestamp() - path.stat().st_mtime > 3600:
                path.unlink()
