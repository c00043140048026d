"""Errors as RFC 9457 problem documents, with the refusals that only the HTTP door knows."""

from __future__ import annotations

import sys
import traceback

import orjson

from mulle.core.errors import MulleError, UsageError
from mulle.surfaces.inference.asgi import Reply

__all__ = ["NotAllowed", "problem", "problem_of"]

_MLFLOW = {
    401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST", 429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR", 503: "TEMPORARILY_UNAVAILABLE", 504: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
_TYPE = b"application/problem+json"


class NotAllowed(UsageError):
    """The path exists, with another method; facts name ``allow``."""

    slug, title, status = "method", "method not allowed here", 405


def problem_of(error: Exception) -> MulleError:
    """Give an error of ours as it is; any other is told to the log, and to the caller only by its kind."""
    if isinstance(error, MulleError):
        return error
    traceback.print_exception(error, file=sys.stderr)
    return MulleError(
        f"{type(error).__name__} inside the server", next="report it with the request id; the server's log has the rest"
    )


def problem(error: Exception, request: str, *, path: str = "") -> Reply:
    """Give any error as a reply; what is not ours is told to the log, and to the caller only by its kind.

    Parameters
    ----------
    error : Exception
    request : str
        The request's id.
    path : str
        Under ``/v2`` the document also has the ``error`` member that the protocol asks for, and MLflow's ``error_code`` and
        ``message`` where its clients ask.
    """
    error = problem_of(error)
    headers: list[tuple[bytes, bytes]] = [(b"x-request-id", request.encode())]
    if "retry_after" in error.facts or error.status == 429:
        headers.append((b"retry-after", str(error.facts.get("retry_after", 1)).encode()))
    if "allow" in error.facts:
        headers.append((b"allow", str(error.facts["allow"]).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == 413:
        # The rest of the body will not be read, so the connection cannot be used again.
        headers.append((b"connection", b"close"))
    document = error.problem(request_id=request)
    document["status"] = error.status
    if path.startswith("/v2"):
        document["error"] = error.detail
    elif path.endswith("invocations"):
        document |= {"error_code": _MLFLOW.get(error.status, "BAD_REQUEST"), "message": error.detail}
    return Reply(orjson.dumps(document, default=str), error.status, _TYPE, tuple(headers))
