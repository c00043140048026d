"""Receivers by Apprise URLs: more than a hundred services, each told by one address."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mulle.core.errors import Unavailable, UsageError
from mulle.core.ports.alerts import Message

if TYPE_CHECKING:
    from apprise import NotifyBase

__all__ = ["AppriseReceiver", "open_receivers"]

_STATUS = re.compile(r"error=(\d{3})\b")


class AppriseReceiver:
    """Meets `mulle.core.ports.alerts.Receiver`."""

    def __init__(self, url: str, service: NotifyBase) -> None:
        self._service = service
        # Part of a hash only: enough to tell a handful of addresses apart, too little to try passwords against.
        self._id = hashlib.sha256(url.encode()).hexdigest()[:8]
        self._name = f"{url.partition('://')[0].lower()} ({self._id})"

    @property
    def id(self) -> str:
        """A short hash of the address."""
        return self._id

    @property
    def name(self) -> str:
        """The service's scheme and the id."""
        return self._name

    def send(self, message: Message) -> None:
        """Hand a message over; see the port."""
        _HEARD.status = ""
        try:
            taken = self._service.notify(body=message.body, title=message.title, notify_type=message.kind)
        except Exception as error:
            raise Unavailable(f"{self.name} failed with {type(error).__name__}", next=_NEXT) from None
        if not taken:
            why = f"answered {_HEARD.status}" if _HEARD.status else "did not take the message"
            raise Unavailable(f"{self.name} {why}", next=_NEXT)


_NEXT = "see that its address in `alerts` is right and reachable, then `mulle alerts test`"


class _Heard(threading.local):
    status = ""


_HEARD = _Heard()


def _overhear(record: logging.LogRecord) -> bool:
    """Let nothing through: what the library says may hold tokens. Only a status is taken from it."""
    found = _STATUS.search(record.getMessage())
    if found:
        _HEARD.status = found[1]
    return False


def open_receivers(urls: str) -> Sequence[AppriseReceiver]:
    """Make the receivers of comma-separated Apprise URLs.

    Raises
    ------
    UsageError
        When one is no URL that Apprise knows; it is named by its place, not by its words.
    """
    if not urls.strip():
        return ()
    from apprise import Apprise
    from apprise.utils.parse import parse_urls

    logging.getLogger("apprise").addFilter(_overhear)  # once: a filter that is there is not added again
    found: list[str] = parse_urls(urls)  # type: ignore[no-untyped-call]
    receivers = []
    for number, url in enumerate(found, 1):
        service = Apprise.instantiate(url)
        if service is None:
            scheme = url.partition("://")[0] if "://" in url else "no scheme"
            raise UsageError(
                f"address {number} of {len(found)} in `alerts` ({scheme}) is none that Apprise knows",
                next="write it as Apprise's documentation says, for example json://host/path",
            )
        receivers.append(AppriseReceiver(url, service))
    if not receivers:
        raise UsageError("`alerts` holds no address", next="write one such as json://host/path, several with commas between")
    return tuple({receiver.id: receiver for receiver in receivers}.values())
