"""SQL checks: DuckDB over the batch alone, without access to files, network or settings."""

from __future__ import annotations

import duckdb
import polars as pl

from mulle.core.errors import DataError
from mulle.lifecycle.data.checks.plan import SAMPLES

__all__ = ["failing_rows"]

_SETTINGS = (
    "python_enable_replacements = false",
    "autoinstall_known_extensions = false",
    "TimeZone = 'UTC'",
    "enable_external_access = false",
    "lock_configuration = true",
)


def failing_rows(query: str, name: str, rows: pl.DataFrame) -> tuple[int, pl.DataFrame]:
    """Run a query that returns failing rows.

    Parameters
    ----------
    query : str
        One SELECT (DuckDB's SQL).
    name : str
        The batch's table name: the dataset's.
    rows : polars.DataFrame
        Read where it is, through Arrow; DuckDB makes no copy of it.

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
        connection.register(name, rows.to_arrow())
        for setting in _SETTINGS:
            connection.execute(f"set {setting}")
        # Asking for one row more than is shown tells most often how many there are, without running the query twice.
        # Through Arrow: as Python values, DuckDB's instants would want pytz.
        sample = pl.DataFrame(connection.sql(f"select * from ({text}\n) limit {SAMPLES + 1}").to_arrow_table())
        if sample.height <= SAMPLES:
            return sample.height, sample
        counted = connection.execute(f"select count(*) from ({text}\n)").fetchall()
        return int(counted[0][0]), sample.head(SAMPLES)
    except duckdb.Error as error:
        raise DataError(str(error).splitlines()[0], next="mend the check's SQL", query=text) from error
    finally:
        connection.close()
