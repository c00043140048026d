"""Words for text in a feature function: they make a text a list of terms, which the encoding weighs and counts."""

from __future__ import annotations

import zlib

import polars as pl

from mulle.core.errors import DeclarationError

__all__ = ["LONGEST", "hashed", "ngrams", "words"]

LONGEST = 10_000
"""Characters of a text that are read; what follows is left out, in training as in serving."""


def words(column: str | pl.Expr) -> pl.Expr:
    """Split a text into its words: runs of at least two letters, digits or underscores, in lower case.

    Parameters
    ----------
    column : str or polars.Expr
        Text; null stays null.

    Returns
    -------
    polars.Expr
        List of String. A feature of that type is encoded as the TF-IDF of its most frequent terms.

    Examples
    --------
    >>> pl.DataFrame({"t": ["A red, red chair"]}).select(words("t")).item().to_list()
    ['red', 'red', 'chair']
    """
    return _read(column).str.extract_all(r"\w{2,}")


def ngrams(column: str | pl.Expr, n: int = 3) -> pl.Expr:
    """Split a text into all runs of `n` characters, in lower case: for codes, names and languages without spaces.

    Raises
    ------
    DeclarationError
        When `n` is not between 1 and 8.

    Examples
    --------
    >>> sorted(pl.DataFrame({"t": ["Chair"]}).select(ngrams("t")).item())
    ['air', 'cha', 'hai']
    """
    if not 1 <= n <= 8:
        raise DeclarationError(f"runs of {n} characters", next="choose from 1 to 8")
    text = _read(column)
    # No pattern finds runs that overlap: each start is looked at by itself, and the order does not matter.
    return pl.concat_list([text.str.slice(start).str.extract_all(f"(?s).{{{n}}}") for start in range(n)])


def hashed(column: str | pl.Expr, buckets: int = 256) -> pl.Expr:
    """Count a text's words by the remainder of their CRC-32: for words that training cannot have seen all.

    Parameters
    ----------
    column : str or polars.Expr
        Text (its `words` are taken) or a list of terms; null stays null.
    buckets : int
        2 to 4,096 columns; words that share one are not told apart.

    Returns
    -------
    polars.Expr
        Array of so many Float32, which is encoded number by number.

    Raises
    ------
    DeclarationError
        When there are too few or too many buckets.

    Examples
    --------
    >>> pl.DataFrame({"t": ["red chair"]}).select(hashed("t", 4)).item().to_list()
    [0.0, 1.0, 0.0, 1.0]
    """
    if not 2 <= buckets <= 4096:
        raise DeclarationError(f"{buckets} buckets", next="choose from 2 to 4,096")
    kind = pl.Array(pl.Float32, buckets)
    return _expression(column).map_batches(lambda values: _counted(values, buckets), return_dtype=kind)


def _expression(column: str | pl.Expr) -> pl.Expr:
    return pl.col(column) if isinstance(column, str) else column


def _read(column: str | pl.Expr) -> pl.Expr:
    return _expression(column).cast(pl.String).str.slice(0, LONGEST).str.to_lowercase()


def _counted(values: pl.Series, buckets: int) -> pl.Series:
    lists = values if isinstance(values.dtype, pl.List) else values.to_frame("t").select(words("t")).to_series()
    rows: list[list[float] | None] = []
    for terms in lists.to_list():
        row = None if terms is None else [0.0] * buckets
        for term in terms or ():
            if row is not None and term is not None:
                row[zlib.crc32(term.encode()) % buckets] += 1.0
        rows.append(row)
    return pl.Series(values.name, rows, dtype=pl.Array(pl.Float32, buckets))
