"""Where files lie: a local folder or S3; both list what a path, glob or folder means and open it for reading."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from mulle.core.errors import DataError, MulleError, Unavailable

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["Found", "LocalStore", "S3Store", "Store", "store_of", "unreadable"]


@dataclass(frozen=True, slots=True)
class Found:
    """One file: its name in positions and messages, where it is opened, and what tells that it changed."""

    name: str
    path: str
    size: int
    mtime_ns: int


class Store(Protocol):
    """Lists and opens files."""

    def files(self, pattern: str) -> list[Found]:
        """List the files that a path, glob or folder means, by name.

        Hidden ones (``.x``, and ``_x`` in a folder) are left out.
        """
        ...

    def missing(self, pattern: str) -> str | None:
        """Name the folder or bucket that a pattern starts from where that does not exist."""
        ...

    def is_plain(self, pattern: str) -> bool:
        """Tell whether the pattern names one file."""
        ...

    def open(self, found: Found) -> BinaryIO:
        """Open a file for reading and seeking."""
        ...

    def mark(self, found: Found) -> str | None:
        """Return the store's own mark of the content, where it keeps one."""
        ...

    def is_same(self, found: Found) -> bool:
        """Tell whether the file is still as it was found.

        Raises
        ------
        DataError
            When it is gone.
        """
        ...


def store_of(pattern: str, folder: Path) -> Store:
    """Give the store that a pattern speaks of; relative paths start at `folder`."""
    return S3Store() if pattern.startswith("s3://") else LocalStore(folder)


class LocalStore:
    """Files on this machine; implements `Store`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, pattern: str) -> list[Found]:
        """List the files; see `Store`."""
        base = self._base(pattern)
        if base.is_dir():
            return self._facts(p for p in base.rglob("*") if not _is_hidden(p.relative_to(base).parts))
        if not has_magic(pattern):
            return self._facts([base])
        anchor, fixed = Path(base.anchor), Path(_fixed(str(base)))
        found = anchor.glob(str(base.relative_to(anchor)))
        return self._facts(p for p in found if not _is_dotted(p.relative_to(fixed).parts))

    def missing(self, pattern: str) -> str | None:
        """Name the folder that a glob starts from where there is none."""
        fixed = Path(_fixed(str(self._base(pattern))))
        return None if fixed.is_dir() else f"folder {fixed}"

    def is_plain(self, pattern: str) -> bool:
        """Tell whether the pattern names one file."""
        return not has_magic(pattern) and not self._base(pattern).is_dir()

    def open(self, found: Found) -> BinaryIO:
        """Open a file.

        Raises
        ------
        DataError
            When it is gone or may not be read.
        """
        from pyarrow import OSFile

        try:
            return cast(BinaryIO, OSFile(found.path))
        except OSError as error:
            raise _gone(found, error) from error

    def mark(self, found: Found) -> str | None:  # noqa: ARG002
        """Return None: a file system keeps no mark of a content."""
        return None

    def is_same(self, found: Found) -> bool:
        """Tell whether the file is still as it was found; see `Store`."""
        try:
            facts = Path(found.path).stat()
        except OSError as error:
            raise _gone(found, error) from error
        return (facts.st_size, facts.st_mtime_ns) == (found.size, found.mtime_ns)

    def _base(self, pattern: str) -> Path:
        return Path(pattern) if Path(pattern).is_absolute() else self._folder / pattern

    def _facts(self, paths: Iterable[Path]) -> list[Found]:
        found = []
        for path in sorted(paths):
            if path.is_file():
                facts = path.stat()
                name = path.relative_to(self._folder) if path.is_relative_to(self._folder) else path
                found.append(Found(name.as_posix(), str(path), facts.st_size, facts.st_mtime_ns))
        return found


class S3Store:
    """Objects of S3 or a server that speaks it; implements `Store`.

    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION`` and ``AWS_ENDPOINT_URL`` are
    honoured; without keys the machine's own role is asked.
    """

    def files(self, pattern: str) -> list[Found]:
        """List the objects; see `Store`."""
        from pyarrow.fs import FileSelector, FileType

        place = pattern.removeprefix("s3://").rstrip("/")
        try:
            if self.is_plain(pattern):
                return [f for info in self._system.get_file_info([place]) if (f := _object(info)) is not None]
            fixed = _fixed(place)
            infos = self._system.get_file_info(FileSelector(fixed, recursive=True, allow_not_found=True))
        except OSError as error:
            raise _remote(pattern, error) from error
        wanted = re.compile(_regex(place)) if has_magic(place) else None
        chosen = [(i, PurePosixPath(i.path).relative_to(fixed).parts) for i in infos if i.type == FileType.File]
        if wanted is not None:
            kept = [i for i, parts in chosen if wanted.fullmatch(i.path) and not _is_dotted(parts)]
        else:
            kept = [i for i, parts in chosen if not _is_hidden(parts)]
        return sorted((f for i in kept if (f := _object(i)) is not None), key=lambda f: f.name)

    def missing(self, pattern: str) -> str | None:
        """Name the bucket where there is none: S3 knows no folders."""
        from pyarrow.fs import FileType

        bucket = pattern.removeprefix("s3://").partition("/")[0]
        try:
            return f"bucket {bucket}" if self._system.get_file_info(bucket).type == FileType.NotFound else None
        except OSError:  # a key that may list a place in it may not ask for the bucket itself
            return None

    def is_plain(self, pattern: str) -> bool:
        """Tell whether the pattern names one object; what ends in ``/`` or has no ending is a folder."""
        last = pattern.rpartition("/")[2]
        return not has_magic(pattern) and "." in last

    def open(self, found: Found) -> BinaryIO:
        """Open an object.

        Raises
        ------
        DataError
            When it is gone or may not be read.
        Unavailable
            When the store is away.
        """
        try:
            return cast(BinaryIO, self._system.open_input_file(found.path))
        except OSError as error:
            raise _remote(found.name, error) from error

    def mark(self, found: Found) -> str | None:
        """Return the object's entity tag."""
        try:
            with self._system.open_input_stream(found.path) as stream:
                facts = {_word(k).lower(): _word(v) for k, v in (stream.metadata() or {}).items()}
        except OSError as error:
            raise _remote(found.name, error) from error
        return facts.get("etag", "").strip('"') or None

    def is_same(self, found: Found) -> bool:
        """Tell whether the object is still as it was found; see `Store`."""
        try:
            return _object(self._system.get_file_info(found.path)) == found
        except OSError as error:
            raise _remote(found.name, error) from error

    @cached_property
    def _system(self) -> FileSystem:
        from pyarrow.fs import S3FileSystem

        given = {
            "access_key": "AWS_ACCESS_KEY_ID",
            "secret_key": "AWS_SECRET_ACCESS_KEY",
            "session_token": "AWS_SESSION_TOKEN",
            "region": "AWS_REGION",
            "endpoint_override": "AWS_ENDPOINT_URL",
        }
        options = {option: os.environ[name] for option, name in given.items() if os.environ.get(name)}
        return S3FileSystem(**options, connect_timeout=10, request_timeout=60)


def _word(given: str | bytes) -> str:
    return given.decode() if isinstance(given, bytes) else given


def _object(info: object) -> Found | None:
    from pyarrow.fs import FileInfo, FileType

    assert isinstance(info, FileInfo)
    if info.type != FileType.File:
        return None
    return Found(f"s3://{info.path}", info.path, int(info.size), int(info.mtime_ns or 0))


def _fixed(pattern: str) -> str:
    """Return the folder that a glob starts from."""
    while has_magic(pattern):
        pattern = pattern.rpartition("/")[0]
    return pattern or "/"


def _is_dotted(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") for part in parts)


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def _regex(pattern: str) -> str:
    """Translate a glob: ``**/`` any folders, ``*`` and ``?`` within one name, ``[...]`` a set."""
    tokens = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", pattern)
    plain = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(plain.get(t) or (t.replace("[!", "[^") if t.startswith("[") else re.escape(t)) for t in tokens)


def unreadable(found: Found, error: Exception) -> MulleError:
    """Tell why a file that was opened could not be read: the store went away, or the file is damaged."""
    if found.name.startswith("s3://") and "AWS Error" in str(error):
        return _remote(found.name, error)
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{found.name} cannot be read: {cause}", next="write the file again", file=found.name)


def _gone(found: Found, error: OSError) -> DataError:
    said = "was removed while it was to be read" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
    return DataError(f"{found.name}: {said}", next="see that it is there and may be read", file=found.name)


def _remote(name: str, error: Exception) -> MulleError:
    said = str(error).splitlines()[0]
    if isinstance(error, FileNotFoundError) or re.search(r"NO_SUCH|NoSuch|not found|404", said, re.I):
        return DataError(f"{name}: there is no such object", next="see the path in project.py", file=name)
    if re.search(r"ACCESS_DENIED|AccessDenied|FORBIDDEN|InvalidAccessKey|SignatureDoesNotMatch|40[13]", said, re.I):
        return DataError(f"{name}: access is denied", next="see AWS_ACCESS_KEY_ID and what the key may read", file=name)
    return Unavailable(f"{name}: the object store does not answer: {said[:200]}", next="see AWS_ENDPOINT_URL, or try again")
