"""SQL checks: DuckDB over the batch alone, without access to files, network or settings."""

from __future__ import annotations

import duckdb
import polars as pl

from mulle.core.errors import DataError

__all__ = ["failing_rows"]

_SAMPLES = 20


def failing_rows(query: str, name: str, rows: pl.DataFrame) -> tuple[int, pl.DataFrame]:
    """Run a query that returns failing rows.

    Parameters
    ----------
    query : str
        One SELECT (DuckDB's SQL).
    name : str
        The batch's table name: the dataset's.
    rows : polars.DataFrame

    Returns
    -------
    int
        How many rows the query returned.
    polars.DataFrame
        The first 20 of them.

    Raises
    ------
    DataError
        When the query fails; DuckDB's words are in the detail.

    Examples
    --------
    >>> failing_rows("select x from t where x > 1", "t", pl.DataFrame({"x": [1, 2, 3]}))[0]
    2
    """
    text = query.strip().rstrip(";")
    connection = duckdb.connect(":memory:")
    try:
        connection.register("__batch", rows.to_arrow())
        quoted = name.replace('"', '""')
        connection.execute(f'create table "{quoted}" as select * from __batch')
        connection.unregister("__batch")
        for setting in (
            "python_enable_replacements = false",
            "autoinstall_known_extensions = false",
            "TimeZone = 'UTC'",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"set {setting}")
        counted = connection.execute(f"select count(*) from ({text}\n)").fetchall()
        # Through Arrow: as Python values, DuckDB's instants would want pytz.
        sample = connection.sql(f"select * from ({text}\n) limit {_SAMPLES}").to_arrow_table()
        return int(counted[0][0]), pl.DataFrame(sample)
    except duckdb.Error as error:
        raise DataError(str(error).splitlines()[0], next="mend the check's SQL", query=text) from error
    finally:
        connection.close()
