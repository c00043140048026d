"""Ad-hoc SQL: DuckDB over the published datasets, without access to files, network or settings."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import polars as pl

from mulle.core.errors import UsageError

__all__ = ["answer"]


def answer(query: str, tables: Mapping[str, pl.LazyFrame], *, limit: int = 1_000) -> pl.DataFrame:
    """Answer one SELECT.

    Parameters
    ----------
    query : str
        DuckDB's SQL.
    tables : mapping
        Name to rows.
    limit : int
        Most rows that are given.

    Raises
    ------
    UsageError
        When the query fails; DuckDB's words are in the detail.

    Examples
    --------
    >>> answer("select sum(x) as total from t", {"t": pl.LazyFrame({"x": [1, 2]})})["total"].to_list()
    [3]
    """
    text = query.strip().rstrip(";")
    connection = duckdb.connect(":memory:")
    try:
        for name, rows in tables.items():
            connection.register(name, rows.collect().to_arrow())
        for setting in (
            "python_enable_replacements = false",
            "autoinstall_known_extensions = false",
            "TimeZone = 'UTC'",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"set {setting}")
        frame = pl.DataFrame(connection.sql(f"select * from ({text}\n) limit {int(limit)}").to_arrow_table())
    except duckdb.Error as error:
        words = f"the query failed: {str(error).splitlines()[0]}"
        raise UsageError(words, next="write one SELECT of DuckDB's SQL", query=text) from error
    finally:
        connection.close()
    # Sums of whole numbers are decimals without a fraction in DuckDB.
    plain = {n: pl.Int64 if d.scale == 0 else pl.Float64 for n, d in frame.schema.items() if isinstance(d, pl.Decimal)}
    return frame.cast(plain, strict=False)  # type: ignore[arg-type]
