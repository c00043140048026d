"""Asks an HTTP server for one page: retried, bounded in size and time, its secrets kept from other servers and from errors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    DecodeError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    MaxRetryError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
    URLSchemeUnknown,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from mulle.adapters.sources.environment import filled, hidden
from mulle.core.declare.sources import Http
from mulle.core.errors import DataError, Unavailable

__all__ = ["Client", "Page"]

_RETRIES = 3
_BUSY = (429, 500, 502, 503, 504)
_LARGEST = 256 << 20
_PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: where it came from, its body and content type, and the URL that its Link header names as the next."""

    url: str
    body: bytes
    type: str
    link: str | None


class Client:
    """Reads pages of one endpoint; four attempts each, with rising pauses or those that ``Retry-After`` asks for.

    Parameters
    ----------
    source : Http
    name : str
        Stands for the endpoint in messages.
    backoff : float
        Seconds before the second retry, doubled for each further one.
    """

    def __init__(self, source: Http, name: str, *, backoff: float) -> None:
        self._name = name
        self._secrets = (source.url, *(value for _, value in source.headers))
        self._home = _origin(filled(source.url))
        self._headers = {key: filled(value) for key, value in source.headers}
        self._timeout = source.timeout.total_seconds()
        self._pool = urllib3.PoolManager()
        self._retry = Retry(
            total=None,
            connect=_RETRIES,
            read=_RETRIES,
            status=_RETRIES,
            other=_RETRIES,
            redirect=5,
            allowed_methods={"GET"},
            status_forcelist=_BUSY,
            raise_on_status=False,
            backoff_factor=backoff,
            retry_after_max=_PATIENCE,
            remove_headers_on_redirect=[*Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT, *self._headers],
        )

    def get(self, url: str) -> Page:
        """Ask for a page; the declared headers go to the declared server only.

        Raises
        ------
        DataError
            When it is refused, is larger than 256 MiB, or leads to something else than http or https.
        Unavailable
            When the server is away or busy after all attempts.
        """
        self._refuse_scheme(url)
        try:
            return self._asked(url)
        except URLSchemeUnknown as error:
            raise self._scheme(error.scheme) from error
        except LocationParseError as error:
            raise self._bad("its URL cannot be read", "mend url=", error) from error
        except LocationValueError as error:  # without a host, such as file:///
            raise self._scheme(None) from error
        except ValueError as error:
            raise self._bad("its headers cannot be sent", "mend headers=", error) from error
        except MaxRetryError as error:
            if isinstance(error.reason, ResponseError) and "redirect" in str(error.reason):
                raise self._bad("it redirects without end", "name the URL that answers") from error
            raise self._away(error.reason or error) from error
        except DecodeError as error:
            raise self._bad("its compressed answer is broken", "ask who runs it", error) from error
        except HTTPError as error:
            raise self._away(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _asked(self, url: str) -> Page:
        headers = self._headers if _origin(url) == self._home else {}
        retry = self._retry
        while True:
            answer = self._pool.request(
                "GET", url, headers=headers, retries=retry, preload_content=False, timeout=urllib3.Timeout(self._timeout)
            )
            try:
                body = self._body(answer)
                break
            except (ProtocolError, ReadTimeoutError) as error:  # cut off while it was read
                retry = (answer.retries or retry).increment("GET", url, error=error)
                retry.sleep()
            finally:
                answer.close()
        here = urljoin(url, answer.geturl() or url)
        return Page(here, body, answer.headers.get("Content-Type", ""), _next_link(answer.headers.getlist("Link"), here))

    def _body(self, answer: BaseHTTPResponse) -> bytes:
        self._refuse_status(answer.status)
        body = bytearray()
        for chunk in answer.stream(1 << 16, decode_content=True):
            body += chunk
            if len(body) > _LARGEST:
                raise self._bad("an answer is larger than 256 MiB", "ask for smaller pages with page= or next=")
        return bytes(body)

    def _refuse_status(self, status: int) -> None:
        if status < 300:
            return
        if status in _BUSY or status >= 500:
            raise Unavailable(f"{self._name} answers {status}", next="try again later", status_code=status)
        hints = {401: "see the secret in headers=", 403: "see what the secret allows", 404: "see the URL"}
        raise DataError(f"{self._name} answers {status}", next=hints.get(status, "see what it expects"), status_code=status)

    def _refuse_scheme(self, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise self._scheme(urlsplit(url).scheme)

    def _scheme(self, scheme: str | None) -> DataError:
        where = f"'{scheme}:'" if scheme else "a URL without a host"
        return self._bad(f"leads to {where}, which is neither http nor https", "name the URL that answers")

    def _bad(self, said: str, next: str, error: Exception | None = None) -> DataError:
        cause = f": {hidden(error, *self._secrets)}" if error else ""
        return DataError(f"{self._name}: {said}{cause}", next=next)

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self._name} does not answer: {hidden(error, *self._secrets)}", next="see that it runs and is reached from here"
        )


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


def _next_link(headers: list[str], base: str) -> str | None:
    for target, words in re.findall(r"<([^>]*)>([^<]*)", ", ".join(headers)):
        relation = re.search(r';\s*rel\s*=\s*"?([^";,]*)', words, re.I)
        if relation and "next" in relation.group(1).lower().split():
            return str(urljoin(base, target))
    return None
