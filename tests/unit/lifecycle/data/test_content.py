"""The content hash tells different data apart, and nothing else."""

from __future__ import annotations

from datetime import date

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from mulle.core.clock import instant
from mulle.lifecycle.data.content import ContentHash, content_hash

NOW = instant("2013-03-01T12:00:00Z")


def test_the_hash_is_of_content_alone() -> None:
    frame = pl.DataFrame({"a": [1.5, None, 3.0], "b": ["x", "", None], "t": [NOW, None, NOW], "l": [[1], [], None]})
    assert content_hash(frame) == content_hash(frame.select("t", "l", "b", "a").with_columns(_batch=pl.lit("z")))
    changed = [
        frame[:2],
        frame.reverse(),
        frame.with_columns(b=pl.Series(["x", None, ""])),
        frame.with_columns(a=pl.Series([1.5, 0.0, 3.0])),
        frame.with_columns(b=pl.Series(["", "x", None])),
        frame.rename({"a": "c"}),
        frame.with_columns(a=pl.col("a").cast(pl.Float32)),
        pl.concat([frame, frame]),
    ]
    assert len({content_hash(f) for f in [frame, *changed]}) == 9


def test_every_nan_is_one_nan_and_dates_and_truths_count() -> None:
    nan, other = float("nan"), -float("nan")
    assert content_hash(pl.DataFrame({"x": [nan]})) == content_hash(pl.DataFrame({"x": [other]}))
    days = [pl.DataFrame({"d": [date(2013, 1, n)], "b": [b]}) for n in (1, 2) for b in (True, False, None)]
    assert len({content_hash(f) for f in days}) == 6


FRAMES = dataframes(
    max_cols=4,
    max_size=30,
    allowed_dtypes=[
        pl.Int64,
        pl.UInt64,
        pl.Int8,
        pl.Float64,
        pl.Float32,
        pl.Boolean,
        pl.String,
        pl.Date,
        pl.Datetime("us", "UTC"),
    ],
)


@settings(deadline=None)
@given(FRAMES, st.lists(st.integers(1, 10), max_size=6))
def test_how_rows_are_cut_into_pieces_does_not_matter(frame: pl.DataFrame, cuts: list[int]) -> None:
    hashed, start = ContentHash(), 0
    for length in [*cuts, frame.height]:
        hashed.update(frame.slice(start, length))
        start += length
    assert hashed.digest() == content_hash(frame)


@settings(deadline=None)
@given(FRAMES, st.data())
def test_a_changed_cell_changes_the_hash(frame: pl.DataFrame, data: st.DataObject) -> None:
    cells = [(name, row) for name in frame.columns for row in range(frame.height) if frame[name][row] is not None]
    if not cells:
        return
    name, row = data.draw(st.sampled_from(cells))
    emptied = pl.int_range(pl.len()) == row
    assert content_hash(frame.with_columns(pl.when(~emptied).then(pl.col(name)).alias(name))) != content_hash(frame)
