"""One request on its way through a handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mulle.core.errors import Malformed, TooLarge
from mulle.lifecycle.serving.runtime import Runtime
from mulle.lifecycle.serving.score import Answer

__all__ = ["Call"]


class Call:
    """A request's parts.

    Attributes
    ----------
    request : str
        Its id.
    model : str
    version : int or None
        As the path names them.
    started : float
        Seconds of `time.perf_counter`.
    answered, route : int or str, str
        Version and route of the first answer, for the counters.
    """

    __slots__ = ("answered", "body", "headers", "model", "query", "request", "route", "started", "version")

    def __init__(
        self,
        request: str,
        headers: dict[bytes, bytes],
        body: bytes,
        query: bytes,
        model: str,
        version: int | None,
        started: float,
    ) -> None:
        self.request, self.headers, self.body, self.query = request, headers, body, query
        self.model, self.version, self.started = model, version, started
        self.answered: int | str = ""
        self.route = ""

    async def predict(self, runtime: Runtime, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Hand rows to the runtime and wait for their answers.

        Raises
        ------
        Malformed
            Without rows, or when a row is no object.
        TooLarge
            With more rows than one request may have.
        """
        if not rows:
            raise Malformed("there are no rows in the request", next="send at least one", model=self.model)
        if len(rows) > runtime.settings.max_rows:
            raise TooLarge(f"{len(rows)} rows in one request, at most {runtime.settings.max_rows}", next="split them")
        for index, row in enumerate(rows):
            if type(row) is not dict:
                raise Malformed(f"row {index} is not an object", next='send {"rows": [{...}]}', model=self.model, row=index)
        answers = await runtime.submit(self.model, rows, self.request, self.version, self.started)
        first = answers[0]
        self.answered, self.route = first["version"], first["route"]
        return answers
