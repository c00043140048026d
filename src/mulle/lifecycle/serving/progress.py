"""How far the drainer has come, told through a small file so that serving can show its lag without the lake."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import orjson

__all__ = ["lag", "read_progress", "write_progress"]

_FILE = "drained.json"


def read_progress(folder: Path) -> dict[str, tuple[int, float]]:
    """Return, by segment, the offset in bytes drained to and when (seconds since the epoch); empty when unknown."""
    try:
        found = orjson.loads((folder / _FILE).read_bytes())
        return {str(name): (int(offset), float(at)) for name, (offset, at) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_progress(folder: Path, progress: Mapping[str, tuple[int, float]]) -> None:
    """Replace the file in one move."""
    scratch = folder / f".{_FILE}.new"
    scratch.write_bytes(orjson.dumps(progress))
    os.replace(scratch, folder / _FILE)


def lag(folder: Path, segment: Path | None, offset: int, first_write: float, now: float) -> float:
    """Return how long the oldest undrained write may have waited, in seconds.

    Parameters
    ----------
    segment : Path or None
        This worker's; None when it wrote nothing.
    offset : int
        Its end, in bytes.
    first_write : float
        When it was begun, seconds since the epoch.

    Examples
    --------
    >>> lag(Path("/nowhere"), Path("p.seg"), 10, 100.0, 130.0), lag(Path("/nowhere"), None, 0, 0.0, 130.0)
    (30.0, 0.0)
    """
    if segment is None or offset == 0:
        return 0.0
    drained, at = read_progress(folder).get(segment.name, (0, first_write))
    return 0.0 if drained >= offset else max(0.0, now - at)
