"""Stage 8: a window's histograms as one short text, so that any span of windows is a sum."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator
from functools import reduce

import orjson

from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.core.records.window import Window
from mulle.kernel.histograms import merge

__all__ = ["pack", "summed", "unpack"]


def pack(counted: Json) -> str:
    """Write a set of histograms without what its reference says already: names, edges and values.

    Parameters
    ----------
    counted : Json
        What `count` gave, with its ``prediction`` filled in.

    Returns
    -------
    str
        For `unpack` with the same reference.
    """
    parts = [counted["rows"], *(_short(entry) for entry in _entries(counted))]
    return base64.b85encode(zlib.compress(orjson.dumps(parts), 9)).decode()


def unpack(text: str, reference: Json) -> Json:
    """Read what `pack` wrote.

    Raises
    ------
    DataError
        When the reference is another one.
    """
    rows, *parts = orjson.loads(zlib.decompress(base64.b85decode(text)))
    if len(parts) != len(reference["features"]) + 1:
        raise DataError("the histograms are of other features", next="unpack them with the reference they were counted by")
    entries = [_long(part, entry) for part, entry in zip(parts, _entries(reference), strict=True)]
    return {"rows": rows, "features": dict(zip(reference["features"], entries[:-1], strict=True)), "prediction": entries[-1]}


def summed(windows: Iterable[Window], reference: Json) -> Json | None:
    """Add up what windows of one bundle counted; None when there is nothing.

    Parameters
    ----------
    windows : iterable of Window
        All with the bundle that `reference` belongs to; those without histograms are passed over.
    reference : Json
    """
    found = [unpack(w.histograms, reference) for w in windows if w.histograms]
    return reduce(merge, found) if found else None


def _entries(histograms: Json) -> Iterator[Json]:
    yield from histograms["features"].values()
    yield histograms["prediction"]


def _short(entry: Json) -> list[object]:
    if entry["kind"] == "number":
        return [entry["rows"], entry["nulls"], entry["low"], entry["high"], *entry["counts"]]
    return [entry["rows"], entry["nulls"], entry["other"], *entry["counts"].values()]


def _long(part: list[int], entry: Json) -> Json:
    named: Json = {**entry, "rows": part[0], "nulls": part[1]}
    known = len(entry["counts"])
    if len(part) - known != (4 if entry["kind"] == "number" else 3):
        raise DataError("the histograms have other bins", next="unpack them with the reference they were counted by")
    if entry["kind"] == "number":
        return {**named, "low": part[2], "high": part[3], "counts": part[4:]}
    return {**named, "other": part[2], "counts": dict(zip(entry["counts"], part[3:], strict=True))}
