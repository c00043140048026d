"""What the lake keeps of a column's type, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.adapters.lake.delta import DeltaLake
from mulle.adapters.lake.schema import stored_type
from mulle.core.errors import DataError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (pl.UInt32(), pl.Int64()),
        (pl.Int8(), pl.Int8()),
        (pl.Categorical(), pl.String()),
        (pl.Enum(["a"]), pl.String()),
        (pl.Datetime("ns", "Europe/Paris"), pl.Datetime("us", "UTC")),
        (pl.Datetime("ms"), pl.Datetime("us")),
        (pl.Time(), None),
        (pl.Duration("us"), None),
    ],
)
def test_types_are_kept_without_loss_or_refused(given: pl.DataType, kept: pl.DataType | None) -> None:
    assert stored_type(given) == kept


def test_instants_keep_their_moment(tmp_path: Path) -> None:
    lake = DeltaLake(str(tmp_path))
    moment = datetime(2013, 3, 1, 12, tzinfo=UTC)
    frame = pl.DataFrame({"t": [moment]}).select(pl.col("t").dt.convert_time_zone("Asia/Seoul").dt.cast_time_unit("ns"))
    lake.append("t", frame, application="a", sequence=0)
    assert lake.scan("t").collect()["t"].to_list() == [moment]


def test_columns_of_nulls_take_the_tables_type_and_are_left_out_of_a_new_one(tmp_path: Path) -> None:
    lake = DeltaLake(str(tmp_path))
    lake.append("t", pl.DataFrame({"a": [1], "b": [None]}), application="a", sequence=0)
    lake.append("t", pl.DataFrame({"a": [None], "b": ["x"]}), application="a", sequence=1)
    assert lake.scan("t").sort("a").collect().to_dicts() == [{"a": None, "b": "x"}, {"a": 1, "b": None}]


def test_whole_numbers_may_join_a_column_of_floats_and_not_the_other_way(tmp_path: Path) -> None:
    lake = DeltaLake(str(tmp_path))
    lake.append("floats", pl.DataFrame({"x": [0.5]}), application="a", sequence=0)
    lake.append("floats", pl.DataFrame({"x": [2]}), application="a", sequence=1)
    assert lake.scan("floats").collect()["x"].sort().to_list() == [0.5, 2.0]
    lake.append("whole", pl.DataFrame({"x": [1]}), application="a", sequence=0)
    with pytest.raises(DataError):
        lake.append("whole", pl.DataFrame({"x": [0.5]}), application="a", sequence=1)


def test_a_number_too_large_for_the_lake_is_refused(tmp_path: Path) -> None:
    rows = pl.DataFrame({"x": pl.Series([2**64 - 1], dtype=pl.UInt64)})
    for each in (rows, rows.lazy()):
        with pytest.raises(DataError):
            DeltaLake(str(tmp_path)).append("t", each, application="a", sequence=1)


@settings(max_examples=10, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
    day=st.text("abc/ :%é=-", min_size=1, max_size=6),
)
def test_any_text_survives_also_in_a_partition(tmp_path_factory: pytest.TempPathFactory, texts: list[str], day: str) -> None:
    lake = DeltaLake(str(tmp_path_factory.mktemp("lake")))
    frame = pl.DataFrame({"text": texts, "day": [day] * len(texts)})
    lake.append("t", frame, application="a", sequence=0, partition_by=["day"])
    found = lake.scan("t").select("text", "day").collect()
    assert sorted(found.rows()) == sorted(frame.rows())
