"""Backing a home up and making one from a backup: where the records' rows meet the files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mulle.core.clock import WallClock
from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.core.settings import Settings
from mulle.loop.keeping.backup import restore_backup, write_backup

__all__ = ["back_up", "restore"]


def back_up(settings: Settings, file: Path) -> Json:
    """Write a backup of the home that the settings name; see `mulle.loop.keeping.backup.write_backup`."""
    from mulle import __version__
    from mulle.adapters.metadata.export import dump_records

    now = WallClock().now()
    return write_backup(settings, file, now=now, version=__version__, records=lambda: dump_records(settings.database))


def restore(settings: Settings, file: Path) -> Json:
    """Make the home that the settings name from a backup; see `mulle.loop.keeping.backup.restore_backup`."""
    from mulle.adapters.metadata.export import load_records
    from mulle.adapters.metadata.tables import HEAD

    def load(revision: str, rows: Iterable[tuple[str, Json]]) -> int:
        if revision != HEAD:
            raise DataError(
                f"the backup's records have revision {revision}, this release reads {HEAD}",
                next="restore with the release that wrote it, then open the home with this one",
            )
        return load_records(settings.database, rows)

    return restore_backup(settings, file, load=load)
