"""What a server's processes counted, told to each other through small files, so that any of them can answer for all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from mulle.core.errors import LogNotWritable
from mulle.lifecycle.serving.tally import Tally

__all__ = ["Peers"]


class Peers:
    """One worker's place among the workers of a server.

    A worker that takes a dead one's place goes on with its counters, so that sums never fall.

    Parameters
    ----------
    folder : Path
        The server's own; made when absent.
    slot : int
        This worker's number, from 0.
    """

    def __init__(self, folder: Path, slot: int) -> None:
        self._folder, self._own = folder, f"{slot}.json"
        self._told = b""
        folder.mkdir(parents=True, exist_ok=True)

    def before(self) -> Tally:
        """Give the counters of who had this place before."""
        return Tally.read(self._read(self._folder / self._own).get("tally", {}))

    def tell(self, tally: Tally, **gauges: float) -> None:
        """Write this worker's counters and gauges, where they changed."""
        told = orjson.dumps({"tally": tally.written(), **gauges})
        if told == self._told:
            return
        scratch = self._folder / f".{self._own}.{os.getpid()}"
        try:
            scratch.write_bytes(told)
            os.replace(scratch, self._folder / self._own)
        except OSError as error:
            raise LogNotWritable(f"the counters in {self._folder} cannot be written: {error}") from error
        self._told = told

    def counted(self, own: Tally) -> Tally:
        """Add up the counters of all workers, this one's as they are now."""
        total = Tally()
        total.add(own)
        for told in self._others():
            total.add(Tally.read(told.get("tally", {})))
        return total

    def gauge(self, name: str, own: float, together: Callable[[list[float]], float]) -> float:
        """Put a gauge of all workers together."""
        return together([own, *(float(told.get(name, own)) for told in self._others())])

    def _others(self) -> list[dict[str, Any]]:
        return [self._read(path) for path in sorted(self._folder.glob("*.json")) if path.name != self._own]

    def _read(self, path: Path) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            return dict(orjson.loads(path.read_bytes()))
        return {}
