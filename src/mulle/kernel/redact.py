"""What a log may keep of a row: which columns it never shows, and how a key that it may not show is still joined by."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from mulle.kernel.keys import key_text

__all__ = ["hidden_key", "hide", "pseudonym"]


def pseudonym(value: object) -> str | None:
    """Give what stands in a log for a value of a key that it may not show: the same for the same value, null for null.

    It is a hash without a secret: who has a list of all possible values can find out which one it was.

    Examples
    --------
    >>> pseudonym("Ada") == pseudonym("Ada"), pseudonym("Ada") == pseudonym("Eve"), pseudonym(None)
    (True, False, None)
    """
    text = key_text([value])
    return None if text is None else "~" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def hidden_key(key: Mapping[str, Any], redact: Collection[str]) -> dict[str, Any]:
    """Give a key as a log keeps it: the values of redacted columns by their pseudonym.

    Examples
    --------
    >>> hidden_key({"day": 3}, ["name"])
    {'day': 3}
    """
    return {name: pseudonym(value) if name in redact else value for name, value in key.items()}


def hide(key: Sequence[str], redact: Collection[str]) -> list[pl.Expr]:
    """Give the expressions that write pseudonyms into the redacted columns of a key.

    Examples
    --------
    >>> pl.DataFrame({"name": ["Ada"], "day": [3]}).with_columns(hide(["name", "day"], ["day"]))["name"].to_list()
    ['Ada']
    """
    return [pl.col(name).map_elements(pseudonym, return_dtype=pl.String) for name in key if name in redact]
