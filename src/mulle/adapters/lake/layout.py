"""How a table's rows lie in files: few and large, and within a partition by what readers ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from deltalake import DeltaTable

__all__ = ["clustered"]


def clustered(table: DeltaTable, columns: Sequence[str]) -> int:
    """Put the files of each partition that has several into one, in Z-order of some columns; return how many went."""
    removed = 0
    by = next(iter(table.metadata().partition_columns), None)
    for value, files in _files(table, by).items():
        if files > 1:
            where = None if by is None else [(by, "=", value)]
            removed += int(table.optimize.z_order(list(columns), partition_filters=where)["numFilesRemoved"])
    return removed


def _files(table: DeltaTable, by: str | None) -> Counter[str]:
    actions = table.get_add_actions(flatten=True)
    name = f"partition.{by}"
    known = by is not None and name in actions.schema.names
    return Counter(str(value) for value in actions[name].to_pylist()) if known else Counter({"": actions.num_rows})
