"""What a task's end looks like on the way back: an answer, or an error that is rebuilt where it was asked for."""

from __future__ import annotations

from mulle.core.errors import MulleError, Unavailable
from mulle.core.records.base import Json

__all__ = ["open_reply", "refusal", "stopped"]


def refusal(error: MulleError) -> Json:
    """Give what the caller is told of an error of ours: ``{"error": ...}``."""
    return {"error": {"kind": type(error).__name__, "detail": error.detail, "next": error.next, "facts": error.facts}}


def open_reply(reply: Json) -> Json:
    """Give a reply's answer, or raise its error as the kind that it was.

    Raises
    ------
    MulleError

    Examples
    --------
    >>> open_reply({"answer": {"x": 1}})
    {'x': 1}
    """
    if "error" not in reply:
        found: Json = reply["answer"]
        return found
    told = reply["error"]
    raise _kinds().get(told["kind"], MulleError)(told["detail"], next=told["next"], **told["facts"])


def stopped(task: str) -> Unavailable:
    """Make the error of a call whose run was cancelled or taken over."""
    return Unavailable(f"{task} was stopped: its run goes on no more", next="see `mulle runs ls`", task=task)


def _kinds() -> dict[str, type[MulleError]]:
    found: dict[str, type[MulleError]] = {}
    waiting: list[type[MulleError]] = [MulleError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting.extend(kind.__subclasses__())
    return found
