"""Parquet and Arrow files: counted by their metadata, streamed, and refused when broken or changed."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from mulle.adapters.sources.files import FilesReader
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError, Unavailable

FRAME = pl.DataFrame({"id": range(300_000), "s": ["a", None, "b"] * 100_000}).with_columns(
    c=pl.col("s").cast(pl.Categorical), at=pl.lit("2024-01-01").str.to_datetime(time_zone="UTC")
)


def write(path: Path, frame: pl.DataFrame = FRAME) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=50_000)
    elif path.name.startswith("stream"):
        frame.write_ipc_stream(path)
    else:
        frame.write_ipc(path, compression="lz4")
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "a.ipc", "stream.arrow"])
def test_rows_are_streamed_and_counted(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    batch = FilesReader(tmp_path, Files(name)).read({})
    assert batch is not None
    assert batch.counted == (None if name.startswith("stream") else FRAME.height)
    found = list(batch.pieces)
    if name != "stream.arrow":
        assert len(found) > 1
    assert pl.concat(found).with_columns(pl.col("c").cast(pl.String)).equals(FRAME.with_columns(pl.col("c").cast(pl.String)))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_truncated_files_are_refused_by_name(name: str, share: float, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=name):
        read(tmp_path, name)


def read(folder: Path, name: str) -> pl.DataFrame:
    batch = FilesReader(folder, Files(name)).read({})
    assert batch is not None
    return batch.frame()


def test_damage_inside_is_refused_by_name_before_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    content = bytearray(path.read_bytes())
    content[1000:200_000] = os.urandom(199_000)
    path.write_bytes(content)
    batch = FilesReader(tmp_path, Files("a.parquet")).read({})
    assert batch is not None
    with pytest.raises(DataError, match=r"a\.parquet"):
        batch.frame()


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    with pytest.raises(DataError, match=r"a\.arrow.*x"):
        FilesReader(tmp_path, Files("a.arrow")).read({})


def test_a_file_that_is_removed_or_changed_before_its_rows_are_read(tmp_path: Path) -> None:
    reader = FilesReader(tmp_path, Files("*.parquet"))
    path = write(tmp_path / "a.parquet", FRAME[:10])
    batch = reader.read({})
    assert batch is not None
    write(path, FRAME[:20])
    with pytest.raises(Unavailable, match=r"a\.parquet: the file changed"):
        batch.frame()
    batch = reader.read({})
    assert batch is not None
    path.unlink()
    with pytest.raises(DataError, match=r"a\.parquet: was removed"):
        batch.frame()


def test_without_rows_it_is_nothing_new(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", FRAME[:0])
    assert FilesReader(tmp_path, Files("*.parquet")).read({}) is None


def test_small_integers_and_floats_of_two_files_widen(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1]}, schema={"x": pl.Int32}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"x": [0.5]}).write_parquet(tmp_path / "b.parquet")
    batch = FilesReader(tmp_path, Files("*.parquet")).read({})
    assert batch is not None
    assert batch.frame()["x"].to_list() == [1.0, 0.5]
    pl.DataFrame({"x": ["a"]}).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet: column 'x' is String, and Float64 in b\.parquet"):
        FilesReader(tmp_path, Files("*.parquet")).read({})
