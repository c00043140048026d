"""What a feature is made from, as far as its function can be looked into."""

from __future__ import annotations

import polars as pl

from mulle.kernel.reads import columns_read

SCHEMA = {"x": "Int64", "y": "Float64", "s": "String", "place.hill": "Float64"}


def test_each_feature_names_the_columns_it_reads() -> None:
    found = columns_read(
        lambda rows: rows.with_columns(t=pl.col("x") + 1).select("s", a=pl.col("t") * 2, b=pl.col("place.hill") + pl.col("y")),
        SCHEMA,
        ["a", "b", "s"],
    )
    assert {name: set(columns) for name, columns in found.items()} == {"a": {"x"}, "b": {"place.hill", "y"}, "s": {"s"}}


def test_a_function_that_cannot_be_looked_into_reads_all_or_tells_nothing() -> None:
    assert set(columns_read(lambda rows: rows.collect().lazy().select("x"), SCHEMA, ["x"])["x"]) == set(SCHEMA)
    assert columns_read(lambda rows: rows.select("nothing"), SCHEMA, ["nothing"]) == {}
