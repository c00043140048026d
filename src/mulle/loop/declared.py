"""Which declaration is in force while the loop runs: the project file's, or the last good one where that is broken."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mulle.core.clock import rfc3339
from mulle.core.errors import MulleError
from mulle.core.records.base import Json

__all__ = ["note_broken", "note_good", "project_state"]

_FILE = "project-broken.json"


def note_broken(home: Path, error: MulleError, now: datetime) -> None:
    """Leave word in the home, for whoever asks how things stand, that the project file does not load."""
    temporary = home / f".{_FILE}"
    temporary.write_text(json.dumps({"detail": error.detail, "next": error.next, "since": rfc3339(now)}))
    temporary.replace(home / _FILE)


def note_good(home: Path) -> None:
    """Take that word back."""
    (home / _FILE).unlink(missing_ok=True)


def project_state(home: Path) -> Json:
    """Tell whether the running loop goes on by an earlier declaration.

    Returns
    -------
    dict
        ``state`` (``good`` or ``broken``), ``detail``, ``next`` and ``since``, null where it is good.

    Examples
    --------
    >>> project_state(Path("/nowhere"))["state"]
    'good'
    """
    with suppress(OSError, ValueError):
        return {"state": "broken", **json.loads((home / _FILE).read_text())}
    return {"state": "good", "detail": None, "next": None, "since": None}
