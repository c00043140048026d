"""Reads a text file in blocks of whole lines, in bounded memory, and knows what of it was read before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from mulle.adapters.sources.objects import Found
from mulle.core.errors import DataError, Unavailable
from mulle.core.records.base import Json

__all__ = ["Block", "LineFile"]

_BLOCK = 16 << 20
_LONGEST = 64 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, and the number of the first (from 1)."""

    data: bytes
    line: int


class LineFile:
    """A text file, its size settled at the start: what is appended while it is read belongs to the next read.

    Parameters
    ----------
    stream : binary file
        Readable and seekable.
    found : Found
        Its name and size.
    quoted : bool
        Whether line ends between double quotes are part of a value (CSV).
    growing : bool
        Whether a last line without an end is still being written: it is left for the next read.

    Attributes
    ----------
    resumed : bool
        Whether only what was appended is read.
    reached : int
        How many bytes were given, the head and what was read before included.
    """

    def __init__(self, stream: BinaryIO, found: Found, *, quoted: bool, growing: bool = False) -> None:
        self._stream, self._found, self._quoted, self._growing = stream, found, quoted, growing
        self._start, self._line = 0, 1
        self.resumed, self.reached = False, 0
        self._before = self._digest = hashlib.sha256()

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self._found.name

    def head(self) -> bytes:
        """Return the first line, without a byte order mark and its end; the blocks then start after it.

        Raises
        ------
        DataError
            When it is too long, or not UTF-8.
        """
        self._stream.seek(0)
        buffer = b""
        while (cut := _first_cut(buffer, self._quoted)) == 0:
            chunk = self._stream.read(min(max(1 << 16, len(buffer)), self._found.size - len(buffer)))
            if not chunk:
                cut = len(buffer)
                if self._quoted and buffer.count(b'"') % 2:
                    self._refuse(1, "a quote is opened and never closed", "close it, or double it inside a value")
                break
            buffer += chunk
            self._refuse_other_encodings(buffer)
            if b"\0" in buffer[: _first_cut(buffer, self._quoted) or None]:
                self._refuse(1, "holds a NUL byte", "write it as text")
            self._refuse_length(buffer, 1)
        line = buffer[:cut]
        self._begin_after(line)
        return line.removeprefix(_BOM).rstrip(b"\r\n")

    def resume(self, known: dict[str, Any] | None) -> bool:
        """Start after what was read before, where that is unchanged; tell whether anything is left to read."""
        if known is None or known["size"] > self._found.size:
            return True
        self._stream.seek(0)
        digest, left, lines, last = hashlib.sha256(), int(known["size"]), 1, b"\n"
        while left and (chunk := self._stream.read(min(1 << 20, left))):
            digest.update(chunk)
            left, lines, last = left - len(chunk), lines + chunk.count(b"\n"), chunk[-1:]
        if digest.hexdigest()[:32] != known["hash"]:
            return True
        if self._found.size == known["size"]:
            self._digest = digest
            return False
        following = self._stream.read(2)
        end = b"" if last == b"\n" else b"\r\n" if following == b"\r\n" else b"\n"
        # An unfinished last line is not an appended one.
        if following.startswith(end):
            self.resumed = True
            digest.update(end)
            self._before, self._start, self._line = digest, known["size"] + len(end), lines + len(end.strip(b"\r"))
        return True

    def blocks(self) -> Iterator[Block]:
        """Give the lines not read yet; the next block is read and hashed while one is worked on.

        Raises
        ------
        DataError
            On NUL bytes, another encoding, a quote that is never closed, or a line above 64 MiB; names the line.
        Unavailable
            When the file shrank meanwhile.
        """
        self._stream.seek(self._start)
        self._digest, self.reached = self._before.copy(), self._start
        self._left, self._rest, self._at = self._found.size - self._start, b"", self._line
        with ThreadPoolExecutor(1, thread_name_prefix="mulle-lines") as pool:
            coming = pool.submit(self._next)
            while (block := coming.result()) is not None:
                coming = pool.submit(self._next)
                yield block

    def position(self, rows: int) -> Json:
        """Give what to record once every block was read."""
        found = self._found
        return {
            "size": self.reached,
            "mtime_ns": found.mtime_ns,
            "hash": self._digest.hexdigest()[:32],
            "rows": rows,
        }

    def _begin_after(self, line: bytes) -> None:
        if self._growing and not line.endswith(b"\n"):
            line = b""
        self._before, self.reached = hashlib.sha256(line), len(line)
        self._start, self._line = len(line), 1 + line.count(b"\n")

    def _next(self) -> Block | None:
        buffer, line = self._rest, self._at
        while self._left:
            chunk = self._stream.read(min(_BLOCK, self._left))
            if not chunk:
                raise Unavailable(f"{self.name}: the file shrank while it was read", next="try again", file=self.name)
            self._left -= len(chunk)
            if b"\0" in chunk:
                self._refuse_other_encodings(buffer + chunk)
                self._refuse(line + (buffer + chunk).split(b"\0")[0].count(b"\n"), "holds a NUL byte", "write it as text")
            buffer = buffer + chunk if buffer else chunk
            cut = _last_cut(buffer, self._quoted) if self._left or self._growing else len(buffer)
            if cut:
                return self._cut(buffer, cut)
            self._refuse_length(buffer, line)
        return self._cut(buffer, len(buffer)) if buffer and not self._growing else None

    def _cut(self, buffer: bytes, cut: int) -> Block:
        data, self._rest = (buffer, b"") if cut == len(buffer) else (buffer[:cut], buffer[cut:])
        self._digest.update(data)
        self.reached += len(data)
        line, self._at = self._at, self._at + data.count(b"\n")
        if not self._left and not self._rest and self._quoted and data.count(b'"') % 2:
            self._refuse(line + _unclosed(data), "a quote is opened and never closed", "close it, or double it inside a value")
        return Block(data.removeprefix(_BOM) if line == 1 else data, line)

    def _refuse_length(self, buffer: bytes, line: int) -> None:
        if len(buffer) <= _LONGEST:
            return
        if self._quoted and b"\n" in buffer:
            self._refuse(
                line + _unclosed(buffer),
                "a quote is opened and not closed within 64 MiB",
                "close it, or double it inside a value",
            )
        self._refuse(line, "is longer than 64 MiB", "see that it is a text file whose lines end in a newline")

    def _refuse_other_encodings(self, start: bytes) -> None:
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (b"\0" in start[:4] and start[:4].strip(b"\0")):
            raise DataError(
                f"{self.name} is not UTF-8 but UTF-16 or UTF-32", next="save it as UTF-8", file=self.name, encoding="utf-16"
            )

    def _refuse(self, line: int, said: str, next: str) -> None:
        raise DataError(f"{self.name}, line {line}: {said}", next=next, file=self.name, line=line)


def _last_cut(buffer: bytes, quoted: bool) -> int:
    """Return where the last line ends that is whole, 0 when none is: a line end between quotes ends no line."""
    cut = buffer.rfind(b"\n") + 1
    if not quoted or not cut or b'"' not in buffer:
        return cut
    odd = buffer.count(b'"', 0, cut) % 2
    while odd and cut:
        earlier = buffer.rfind(b"\n", 0, cut - 1) + 1
        odd ^= buffer.count(b'"', earlier, cut) % 2
        cut = earlier
    return cut


def _first_cut(buffer: bytes, quoted: bool) -> int:
    start = odd = 0
    while cut := buffer.find(b"\n", start) + 1:
        odd ^= buffer.count(b'"', start, cut) % 2
        if not (quoted and odd):
            return cut
        start = cut
    return 0


def _unclosed(data: bytes) -> int:
    """Count the line ends before the last line that opens a quote it does not close."""
    opened = 0
    for number, line in enumerate(data.split(b"\n")):
        if line.count(b'"') % 2:
            opened = number
    return opened
