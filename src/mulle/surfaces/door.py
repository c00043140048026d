"""Who may come in: loopback by default, elsewhere only with a token; no web page may drive a laptop's Mulle."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mulle.core.errors import MulleError, UsageError
from mulle.core.settings import Settings

__all__ = ["Forbidden", "Unauthorized", "check_binding", "check_request", "is_loopback", "token_of"]


class Forbidden(MulleError):
    """The request comes from where it may not."""

    slug, title, status = "forbidden", "not from there", 403


class Unauthorized(MulleError):
    """The request carries no token, or a wrong one."""

    slug, title, status = "unauthorized", "no valid token", 401


def token_of(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the token that callers must carry (``MULLE_TOKEN``), or None; secrets come from the environment alone."""
    return (os.environ if environment is None else environment).get("MULLE_TOKEN") or None


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine alone.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("evil.example")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings, token: str | None = None) -> None:
    """Refuse to listen beyond loopback without a token.

    Raises
    ------
    UsageError
        When the host is not loopback and no token is set.
    """
    if not is_loopback(settings.host) and not (token or token_of()):
        raise UsageError(
            f"listening on {settings.host} without a token is refused: anyone who reaches it could deploy",
            next="listen on 127.0.0.1, or set MULLE_TOKEN",
            host=settings.host,
        )


def check_request(settings: Settings, method: str, headers: Mapping[str, str], token: str | None) -> None:
    """Let a request in, or say why not.

    Parameters
    ----------
    headers : mapping
        Names in lower case.
    token : str or None
        What callers must carry, if anything.

    Raises
    ------
    Forbidden
        On loopback, when Host is foreign (a rebound name), or a change comes from another origin.
    Unauthorized
        When a token is wanted and not carried.
    """
    host = headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if is_loopback(settings.host) and not is_loopback(name):
        raise Forbidden(f"Host '{host}' is not this machine", next="use http://127.0.0.1 or http://localhost")
    if method not in {"GET", "HEAD", "OPTIONS"}:
        origin = headers.get("origin")
        if (origin is not None and urlsplit(origin).netloc != host) or headers.get("sec-fetch-site") in {
            "cross-site",
            "same-site",
        }:
            raise Forbidden(f"a change from the origin '{origin}' is refused", next="call the API from its own address")
    if token is not None:
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Unauthorized("a token is wanted", next="send the header 'Authorization: Bearer ...'")
