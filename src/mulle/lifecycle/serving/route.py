"""Which version answers a row: sticky by key, so that one key keeps its version for the whole of a deployment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mulle.kernel.routes import RoutedVersion

__all__ = ["Forced", "answering", "position"]

_SPAN = float(2**64)


class Forced(int):
    """A version that a request asks for past the routes, to try it; its answers are logged with the route ``forced``."""

    __slots__ = ()


def position(text: str, salt: str) -> float:
    """Place a key on the line from 0 (inclusive) to 1 (exclusive), evenly and the same each time.

    Parameters
    ----------
    text : str
        The row's key as text, or the request's id when the row has none.
    salt : str
        The deployment's, so that the keys of one canary are not those of the next.

    Examples
    --------
    >>> position("UA1545", "a") == position("UA1545", "a"), position("UA1545", "a") == position("UA1545", "b")
    (True, False)
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest, "big") / _SPAN


def answering(routes: Sequence[RoutedVersion], text: str, salt: str) -> int:
    """Choose the route that answers a key.

    Parameters
    ----------
    routes : sequence of RoutedVersion
        Shadows never answer; the champion takes what no canary claims.

    Returns
    -------
    int
        The position in `routes`.
    """
    place, champion = position(text, salt), 0
    for number, route in enumerate(routes):
        if route.mode == "champion":
            champion = number
        elif route.mode == "canary":
            # The canary owns the low end, so a growing share keeps the keys that it already had.
            if place < route.share:
                return number
            place -= route.share
    return champion
