"""A bundle's sample: rows of the transform's input that are nobody's, and what the transform made of them when it was written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.errors import BundleError, MulleError, TransformError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.dtypes import dtype_of, dtype_text
from mulle.kernel.encode import encode
from mulle.kernel.transform import prove_row_wise, run_transform

__all__ = ["SAMPLE_ROWS", "Sample", "prove_sample", "read_sample", "sample_json"]

SAMPLE_ROWS = 64
"""Rows of a sample, at most."""

_CLOSE = 1e-5

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows to prove a transform with.

    Attributes
    ----------
    rows : polars.DataFrame, shape (n, any)
        The transform's input: raw columns and joined ones (``join.column``); no person's data.
    encoded : numpy.ndarray, shape (n, k), float32
        The contract's features of these rows, as the registering process computed them.
    """

    rows: pl.DataFrame
    encoded: Matrix


def sample_json(sample: Sample) -> Json:
    """Give a sample as JSON: times as whole numbers of their unit, what is not finite as null.

    Examples
    --------
    >>> sample_json(Sample(pl.DataFrame({"x": [1]}), np.zeros((1, 1), np.float32)))
    {'inputs': {'x': {'type': 'Int64', 'values': [1]}}, 'encoded': [[0.0]]}
    """
    inputs = {}
    for name, dtype in sample.rows.schema.items():
        values = sample.rows[name].to_physical() if dtype.is_temporal() else sample.rows[name]
        inputs[name] = {"type": dtype_text(dtype), "values": [_finite(v) for v in values.to_list()]}
    return {"inputs": inputs, "encoded": [[_finite(v) for v in row] for row in sample.encoded.tolist()]}


def read_sample(value: Json) -> Sample:
    """Read what `sample_json` gave.

    Raises
    ------
    BundleError
        When it cannot be read.
    """
    try:
        columns = {name: _column(name, c["type"], c["values"]) for name, c in value["inputs"].items()}
        encoded = np.array([[math.nan if v is None else v for v in row] for row in value["encoded"]], dtype=np.float32)
        return Sample(pl.DataFrame(columns), encoded)
    except (KeyError, TypeError, ValueError, MulleError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"the bundle's sample cannot be read: {error}", next="register the model again") from error


def prove_sample(
    transform: Callable[[pl.LazyFrame], pl.LazyFrame], specs: Sequence[FeatureSpec], sample: Sample, *, row_wise: bool = True
) -> None:
    """Prove in this process that a transform is row-wise and gives what it gave when its bundle was written.

    Parameters
    ----------
    row_wise : bool
        False where the same source was proved row-wise in this process before: only the values are compared then.

    Raises
    ------
    TransformError
        When it is not or does not; facts name the ``column``.
    """
    if row_wise:
        prove_row_wise(transform, sample.rows)
    encoded = encode(run_transform(transform, sample.rows), specs)
    if encoded.shape != sample.encoded.shape and (encoded.size or sample.encoded.size):
        raise TransformError(f"the sample has {sample.encoded.shape} features, the transform gives {encoded.shape}")
    wrong = ~np.isclose(encoded, sample.encoded, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        name = specs[column].name
        raise TransformError(
            f"feature '{name}' is not what it was when the model was registered (row {row} of the sample: "
            f"{sample.encoded[row, column]:g}, now {encoded[row, column]:g})",
            next="a feature may use its own row only: no cache, file, clock or setting of a process",
            column=name,
        )


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _column(name: str, text: str, values: list[object]) -> pl.Series:
    dtype = dtype_of(text)
    if not dtype.is_temporal():
        return pl.Series(name, values, dtype=dtype)
    return pl.Series(name, values, dtype=pl.Int32 if isinstance(dtype, pl.Date) else pl.Int64).cast(dtype)
