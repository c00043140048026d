"""The suite that every source of rows meets, and what files alone must do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mulle.adapters.sources.files import FilesReader
from mulle.adapters.sources.frames import FrameReader
from mulle.core.clock import instant
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError
from mulle.core.ports.source import SourceReader

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 3, 4],
        "at": [instant(f"2013-01-0{d}") for d in (3, 1, 2, 4)],
        "known": [instant("2013-01-04"), None, instant("2013-01-02"), instant("2013-01-05")],
    },
    schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC"), "known": pl.Datetime("us", "UTC")},
)


def from_files(folder: Path) -> SourceReader:
    ROWS[:2].write_parquet(folder / "a.parquet")
    ROWS[2:].write_parquet(folder / "b.parquet")
    return FilesReader(folder, Files("*.parquet"), "known", time="at")


@pytest.fixture(params=[from_files, lambda folder: FrameReader(ROWS, "known", time="at")], ids=["files", "frame"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> SourceReader:
    make: Callable[[Path], SourceReader] = request.param
    return make(tmp_path)


def ids(reader: SourceReader, positions: dict[str, object], until: str | None = None) -> tuple[list[int], dict[str, object]]:
    batch = reader.read(positions, instant(until) if until else None)
    return (batch.frame()["id"].to_list(), batch.positions) if batch else ([], positions)


def test_every_row_is_read_once(reader: SourceReader) -> None:
    found, positions = ids(reader, {})
    assert sorted(found) == [1, 2, 3, 4]
    assert ids(reader, positions) == ([], positions)


def test_on_a_replay_clock_rows_come_as_they_became_known(reader: SourceReader) -> None:
    found, positions = ids(reader, {}, "2013-01-02")
    assert found == [2, 3]
    assert ids(reader, positions, "2013-01-02")[0] == []
    assert ids(reader, positions, "2013-01-04T12:00")[0] == [1]
    assert ids(reader, positions)[0] == [1, 4]


def csv(folder: Path, text: str, name: str = "a.csv") -> None:
    (folder / name).write_text(text)


def test_csv_nulls_and_times_are_understood(tmp_path: Path) -> None:
    csv(tmp_path, "id,x,at,none\n1,NA,2013-01-01T10:00:00Z,\n2,3.5,2013-01-01T11:00:00Z,\n")
    batch = FilesReader(tmp_path, Files("a.csv")).read({})
    assert batch is not None
    rows = batch.frame()
    assert rows["x"].to_list() == [None, 3.5]
    assert rows["at"].to_list() == [instant("2013-01-01T10:00"), instant("2013-01-01T11:00")]
    assert rows.schema["none"] == pl.Null


def test_lines_appended_to_a_csv_are_read_alone(tmp_path: Path) -> None:
    reader = FilesReader(tmp_path, Files("a.csv"))
    csv(tmp_path, "id\n1\n2\n")
    _, positions = ids(reader, {})
    csv(tmp_path, "id\n1\n2\n3\n")
    found, positions = ids(reader, positions)
    assert found == [3]
    csv(tmp_path, "id\n1\n5\n3\n")
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    assert ids(reader, positions)[0] == [1, 5, 3]


def test_a_file_that_was_only_touched_is_not_read_again(tmp_path: Path) -> None:
    reader = FilesReader(tmp_path, Files("a.csv"))
    csv(tmp_path, "id\n1\n")
    _, positions = ids(reader, {})
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    assert ids(reader, positions)[0] == []


def test_files_that_appear_later_are_read_and_may_lack_columns(tmp_path: Path) -> None:
    reader = FilesReader(tmp_path, Files("*.csv"))
    assert reader.read({}) is None
    csv(tmp_path, "id,x\n1,\n")
    csv(tmp_path, "id,x\n2,1.5\n", "b.csv")
    batch = reader.read({})
    assert batch is not None
    assert batch.frame().to_dicts() == [{"id": 1, "x": None}, {"id": 2, "x": 1.5}]
    csv(tmp_path, "id,x\n3,1\n", "c.csv")
    assert ids(reader, dict(batch.positions))[0] == [3]


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is not a table")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        FilesReader(tmp_path, Files("*.parquet")).read({})
    with pytest.raises(DataError, match=r"gone\.csv"):
        FilesReader(tmp_path, Files("gone.csv")).read({})
