"""The four columns that the platform adds to published rows; every other column is data, whatever its name."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BATCH", "BOOKKEEPING", "INGESTED", "LIVE", "VERSION", "data_columns"]

INGESTED = "_ingested_at"
"""When the platform published the row; Datetime(us, UTC)."""

BATCH = "_batch"
"""The batch that brought the row; String."""

VERSION = "_version"
"""The number of the dataset version that brought the row; Int32."""

LIVE = "_live"
"""Whether the row arrived live, so that it was not available before it was published; Boolean."""

BOOKKEEPING = frozenset({INGESTED, BATCH, VERSION, LIVE})
"""Their names; no source may bring one."""


def data_columns(names: Iterable[str]) -> list[str]:
    """Give the columns that are data, in their order.

    Examples
    --------
    >>> data_columns(["a", "_id", "_batch"])
    ['a', '_id']
    """
    return [name for name in names if name not in BOOKKEEPING]
