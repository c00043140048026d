"""The home's log: one JSON object a line, written by all of its processes, bounded in size, and read back by what it says."""

from __future__ import annotations

import fcntl
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from mulle.core.clock import instant, rfc3339
from mulle.core.errors import MulleError

__all__ = ["LEVELS", "LOGS", "SUBJECTS", "LogFile", "Wanted", "follow_log", "keep_log", "log_files", "parse_line", "read_log"]

LOGS = "logs"
"""The home's folder of logs."""

LEVELS = ("debug", "info", "warning", "error", "critical")

SUBJECTS = ("model", "run", "request", "prediction", "batch", "alert", "seconds", "status", "version")
"""What a line may be about; given as `extra` of a logging call."""

_NAME = "mulle.jsonl"
_BYTES = 8 * 2**20
_FILES = 8


class LogFile(logging.Handler):
    """Appends lines to the log that all processes of a home share; the oldest file goes when there are too many.

    Parameters
    ----------
    home : Path
    process : str
        What this process is: ``up``, ``serve`` ...
    size : int
        Bytes after which another file is begun.
    files : int
        How many are kept.
    """

    def __init__(self, home: Path, process: str, *, size: int = _BYTES, files: int = _FILES) -> None:
        super().__init__()
        self._folder, self._process, self._size, self._files = home / LOGS, process, size, files
        self._path = self._folder / _NAME
        self._descriptor = -1

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. A log that cannot be written never harms what is logged."""
        with suppress(OSError):
            line = _line(record, self._process)
            # One write of an append: lines of several processes do not mix.
            os.write(self._open(len(line)), line)

    def close(self) -> None:
        """Let the file go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def _open(self, more: int) -> int:
        if self._descriptor < 0 or not self._is_current():
            self._reopen()
        if os.fstat(self._descriptor).st_size + more > self._size:
            self._turn(more)
        return self._descriptor

    def _is_current(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return there.st_ino == os.fstat(self._descriptor).st_ino

    def _reopen(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _turn(self, more: int) -> None:
        with _locked(self._folder):
            self._reopen()
            size = os.fstat(self._descriptor).st_size
            if not size or size + more <= self._size:
                return  # another process was faster
            for number in range(self._files - 1, 0, -1):
                older = self._path if number == 1 else self._path.with_suffix(f".jsonl.{number - 1}")
                with suppress(FileNotFoundError):
                    older.replace(self._path.with_suffix(f".jsonl.{number}"))
            self._reopen()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep_log(home: Path, process: str, level: int = logging.INFO) -> LogFile:
    """Keep what this process tells Mulle's loggers in its home's log; importing Mulle alone configures no logging."""
    logger = logging.getLogger("mulle")
    for earlier in [h for h in logger.handlers if isinstance(h, LogFile)]:
        logger.removeHandler(earlier)
        earlier.close()
    handler = LogFile(home, process)
    logger.addHandler(handler)
    if logger.level == logging.NOTSET or logger.level > level:
        logger.setLevel(level)
    return handler


def _line(record: logging.LogRecord, process: str) -> bytes:
    told: dict[str, Any] = {
        "at": rfc3339(datetime.fromtimestamp(record.created, UTC)),
        "level": record.levelname.lower(),
        "process": process,
        "pid": record.process,
        "logger": record.name,
        "text": record.getMessage(),
    }
    told |= {name: getattr(record, name) for name in SUBJECTS if getattr(record, name, None) not in (None, "")}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        trail = "".join(traceback.format_tb(error.__traceback__))
        told["error"] = {"type": type(error).__name__, "detail": str(error), "at": trail}
        if isinstance(error, MulleError):
            told["error"] |= {"next": error.next, "type": error.slug}
    return orjson.dumps(told, default=str) + b"\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for; None asks for all.

    Attributes
    ----------
    level : str
        This one and those above it.
    """

    model: str | None = None
    run: str | None = None
    request: str | None = None
    level: str = "debug"
    since: datetime | None = None

    def __contains__(self, line: dict[str, Any]) -> bool:
        """Tell whether a line is wanted; of a fleet its members' are too, of a request its rows' and predictions'."""
        if LEVELS.index(line.get("level", "info")) < LEVELS.index(self.level):
            return False
        if self.since is not None and instant(line["at"]) < self.since:
            return False
        model = str(line.get("model", ""))
        if self.model is not None and model != self.model and not model.startswith(f"{self.model}/"):
            return False
        if self.run is not None and line.get("run") != self.run:
            return False
        request = str(line.get("request", ""))
        # A client's own id stands before a tilde, ours behind it.
        return self.request is None or self.request in (request, *request.split("~"), *(line.get("prediction") or ()))


def log_files(home: Path) -> list[Path]:
    """List the log's files, oldest first."""
    folder = home / LOGS
    found = [path for path in folder.glob(f"{_NAME}*") if path.name == _NAME or path.suffix[1:].isdigit()]
    return sorted(found, key=lambda path: -int(path.suffix[1:]) if path.name != _NAME else 0)


def read_log(home: Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Give the lines that are wanted, oldest first; what is no whole line yet is left out."""
    for path in log_files(home):
        with suppress(FileNotFoundError), path.open("rb") as lines:
            yield from (line for raw in lines if (line := parse_line(raw)) is not None and line in wanted)


def follow_log(home: Path, wanted: Wanted, wait: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Give the lines that are written from now on.

    Parameters
    ----------
    wait : callable
        Called when there is nothing new; False ends it.
    """
    path = home / LOGS / _NAME
    lines = path.open("rb") if path.exists() else None
    if lines is not None:
        lines.seek(0, os.SEEK_END)
    try:
        while True:
            found = [] if lines is None else list(_whole_lines(lines))
            yield from (line for raw in found if (line := parse_line(raw)) is not None and line in wanted)
            if not found and (lines is None or not _same(lines, path)) and path.exists():
                if lines is not None:
                    lines.close()
                lines = path.open("rb")
            elif not found and not wait():
                return
    finally:
        if lines is not None:
            lines.close()


def _whole_lines(lines: BinaryIO) -> Iterator[bytes]:
    while (raw := lines.readline()).endswith(b"\n"):
        yield raw
    lines.seek(-len(raw), os.SEEK_CUR)


def _same(lines: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.fstat(lines.fileno()).st_ino == path.stat().st_ino
    return True


def parse_line(raw: bytes) -> dict[str, Any] | None:
    """Read one line; None where it was cut off or is no line of a log."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and "at" in found and found.get("level") in LEVELS else None
