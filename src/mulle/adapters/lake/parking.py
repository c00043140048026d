"""What is kept outside every table: batches that wait for their checks, batches that failed them, small documents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import polars as pl
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, PyFileSystem, S3FileSystem, SubTreeFileSystem

from mulle.adapters.lake.pieces import lazy
from mulle.core.errors import NotFound, Unavailable
from mulle.core.records.base import Json

__all__ = ["Parking", "files_of"]

_PORTION = 2**22

_S3 = {
    "access_key": "AWS_ACCESS_KEY_ID",
    "secret_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_REGION",
    "endpoint_override": "AWS_ENDPOINT_URL",
}


def files_of(root: str, folder: Path | None, options: dict[str, str] | None) -> FileSystem:
    """Open a folder or URL as a file system of its own."""
    if folder is not None:
        return SubTreeFileSystem(root, LocalFileSystem())
    if not root.startswith("s3://"):
        return PyFileSystem(DeltaStorageHandler(root, options))
    # Arrow's own client: through the table library's handler its streams take no plain bytes.
    known = {option: os.environ[name] for option, name in _S3.items() if os.environ.get(name)}
    return SubTreeFileSystem(root.removeprefix("s3://"), S3FileSystem(**known, connect_timeout=10, request_timeout=60))


class Parking:
    """Parquet files and documents by name, each written whole or not at all.

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

    def put(self, name: str, rows: pl.DataFrame | Iterable[pl.DataFrame]) -> str:
        """Write rows under a name, in place of what was there; return the address."""
        address = f"{self._root}/{name}.parquet"
        frame, failure = lazy([rows] if isinstance(rows, pl.DataFrame) else rows)
        try:
            if self._folder is None:
                self._upload(f"{name}.parquet", frame)
            else:
                _write_whole(Path(address), frame)
        except (OSError, pl.exceptions.PolarsError) as error:
            if failure:
                raise failure[0] from None
            raise Unavailable(f"{address} cannot be written: {error}", next="see the lake's rights and room") from error
        return address

    def get(self, name: str) -> pl.LazyFrame:
        """Give the rows under a name.

        Raises
        ------
        NotFound
            When there are none.
        """
        if not self._has(f"{name}.parquet"):
            raise NotFound(f"nothing is parked as '{name}'", next="the batch was published or removed meanwhile")
        return pl.scan_parquet(f"{self._root}/{name}.parquet", storage_options=self._options, hive_partitioning=False)

    def names(self, prefix: str) -> Sequence[str]:
        """List the names below a prefix, sorted."""
        selector = FileSelector(prefix, recursive=True, allow_not_found=True)
        with _reached(self._root):
            found = [info.path for info in self._files().get_file_info(selector) if info.is_file]
        return sorted(p.removesuffix(".parquet") for p in found if p.endswith(".parquet"))

    def remove(self, name: str) -> None:
        """Remove what is under a name, if anything is."""
        if self._has(f"{name}.parquet"):
            self._files().delete_file(f"{name}.parquet")

    def write(self, name: str, words: Json) -> str:
        """Write a document."""
        data, path = json.dumps(words, indent=1, ensure_ascii=False).encode(), f"{name}.json"
        try:
            if self._folder is not None:
                target = Path(self._root, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{uuid4().hex}")
                temporary.write_bytes(data)
                temporary.replace(target)
            else:
                with self._files().open_output_stream(path) as stream:
                    stream.write(data)
        except OSError as error:
            raise Unavailable(f"{self._root}/{path} cannot be written: {error}", next="see the lake's rights and room") from error
        return f"{self._root}/{path}"

    def read(self, name: str) -> Json | None:
        """Read a document, or None."""
        if not self._has(f"{name}.json"):
            return None
        with self._files().open_input_stream(f"{name}.json") as stream:
            return dict(json.loads(stream.read()))

    def _upload(self, path: str, rows: pl.LazyFrame) -> None:
        # Written here first: a stream into a bucket that fails half-way still leaves an object behind.
        with TemporaryDirectory() as scratch:
            whole = Path(scratch, "rows.parquet")
            rows.sink_parquet(whole, compression="lz4")
            with whole.open("rb") as source, self._files().open_output_stream(path) as target:
                while portion := source.read(_PORTION):
                    target.write(portion)

    def _has(self, path: str) -> bool:
        if self._folder is not None:
            return Path(self._root, path).is_file()
        with _reached(self._root):
            return bool(self._files().get_file_info([path])[0].type == FileType.File)

    def _files(self) -> FileSystem:
        return files_of(self._root, self._folder, self._options)


@contextmanager
def _reached(root: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{root} did not answer: {error}", next="see that the lake is reachable, then try again") from error


def _write_whole(path: Path, rows: pl.LazyFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        rows.sink_parquet(temporary, compression="lz4", sync_on_close="all")
        temporary.replace(path)
        _settle(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    # The rename itself must survive a power loss too.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
