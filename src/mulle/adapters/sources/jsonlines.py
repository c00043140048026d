"""JSON lines: each line an object, one row; a column holds one kind of value."""

from __future__ import annotations

import re

import orjson
import polars as pl

from mulle.adapters.sources.lines import Block, LineFile
from mulle.adapters.sources.spool import Budget, Spool
from mulle.core.errors import DataError

__all__ = ["read_jsonl"]

_KINDS: dict[type, str] = {
    int: "a number",
    float: "a number",
    str: "text",
    bool: "a truth value",
    list: "a list",
    dict: "an object",
}


def read_jsonl(lines: LineFile, *, budget: Budget) -> Spool:
    """Read the rows of a JSON lines file.

    Raises
    ------
    DataError
        On a line that is no JSON object, or a column of several kinds of values; names file, line and column.
    """
    spool = Spool(lines.name, budget)
    try:
        for block in lines.blocks():
            if block.data.strip():
                spool.add(_frame(block, lines.name))
    except BaseException:
        spool.clear()
        raise
    return spool


def _frame(block: Block, name: str) -> pl.DataFrame:
    try:
        found = pl.read_ndjson(block.data, infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError) as error:
        _refuse(block, name)
        raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}", next="mend the file", file=name) from error
    # Polars takes a number among texts for text.
    texts = [c for c, t in found.schema.items() if t == pl.String]
    if any(re.search(rb'"%s"\s*:\s*[^"\sn]' % re.escape(orjson.dumps(c)[1:-1]), block.data) for c in texts):
        _refuse(block, name)
    return found


def _refuse(block: Block, name: str) -> None:
    """Raise for the first line that is no object, or whose value is of another kind than those before."""
    kinds: dict[str, str] = {}
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DataError(
                f"{name}, line {number}: not JSON: {str(error).partition(':')[0]}", next="mend the line", file=name, line=number
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number}: not a JSON object", next="write one object a line", file=name, line=number)
        for column, value in row.items():
            kind = _KINDS.get(type(value))
            if kind is not None and kinds.setdefault(column, kind) != kind:
                raise DataError(
                    f"{name}, line {number}: column '{column}' is {kind}, and {kinds[column]} before",
                    next="give the column one kind of value",
                    file=name,
                    line=number,
                    column=column,
                )
