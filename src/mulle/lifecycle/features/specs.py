"""Joins as a bundle's contract keeps them: what serving reads from the online store, column by column."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mulle.core.declare.features import AsOf, Features, History, Join
from mulle.core.errors import DataError, DeclarationError
from mulle.core.hashing import hash_json
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of, dtype_text
from mulle.lifecycle.features.timeline import carried, span_us

__all__ = ["history_columns", "join_specs"]


def join_specs(features: Features, schemas: Mapping[str, Mapping[str, str]]) -> tuple[JoinSpec, ...]:
    """Describe the joins as serving reads them, in their order.

    Parameters
    ----------
    features : Features
    schemas : mapping
        Dataset name to its schema (column to dtype text).

    Returns
    -------
    tuple of JoinSpec
        The online table's name carries a hash of the definition, so that a changed definition is another table.

    Raises
    ------
    DeclarationError
        When a join names an unknown column or gives a value that the online store cannot keep.
    """
    specs: list[JoinSpec] = []
    for name, join in features.joins:
        schema = dict(schemas[join.dataset.name])
        _refuse_unknown(name, join, schema, specs)
        if isinstance(join, History):
            columns = history_columns(name, join, pl.DataFrame(schema={c: dtype_of(t) for c, t in _readable(schema).items()}))
        else:
            columns = carried(join.dataset, schema)
        specs.append(
            JoinSpec(
                name=name,
                kind=type(join).__name__.lower(),
                dataset=join.dataset.name,
                table=f"{features.name}.{name}.{_digest(join, columns)}",
                on=join.on,
                columns=columns,
                within_us=span_us(join.within) if isinstance(join, AsOf) else None,
                window_us=span_us(join.window) if isinstance(join, History) else None,
                every_us=span_us(join.every) if isinstance(join, History) else None,
            )
        )
    return tuple(specs)


def _digest(join: Join, columns: dict[str, str]) -> str:
    within = span_us(join.within) if isinstance(join, AsOf) else None
    window, every = (span_us(join.window), span_us(join.every)) if isinstance(join, History) else (None, None)
    values = {n: str(e) for n, e in join.values} if isinstance(join, History) else {}
    source = [join.dataset.name, join.dataset.key, join.dataset.time, join.dataset.known_at]
    definition = [type(join).__name__.lower(), source, join.on, within, window, every, values, columns]
    if isinstance(join, History) and join.by != join.on:
        definition.append(join.by)
    return hash_json(definition)[:12]


def _refuse_unknown(name: str, join: Join, schema: dict[str, str], earlier: list[JoinSpec]) -> None:
    brought = {f"{s.name}.{c}" for s in earlier for c in s.columns}
    for column in join.on:
        if "." in column and column not in brought:
            raise DeclarationError(
                f"join '{name}' is on '{column}', which no earlier join brings", next=f"joined columns: {', '.join(brought)}"
            )
    for column in join.by if isinstance(join, History) else ():
        if column not in schema:
            raise DeclarationError(
                f"history '{name}': dataset {join.dataset.name} has no column '{column}'", next=f"columns: {', '.join(schema)}"
            )


def history_columns(name: str, join: History, table: pl.DataFrame) -> dict[str, str]:
    """Give the type of each of a history's values, without computing one.

    Parameters
    ----------
    name : str
        The join's.
    table : polars.DataFrame
        Of the joined dataset; its rows do not matter.

    Raises
    ------
    DeclarationError
        When a value is no aggregate, or cannot be made of the table's columns; names join and value.
    """
    empty, columns = table.clear(), {}
    for value, expr in join.values:
        said = f"history '{name}', value '{value}'"
        try:
            dtype = empty.group_by(pl.lit(1).alias("__one")).agg(expr.alias(value)).schema[value]
            dtype_of(text := dtype_text(dtype))
        except pl.exceptions.PolarsError as error:
            words = str(error).splitlines()[0]
            raise DeclarationError(f"{said}: {words}", next=f"columns: {', '.join(table.columns)}") from error
        except DataError as error:
            raise DeclarationError(
                f"{said}: {expr} gives {dtype} for each key, not one number, text, boolean or time",
                next="aggregate it, as in pl.col('x').mean()",
            ) from error
        columns[value] = "String" if text == "Categorical" else text
    return columns


def _readable(schema: dict[str, str]) -> dict[str, str]:
    """Leave out the columns of a schema whose type cannot be read back (nested ones)."""
    kept = {}
    for name, text in schema.items():
        try:
            dtype_of(text)
        except DataError:
            continue
        kept[name] = text
    return kept
