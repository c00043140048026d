"""The online store in Redis: many machines read one store; one round trip a read, whatever the number of joins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from mulle.adapters.online.layout import INSTANT_BYTES, instant_of, mark_text, packed, portions, read_mark
from mulle.core.errors import Conflict, Unavailable, UsageError
from mulle.core.ports.online import Ask, Entry, Found, Mark

__all__ = ["RedisOnline"]

_PORTION = 2_000
_SECONDS = 2.0
"""How long a request may wait for the store; an answer later than that is of no use to a prediction."""

# A member starts with its instant and goes on with JSON, which never has the byte 255.
_PUT = """
for i, key in ipairs(KEYS) do
  local at = ARGV[2 * i - 1]
  redis.call('ZREMRANGEBYLEX', key, '[' .. at, '(' .. at .. '\\255')
  redis.call('ZADD', key, 0, at .. ARGV[2 * i])
end
"""

# One call for all asks: a command for each would cost the client two to three times as long, most of it in talking.
_GET = """
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('ZREVRANGEBYLEX', key, ARGV[i], '-', 'LIMIT', 0, 1)[1] or false
end
return found
"""


class RedisOnline:
    """Values by table, key and instant; implements `mulle.core.ports.online.Online`.

    Each key of a table is a sorted set whose members all have the score 0 and start with their instant in 8 bytes, so
    that they are in the order of their bytes, which is that of time: exact for every instant, where a score, being a
    double, is only up to 2^53 microseconds. "The last entry not after t" is one ``ZREVRANGEBYLEX``. A portion is
    written by one script, so that no reader meets a key between its old entry and its new one.

    Parameters
    ----------
    url : str
        ``redis://`` or ``rediss://``; the query may hold ``prefix``, the namespace of all keys (``mulle`` when absent),
        beside what Redis' own client takes.
    readonly : bool
        Refuse writes.

    Raises
    ------
    UsageError
        When the URL cannot be read.
    """

    def __init__(self, url: str, *, readonly: bool = False) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._space = query.pop("prefix", "mulle")
        self._place = f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"
        self._readonly = readonly
        try:
            self._client = redis.Redis.from_url(
                urlunsplit(parts._replace(query=urlencode(query))),
                socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS,
                health_check_interval=30,
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.01), 1),
            )
        except (ValueError, redis.RedisError) as error:
            raise UsageError(f"online store {self._place}: {error}", next="write redis://user:password@host:6379/0") from error
        self._put = self._client.register_script(_PUT)
        self._get = self._client.register_script(_GET)

    def put(self, table: str, entries: Iterable[Entry]) -> int:
        """Write entries in portions; an entry of the same key and instant is replaced. Returns how many."""
        written = 0
        dumps = orjson.dumps
        for portion in portions(entries, _PORTION):
            keys = [self._key(table, key) for key, _, _ in portion]
            arguments = [part for _, at, values in portion for part in (packed(at), dumps(values))]
            with self._writing():
                self._put(keys=keys, args=arguments)
            written += len(portion)
        return written

    def get(self, asks: Sequence[Ask]) -> list[Found | None]:
        """Return, for each ask, the key's last entry whose instant is not after the asked one, or None.

        It is one round trip; with more than 2,000 asks, one for each 2,000, so that others get their turn.
        """
        found: list[Found | None] = []
        for portion in portions(asks, _PORTION):
            keys = [self._key(table, key) for table, key, _ in portion]
            highest = [b"(" + packed(at) + b"\xff" for _, _, at in portion]
            with self._talking():
                members = self._get(keys=keys, args=highest)
            found += [None if member is None else _found(member) for member in members]
        return found

    def mark(self, table: str, mark: Mark) -> None:
        """Record how far a table is filled."""
        with self._writing():
            self._client.hset(f"{self._space}:marks", table, mark_text(mark))

    def marked(self, table: str) -> Mark | None:
        """Return how far a table is filled, or None when it never was."""
        with self._talking():
            value = self._client.hget(f"{self._space}:marks", table)
        return read_mark(value) if isinstance(value, bytes) else None

    def trim(self, table: str, before: int) -> int:
        """Delete entries older than an instant (microseconds), keeping each key's last one; return how many."""
        deleted = 0
        with self._writing():
            for keys in portions(self._keys(table), _PORTION):
                pipe = self._client.pipeline(transaction=False)
                for key in keys:
                    pipe.zrange(key, -1, -1)
                lasts = pipe.execute()
                pipe = self._client.pipeline(transaction=False)
                for key, last in zip(keys, lasts, strict=True):
                    # What is put meanwhile can only be one more entry, so the last one seen here may stay in any case.
                    if last:
                        pipe.zremrangebylex(key, b"-", b"(" + min(packed(before), last[0][:INSTANT_BYTES]))
                deleted += sum(pipe.execute())
        return deleted

    def forget(self, table: str, keys: Sequence[str]) -> int:
        """Delete every entry of the keys; return how many."""
        deleted = 0
        for portion in portions(keys, _PORTION):
            with self._writing():
                pipe = self._client.pipeline(transaction=True)
                for key in portion:
                    pipe.zcard(self._key(table, key))
                pipe.delete(*(self._key(table, key) for key in portion))
                deleted += sum(pipe.execute()[:-1])
        return deleted

    def close(self) -> None:
        """Close the connections; closing twice is harmless."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def _key(self, table: str, key: str) -> str:
        return f"{self._space}:{_plain(table)}:{key}"

    def _keys(self, table: str) -> Iterator[bytes]:
        pattern = "".join(f"\\{c}" if c in "*?[]^\\" else c for c in self._key(table, "")) + "*"
        # A walk over a table that changes may name a key twice; the second time there is nothing left to delete.
        return iter(self._client.scan_iter(match=pattern, count=_PORTION))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._readonly:
            raise Conflict(f"the online store {self._place} is open for reading only", next="write from the loop's process")
        with self._talking():
            yield

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except redis.AuthenticationError as error:
            raise UsageError(
                f"online store {self._place} refused us: {error}", next="check user and password in the URL"
            ) from error
        except redis.RedisError as error:
            raise Unavailable(
                f"online store {self._place}: {error}", next="see that Redis is running, reachable and has memory left"
            ) from error


def _plain(table: str) -> str:
    return table.replace("%", "%25").replace(":", "%3A")


def _found(member: bytes) -> Found:
    return instant_of(member[:INSTANT_BYTES]), orjson.loads(member[INSTANT_BYTES:])
