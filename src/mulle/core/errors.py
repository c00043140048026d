"""Every error Mulle raises, as one tree; each says what was tried, what was found and what to do next.

MulleError                  exit 1, HTTP 500
├── UsageError              exit 2: the caller's words are wrong
│   ├── NotFound            HTTP 404: no such model, version, dataset, run
│   ├── ProjectError        the project file does not load; names file and line
│   ├── DeclarationError    the project loads, and what it declares cannot be
│   └── Malformed           HTTP 400: a body that cannot be read
│       ├── TooLarge        HTTP 413
│       └── WrongType       HTTP 415
├── ContractError           HTTP 422: a row breaks the contract; names row and field
├── TransformError          the user's own function is refused or failed
├── DataError               rows, schema or files that cannot be taken
├── Refused                 exit 1, HTTP 409: a check, gate or comparison said no
│   └── Conflict            HTTP 409: somebody else holds it (a second engine)
│       └── LostFence       a run that was taken over or cancelled: what was found is not kept
├── BundleError             a bundle that is corrupt, unknown or without its proof
├── TrialError              one trial failed; the search goes on
└── Unavailable             exit 3, HTTP 503: the other side is away; retryable
    ├── Overloaded          HTTP 429: queues are full; retryable
    ├── LogNotWritable      HTTP 503: a prediction that cannot be logged is not given
    └── Deadline            HTTP 504: not answered in time; retryable
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BundleError",
    "Conflict",
    "ContractError",
    "DataError",
    "Deadline",
    "DeclarationError",
    "LogNotWritable",
    "LostFence",
    "Malformed",
    "MulleError",
    "NotFound",
    "Overloaded",
    "ProjectError",
    "Refused",
    "TooLarge",
    "TransformError",
    "TrialError",
    "Unavailable",
    "UsageError",
    "WrongType",
]


class MulleError(Exception):
    """The root. Carries structured facts, survives pickling across processes.

    Parameters
    ----------
    detail : str
        What was tried and what was found, in one sentence.
    next : str
        What to do about it; may be empty.
    **facts : object
        Structured facts (model, row, field, path ...), JSON values only.

    Examples
    --------
    >>> error = NotFound("no model 'x'", next="see `mulle models ls`", model="x")
    >>> error.problem()["status"], error.facts["model"]
    (404, 'x')
    """

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "something went wrong inside Mulle"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, next: str = "", **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next = next
        self.facts = facts

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.detail, self.next, self.facts))

    def problem(self, **extra: object) -> dict[str, object]:
        """Give the error as an RFC 9457 problem document.

        Parameters
        ----------
        **extra : object
            Members to add, such as ``request_id``.

        Returns
        -------
        dict
            ``type``, ``title``, ``status``, ``detail``, ``next``, ``retryable`` and the facts.
        """
        return {
            "type": f"https://mulle.dev/errors/{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.facts,
            "next": self.next,
            "retryable": self.retryable,
            **extra,
        }


def _rebuild(kind: type[MulleError], detail: str, next: str, facts: dict[str, object]) -> MulleError:
    return kind(detail, next=next, **facts)


class UsageError(MulleError):
    """The caller's words are wrong: an option, a name, a value."""

    slug, title, status, exit_code = "usage", "wrong use", 400, 2


class NotFound(UsageError):
    """No such model, version, dataset, run or prediction."""

    slug, title, status = "not-found", "no such thing", 404


class ProjectError(UsageError):
    """The project file does not load; facts name ``file`` and ``line``."""

    slug, title = "project", "the project does not load"


class DeclarationError(UsageError):
    """The project loads, and what it declares cannot be (unknown column, bad duration)."""

    slug, title = "declaration", "the declaration cannot be"


class Malformed(UsageError):
    """A body that cannot be read at all."""

    slug, title, status = "malformed", "the body cannot be read", 400


class TooLarge(Malformed):
    """A body, a batch or a string above its limit."""

    slug, title, status = "too-large", "larger than the limit", 413


class WrongType(Malformed):
    """A content type that is not spoken here."""

    slug, title, status = "content-type", "content type not spoken here", 415


class ContractError(MulleError):
    """A row breaks the contract; facts name ``model``, ``row`` and ``field``."""

    slug, title, status = "schema", "row breaks the contract", 422


class TransformError(MulleError):
    """The user's own feature function failed or is not row-wise; facts name the ``column``."""

    slug, title, status = "transform", "the feature function is refused", 422


class DataError(MulleError):
    """Rows, a schema or a file that cannot be taken; the published version is untouched."""

    slug, title, status = "data", "the data cannot be taken", 422


class Refused(MulleError):
    """A check, a gate or a comparison said no."""

    slug, title, status = "refused", "refused", 409


class Conflict(Refused):
    """Somebody else holds what was asked for: an engine, a lock."""

    slug, title = "conflict", "held by another"


class LostFence(Conflict):
    """A run was taken over or has ended: what its former worker found is not kept."""

    slug, title = "lost-fence", "no longer its own"


class BundleError(MulleError):
    """A bundle that is corrupt, unknown to the database or without its parity proof."""

    slug, title = "bundle", "the bundle is refused"


class TrialError(MulleError):
    """One trial of a search failed; the search goes on without it."""

    slug, title = "trial", "a trial failed"


class Unavailable(MulleError):
    """The other side (store, server, broker) is away; trying again may help."""

    slug, title, status, exit_code, retryable = "unavailable", "the other side is away", 503, 3, True


class Overloaded(Unavailable):
    """Queues are full; try again after the time the answer names."""

    slug, title, status = "overloaded", "too much at once", 429


class LogNotWritable(Unavailable):
    """The prediction log cannot be written, so the prediction is not given."""

    slug, title = "log", "the prediction log cannot be written"


class Deadline(Unavailable):
    """Not answered before the deadline."""

    slug, title, status = "deadline", "not answered in time", 504
