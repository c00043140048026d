"""Making a bundle's sample: rows that look like the transform's input and are nobody's."""

from __future__ import annotations

import random
from collections.abc import Sequence

import polars as pl

from mulle.core.declare.features import Features
from mulle.core.errors import TransformError
from mulle.kernel.bundle import Predictor
from mulle.kernel.encode import encode
from mulle.kernel.sample import SAMPLE_ROWS, Sample
from mulle.kernel.transform import prove_row_wise, run_transform

__all__ = ["make_sample", "sample_rows"]

_NEARLY_UNIQUE = 0.5
_SHARED = 5
"""A text that fewer rows carry may tell of somebody."""

_LOW, _HIGH = 0.05, 0.95


def make_sample(predictor: Predictor, joined: pl.DataFrame, *, seed: int, proved: pl.DataFrame | None = None) -> Sample:
    """Make the sample that a bundle's transform is proved with whenever the bundle loads.

    It holds no person's data. Each column is shuffled independently of the others, nulls with it, so that no row of the
    sample was a row of the data. Values of key columns, and of columns in which more than half of the values differ
    (names, numbers of documents, free text, amounts, moments), are replaced by synthetic ones: texts by random letters
    and digits in the same places, numbers and times by draws between the column's 5th and 95th percentile. A text that
    fewer than five rows carry is replaced too. A column whose synthetic values the user's function cannot read (it
    parses them, say) is left empty.

    Parameters
    ----------
    predictor : Predictor
        Of the model that the bundle will hold.
    joined : polars.DataFrame
        The transform's input: the contract's inputs and the joined columns.
    seed : int
        The same rows and seed give the same sample.
    proved : polars.DataFrame, optional
        What `sample_rows` gave for the same function, when many bundles share it.

    Returns
    -------
    Sample
        At most `SAMPLE_ROWS` rows.

    Raises
    ------
    TransformError
        When the function fails even on a sample without values, or is not row-wise on it.
    """
    if proved is None:
        proved = sample_rows(predictor.features, joined, predictor.contract.key, seed=seed)
    return Sample(proved, encode(predictor.transform(proved), predictor.contract.features))


def sample_rows(features: Features, joined: pl.DataFrame, key: Sequence[str], *, seed: int) -> pl.DataFrame:
    """Make a sample's rows alone, and prove the function on them; see `make_sample`."""
    chosen = joined.sample(min(SAMPLE_ROWS, joined.height), seed=seed, shuffle=True)
    dice = random.Random(seed)
    rows = pl.DataFrame(
        [_nobodys(chosen[name], joined[name], name in key, dice) for name in joined.columns],
    )
    rows = _readable(features, rows)
    prove_row_wise(features, rows)
    return rows


def _nobodys(values: pl.Series, all_values: pl.Series, key: bool, dice: random.Random) -> pl.Series:
    shuffled = values.shuffle(seed=dice.randrange(2**32))
    known = shuffled.drop_nulls()
    telling = key or (len(known) > 0 and known.n_unique() > _NEARLY_UNIQUE * len(known))
    if isinstance(values.dtype, pl.Boolean):
        return shuffled
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        texts = shuffled.cast(pl.String)
        rare = set() if telling else _rare(texts, all_values.cast(pl.String))
        made = [t if t is None or not (telling or t in rare) else _scrambled(t, dice) for t in texts.to_list()]
        return pl.Series(values.name, made, dtype=pl.String)
    return _drawn(shuffled, dice) if telling else shuffled


def _rare(texts: pl.Series, all_texts: pl.Series) -> set[str]:
    counts = all_texts.filter(all_texts.is_in(texts.unique().drop_nulls().to_list())).alias("text").value_counts()
    return set(counts.filter(pl.col("count") < _SHARED)["text"].to_list())


def _scrambled(text: str, dice: random.Random) -> str:
    """Replace letters and digits by others of their kind; signs stay."""
    return "".join(_other(sign, dice) for sign in text)


def _other(sign: str, dice: random.Random) -> str:
    if sign.isdigit():
        return dice.choice("0123456789")
    if sign.isalpha():
        return dice.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ" if sign.isupper() else "abcdefghijklmnopqrstuvwxyz")
    return sign


def _drawn(values: pl.Series, dice: random.Random) -> pl.Series:
    physical = values.to_physical() if values.dtype.is_temporal() else values
    if not (physical.dtype.is_numeric()):
        return pl.Series(values.name, [None] * len(values), dtype=values.dtype)
    finite = physical.cast(pl.Float64).fill_nan(None).drop_nulls()
    low, high = (finite.quantile(q, "linear") for q in (_LOW, _HIGH))
    if low is None or high is None:
        return values
    drawn = [None if v is None else dice.uniform(low, high) for v in physical.to_list()]
    made = pl.Series(values.name, drawn, dtype=pl.Float64)
    made = made if physical.dtype.is_float() else made.round()
    return made.cast(physical.dtype).cast(values.dtype)


def _readable(features: Features, rows: pl.DataFrame) -> pl.DataFrame:
    """Empty the text columns that the function cannot read once their values are made up: one by one, else all."""
    if _works(features, rows):
        return rows
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
    for name in texts:
        tried = _emptied(rows, [name])
        if _works(features, tried):
            return tried
    tried = _emptied(rows, texts)
    return tried if _works(features, tried) else _emptied(rows, rows.columns)


def _works(features: Features, rows: pl.DataFrame) -> bool:
    try:
        run_transform(features, rows)
    except TransformError:
        return False
    return True


def _emptied(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return rows.with_columns(pl.lit(None, dtype=rows.schema[name]).alias(name) for name in names)
