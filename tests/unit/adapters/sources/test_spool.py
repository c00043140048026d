"""The spool: one schema, order kept, memory bounded, nothing left on disk."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulle.adapters.sources.spool import Budget, Portion, Spool, joined, pieces
from mulle.core.errors import DataError

TYPES = [
    pl.Null(), pl.Int8(), pl.Int64(), pl.UInt32(), pl.Float32(), pl.Float64(), pl.Boolean(), pl.String(), pl.Categorical(),
    pl.Date(), pl.Datetime("us"), pl.Datetime("us", "UTC"), pl.Datetime("ms", "UTC"), pl.Time(), pl.List(pl.Int64()),
    pl.List(pl.Float64()), pl.Struct({"a": pl.Int64()}), pl.Duration("us"),
]  # fmt: skip


@given(a=st.sampled_from(TYPES), b=st.sampled_from(TYPES))
def test_joining_types_does_not_depend_on_their_order(a: pl.DataType, b: pl.DataType) -> None:
    assert joined(a, b) == joined(b, a)
    assert joined(a, a) == a
    both = joined(a, b)
    if both is not None:
        assert joined(both, a) == both


@given(heights=st.lists(st.integers(0, 50), max_size=12), memory=st.sampled_from([0, 200, 1 << 20]))
def test_rows_come_back_in_order_whether_kept_in_memory_or_on_disk(heights: list[int], memory: int) -> None:
    spool, budget, start = Spool("x", (budget := Budget(memory))), budget, 0
    for height in heights:
        spool.add(pl.DataFrame({"i": range(start, start + height)}, schema={"i": pl.Int64}))
        start += height
    assert spool.rows == start
    found = pl.concat([pl.DataFrame(schema={"i": pl.Int64}), *spool.portion().frames])
    assert found["i"].to_list() == list(range(start))
    assert budget.take(memory), "memory is given back"


def test_nothing_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for leave in (False, True):
        spool = Spool("x", Budget(0))
        for _ in range(3):
            spool.add(pl.DataFrame({"i": [1, 2]}))
        frames = iter(spool.portion().frames)
        next(frames)
        assert list(tmp_path.iterdir())
        if leave:
            frames.close()  # type: ignore[attr-defined]
        else:
            assert len(list(frames)) == 2
        assert not list(tmp_path.iterdir())


def test_portions_get_one_schema() -> None:
    moment = datetime(2024, 1, 1, 10)
    a = pl.DataFrame({"x": [1], "n": [None], "at": [moment], "c": ["a"]}).with_columns(pl.col("c").cast(pl.Categorical))
    b = pl.DataFrame({"x": [0.5], "n": [True], "at": [moment.replace(tzinfo=UTC)], "late": ["b"], "c": ["b"]})
    c = pl.DataFrame({"at": [date(2024, 1, 2)]})
    found = pl.concat(pieces([Portion(name, f.schema, [f]) for name, f in (("a", a), ("b", b), ("c", c))]))
    assert found.schema == {
        "x": pl.Float64, "n": pl.Boolean, "at": pl.Datetime("us", "UTC"), "c": pl.String, "late": pl.String
    }  # fmt: skip
    assert found["x"].to_list() == [1.0, 0.5, None]
    assert found["at"].to_list() == [moment.replace(tzinfo=UTC)] * 2 + [datetime(2024, 1, 2, tzinfo=UTC)]
    assert found["c"].to_list() == ["a", "b", None]


def test_conflicts_name_both_sides() -> None:
    portions = [
        Portion("a.csv", {"x": pl.Null()}, []),
        Portion("b.csv", {"x": pl.Int64()}, []),
        Portion("c.csv", {"x": pl.String()}, []),
    ]
    with pytest.raises(DataError, match=r"c\.csv: column 'x' is String, and Int64 in b\.csv") as caught:
        pieces(portions)
    assert caught.value.facts == {"file": "c.csv", "column": "x"}


def test_small_frames_are_put_together() -> None:
    frame = pl.DataFrame({"i": range(100)})
    assert len(list(pieces([Portion("x", frame.schema, [frame] * 50)]))) == 1
    assert [f.height for f in pieces([Portion("x", frame.schema, [])])] == [0]
