"""Rows kept outside every table: batches that wait for their checks, and batches that failed them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake.fs import DeltaStorageHandler

from mulle.core.errors import NotFound, Unavailable

__all__ = ["Parking"]


class Parking:
    """Parquet files by name, each written whole or not at all.

    Parameters
    ----------
    root : str
        The lake's folder or URL.
    folder : Path or None
        The same as a local folder.
    storage_options : dict, optional
        Passed to the bucket's client.
    """

    def __init__(self, root: str, folder: Path | None, storage_options: dict[str, str] | None = None) -> None:
        self._root = root
        self._folder = folder
        self._options = storage_options

    def put(self, name: str, rows: pl.DataFrame) -> str:
        """Write rows under a name, in place of what was there; return the address."""
        address = f"{self._root}/{name}.parquet"
        try:
            if self._folder is None:
                # An object in a bucket appears when its upload is complete, so it needs no second name.
                rows.write_parquet(address, storage_options=self._options)
            else:
                _write_whole(Path(address), rows)
        except OSError as error:
            raise Unavailable(f"{address} cannot be written: {error}", next="see the lake's rights and room") from error
        return address

    def get(self, name: str) -> pl.DataFrame:
        """Read the rows under a name.

        Raises
        ------
        NotFound
            When there are none.
        """
        address = f"{self._root}/{name}.parquet"
        try:
            return pl.read_parquet(address, storage_options=self._options, hive_partitioning=False)
        except FileNotFoundError as error:
            raise NotFound(f"nothing is parked as '{name}'", next="the batch was published or removed meanwhile") from error
        except OSError as error:
            raise Unavailable(f"{address} cannot be read: {error}", next="see that the lake is reachable") from error

    def remove(self, name: str) -> None:
        """Remove what is under a name, if anything is."""
        if self._folder is not None:
            Path(f"{self._root}/{name}.parquet").unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError):
            DeltaStorageHandler(self._root, self._options).delete_file(f"{name}.parquet")


def _write_whole(path: Path, rows: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            rows.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
