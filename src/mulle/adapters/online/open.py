"""The online store that a URL names."""

from __future__ import annotations

from mulle.core.errors import UsageError
from mulle.core.ports.online import Online

__all__ = ["open_online"]


def open_online(url: str, *, readonly: bool = False) -> Online:
    """Open the online store of a URL.

    Parameters
    ----------
    url : str
        ``lmdb://`` and a folder, or a folder; ``redis://`` or ``rediss://`` as Redis' own clients read it, where
        ``?prefix=flights`` keeps two projects on one server apart.
    readonly : bool
        Refuse writes.

    Returns
    -------
    Online

    Raises
    ------
    UsageError
        On a URL of another kind, or when the redis extra is not installed.
    Unavailable
        When an LMDB folder cannot be opened; Redis is first called when it is first used.

    Examples
    --------
    >>> import tempfile
    >>> store = open_online(f"lmdb://{tempfile.mkdtemp()}")
    >>> store.get([("t", "a", 1)])
    [None]
    >>> store.close()
    """
    kind = url.partition("://")[0] if "://" in url else "lmdb"
    if kind == "lmdb":
        from mulle.adapters.online.lmdb import LmdbOnline

        return LmdbOnline(url, readonly=readonly)
    if kind in ("redis", "rediss"):
        try:
            from mulle.adapters.online.redis import RedisOnline
        except ModuleNotFoundError as error:
            raise UsageError(f"online store {kind}://: {error}", next="pip install 'mulle[redis]'") from error
        return RedisOnline(url, readonly=readonly)
    raise UsageError(f"no online store speaks {kind}://", next="write lmdb:///folder, redis://host:6379/0 or rediss://...")
