"""Who may come in: a web page must not drive a laptop's server, and another machine needs a token."""

from __future__ import annotations

import hmac

from mulle.surfaces.door import Forbidden, Unauthorized, is_loopback

__all__ = ["Door"]


class Door:
    """Checks a request's headers; what was found in order once is not taken apart again.

    Parameters
    ----------
    host : str
        The address that the server is bound to.
    token : str
        Asked for as a bearer token when not empty.
    """

    def __init__(self, host: str, token: str = "") -> None:
        self._local, self._token = is_loopback(host), token
        self._fine: set[bytes] = set()

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Let a request in.

        Raises
        ------
        Forbidden
            On a loopback server, when the Host header names another host (DNS rebinding), or a web page of
            another origin asks.
        Unauthorized
            When the token is missing or wrong.
        """
        if self._local:
            self._known(headers.get(b"host", b""))
            origin = headers.get(b"origin")
            if origin is not None:
                self._known(origin.split(b"//", 1)[-1])
        if self._token:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                raise Unauthorized("the request carries no valid token", next="send Authorization: Bearer TOKEN")

    def _known(self, host: bytes) -> None:
        if host in self._fine or not host:
            return
        text = host.decode("latin-1")
        name = text.rsplit(":", 1)[0] if not text.endswith("]") and text.count(":") != 0 else text
        if not is_loopback(name):
            raise Forbidden(f"host '{text[:100]}' is not this server's", next="ask 127.0.0.1 or localhost")
        if len(self._fine) < 64:
            self._fine.add(host)
