"""What the inference plane logs of requests: those that failed or took long, with their ids; of all others nothing."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from mulle.core.errors import MulleError

if TYPE_CHECKING:
    from mulle.lifecycle.serving.score import Answer

__all__ = ["SLOW", "answered_late", "failed", "named_by"]

SLOW = 1.0
"""Seconds from which on an answer is worth a line."""

_A_SECOND = 20
"""Most lines in a second: a flood of refusals must not become one of lines."""

_NAMED = re.compile(rb"[\w.:/+=@-]{1,64}", re.ASCII)

_log = logging.getLogger("mulle.inference")


class _Gate:
    """Lets so many through in each second, and counts the rest."""

    def __init__(self) -> None:
        self._second, self._passed, self._left_out = 0, 0, 0

    def pass_through(self) -> int | None:
        """Return how many were left out before this one, or None where it is left out itself."""
        now = int(time.monotonic())
        if now != self._second:
            self._second, self._passed = now, 0
        if self._passed >= _A_SECOND:
            self._left_out += 1
            return None
        self._passed += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


_gate = _Gate()


def named_by(headers: dict[bytes, bytes]) -> str:
    """Return the request's id as its client named it (``X-Request-Id``), or nothing where that is none.

    Examples
    --------
    >>> named_by({b"x-request-id": b"a-1"}), named_by({b"x-request-id": b"a b"}), named_by({})
    ('a-1', '', '')
    """
    found = _NAMED.fullmatch(headers.get(b"x-request-id", b""))
    return found[0].decode() if found else ""


def failed(error: BaseException, request: str, model: str, status: int, seconds: float) -> None:
    """Log a request without an answer: a fault of ours as an error, one of the caller's as information."""
    level = logging.INFO if status < 429 else logging.ERROR if status == 500 else logging.WARNING
    if not request or not _log.isEnabledFor(level) or (left_out := _gate.pass_through()) is None:
        return
    detail = error.detail if isinstance(error, MulleError) else type(error).__name__
    _log.log(
        level, "%s%s", detail, _omitted(left_out),
        extra={"request": request, "model": model, "status": status, "seconds": round(seconds, 4)},
    )  # fmt: skip


def answered_late(request: str, model: str, answers: list[Answer], seconds: float) -> None:
    """Log a request that took long, with the ids of its predictions."""
    if not _log.isEnabledFor(logging.WARNING) or (left_out := _gate.pass_through()) is None:
        return
    version = answers[0]["version"] if answers else None
    _log.warning(
        "%d rows took %.2f s%s", len(answers), seconds, _omitted(left_out),
        extra={"request": request, "model": model, "version": version, "seconds": round(seconds, 4),
               "prediction": [answer["id"] for answer in answers[:100]]},
    )  # fmt: skip


def _omitted(count: int) -> str:
    return f" (and {count} more lines that were left out)" if count else ""
