"""The schema contract: columns and types that were published once are what each batch must bring."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DataError
from mulle.kernel.dtypes import dtype_of, dtype_text

__all__ = ["expected_schema", "schema_findings"]

_INTEGERS = ("Int8", "Int16", "Int32", "Int64")


def expected_schema(dataset: Dataset, published: Mapping[str, str] | None) -> dict[str, str]:
    """Give the types a batch must have: the published ones, and over them those that the dataset declares.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> expected_schema(Dataset("d", Files("d.csv"), schema={"x": "Float64"}), {"x": "Int64", "y": "String"})
    {'x': 'Float64', 'y': 'String'}
    """
    declared = {column: _full(text) for column, text in dataset.schema}
    return {**(published or {}), **declared}


def schema_findings(dataset: Dataset, schema: Mapping[str, pl.DataType], published: Mapping[str, str] | None) -> tuple[bool, str]:
    """Hold a batch's columns against the contract.

    Parameters
    ----------
    dataset : Dataset
    schema : mapping
        The batch's columns, without bookkeeping.
    published : mapping or None
        The published schema (column to dtype text); None before the first publish.

    Returns
    -------
    bool
        Whether the batch keeps the contract. New columns do.
    str
        What differs, and the edit of the project or the source that mends it.

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> flights = Dataset("flights", Files("f.csv"))
    >>> print(schema_findings(flights, {"km": pl.Float64()}, {"km": "Int64"})[1])
    column 'km' is Float64, expected Int64. Suggested: Dataset("flights", ..., schema={"km": "Float64"})
    """
    have = {name: dtype_text(dtype) for name, dtype in schema.items()}
    expected = expected_schema(dataset, published)
    free = _may_lack(dataset)
    gone = [c for c in expected if c not in have and c not in free]
    unmet = [c for c in _named(dataset) if c not in have and c not in expected and c not in free]
    retyped = {c: (have[c], t) for c, t in expected.items() if c in have and have[c] != t}
    if not (gone or unmet or retyped):
        added = [c for c in have if published is not None and c not in published]
        return True, f"new columns: {', '.join(added)}" if added else ""
    wrong = [f"column '{c}' is missing" for c in gone]
    wrong += [f"column '{c}' is declared and missing" for c in unmet]
    wrong += [f"column '{c}' is {found}, expected {wanted}" for c, (found, wanted) in retyped.items()]
    return False, f"{'; '.join(wrong)}. Suggested: {_suggested(dataset, gone, unmet, retyped)}"


def _suggested(dataset: Dataset, gone: list[str], unmet: list[str], retyped: Mapping[str, tuple[str, str]]) -> str:
    needed = set(_named(dataset))
    optional = [c for c in gone if c not in needed]
    wider = {c: found for c, (found, wanted) in retyped.items() if _wider(found, wanted)}
    mend = [*unmet, *(c for c in gone if c in needed), *(c for c in retyped if c not in wider)]
    words = []
    if optional:
        words.append(f"optional={_quoted([*dataset.optional, *optional])}")
    if wider:
        words.append(f"schema={_pairs({**dict(dataset.schema), **wider})}")
    edit = f'Dataset("{dataset.name}", ..., {", ".join(words)})' if words else ""
    mended = f"mend the source ({', '.join(mend)})" if mend else ""
    return "; ".join(part for part in (edit, mended) if part)


def _named(dataset: Dataset) -> tuple[str, ...]:
    # Columns without which a row means nothing to the declaration.
    return tuple(dict.fromkeys([*dataset.key, *dataset.outcome, *(c for c in (dataset.time, dataset.known_at) if c)]))


def _may_lack(dataset: Dataset) -> set[str]:
    # Outcomes that come later, from their own source, are no part of a batch.
    later = {*dataset.outcome, *((dataset.known_at,) if dataset.known_at else ())} if dataset.labels is not None else set()
    return {*dataset.optional, *later}


def _wider(found: str, wanted: str) -> bool:
    """Whether every value of `wanted` is one of `found` as well.

    Int64 in Float64 is not exact above 2^53; it is offered all the same, as what a column of counts that got decimals needs.
    """
    if found in _INTEGERS and wanted in _INTEGERS:
        return _INTEGERS.index(found) > _INTEGERS.index(wanted)
    if found == "Float64":
        return wanted in (*_INTEGERS, "Float32")
    return found.startswith("Datetime") and wanted == "Date"


def _full(text: str) -> str:
    # "Datetime" in a declaration means our one type of instants.
    if text == "Datetime":
        return "Datetime(us, UTC)"
    try:
        return dtype_text(dtype_of(text))
    except DataError:
        return text


def _quoted(names: list[str]) -> str:
    return "[" + ", ".join(f'"{n}"' for n in names) + "]"


def _pairs(types: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'"{c}": "{t}"' for c, t in types.items()) + "}"
