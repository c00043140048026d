"""A schema registry, asked over HTTP: schemas by id, remembered for good, for an id's schema never changes."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from mulle.core.errors import Malformed, Unavailable, UsageError

__all__ = ["Registry"]

_TYPE = "application/vnd.schemaregistry.v1+json"
_SECONDS = 10


class Registry:
    """Reads and registers Avro schemas.

    Parameters
    ----------
    url : str
        Such as ``http://registry:8081``; ``user:password@`` is sent as basic authentication.

    Raises
    ------
    UsageError
        When it is no HTTP URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("--registry is no HTTP URL", next="write http://HOST:PORT")
        place = parts.hostname + (f":{parts.port}" if parts.port else "")
        self._url = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
        self._headers = {"Accept": _TYPE, "Content-Type": _TYPE}
        if parts.username:
            secret = base64.b64encode(f"{parts.username}:{parts.password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"
        self._schemas: dict[int, Any] = {}

    def schema(self, id: int) -> Any:
        """Return the schema of an id.

        Raises
        ------
        Malformed
            When the registry does not know it, or it is no Avro schema.
        Unavailable
            When the registry is away.
        """
        if id not in self._schemas:
            found = self._ask(f"/schemas/ids/{id}")
            if found.get("schemaType", "AVRO") != "AVRO":
                raise Malformed(f"schema {id} is {found['schemaType']}, not Avro", next="send JSON or Avro")
            self._schemas[id] = json.loads(found["schema"])
        return self._schemas[id]

    def register(self, subject: str, schema: Any) -> int:
        """Register a schema under a subject; return its id, the same one each time.

        Raises
        ------
        Malformed
            When the subject's rule of compatibility refuses it.
        Unavailable
        """
        return int(self._ask(f"/subjects/{quote(subject, safe='')}/versions", {"schema": json.dumps(schema)})["id"])

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (401, 403, 429):
                said = error.read().decode("utf-8", "replace")[:200]
                raise Malformed(f"the registry refuses {path}: {error.code} {said}", next="see the schemas it holds") from error
            raise Unavailable(f"the registry {self._url} answered {error.code}", next="see --registry and its rights") from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"the registry {self._url} is away: {error}", next="see that it runs, or try again") from error
