"""CSV: types as whole-file inference gives them, appended rows once each, and broken files told by line."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mulle.adapters.sources import delimited, lines
from mulle.adapters.sources.files import FilesReader
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError


def rows(folder: Path, content: str | bytes, **options: object) -> pl.DataFrame:
    (folder / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    batch = FilesReader(folder, Files("a.csv", **options)).read({})  # type: ignore[arg-type]
    assert batch is not None
    return batch.frame()


def refusal(folder: Path, content: bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        rows(folder, content)
    assert "a.csv" in caught.value.detail
    return caught.value


def whole(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "a.csv", infer_schema_length=None, try_parse_dates=True, null_values=["", "NA"])


LATE = {
    "an integer column that turns into floats": "x\n" + "1\n" * 3000 + "2.5\n",
    "numbers that turn into text keep their zeros": "x\n" + "007\n" * 3000 + "A7\n",
    "digits too many for a float": "x\n" + "1\n" * 3000 + "12345678901234567890123\n",
    "nulls, then integers": "x,y\n" + ",1\n" * 3000 + "5,1\n",
    "nulls, then times": "x,y\n" + ",1\n" * 3000 + "2024-01-01T10:00:00Z,1\n2024-01-01T11:00:00Z,2\n",
    "nulls, then integers, then text": "x,y\n" + ",1\n" * 3000 + "5,1\n" * 2000 + "a,1\n",
    "dates, then a time": "x\n" + "2024-01-01\n" * 3000 + "2024-01-01 10:00:00\n",
    "times with and without fractions": "x\n" + "2024-01-01T10:00:00Z\n" * 3000 + "2024-01-01T10:00:00.25Z\n",
    "times with a zone": "x\n" + "2024-01-01T10:00:00+02:00\n" * 3000,
    "times without one": "x\n" + "2024-01-01 10:00:00\n" * 3000,
    "truth values, then text": "x\n" + "true\n" * 3000 + "perhaps\n",
    "days first": "x\n" + "31/12/2020\n" * 3000,
    "clock times": "x\n" + "10:30:00\n" * 3000,
}


@pytest.mark.parametrize("size", [1 << 10, 16 << 20], ids=["many blocks", "one block"])
@pytest.mark.parametrize("text", LATE.values(), ids=LATE.keys())
def test_types_are_those_of_inference_over_the_whole_file(
    text: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_BLOCK", size)
    found = rows(tmp_path, text)
    expected = whole(tmp_path)
    if expected.schema["x"] == pl.Int128:
        expected = expected.with_columns(pl.col("x").cast(pl.String))
    assert_frame_equal(found, expected)


def test_values_between_quotes_may_hold_line_ends_and_separators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 64)
    text = "id,note\n" + "".join(f'{i},"one, ""two""\n\nthree {i}"\n' for i in range(200))
    found = rows(tmp_path, text)
    assert_frame_equal(found, whole(tmp_path))
    assert found["note"][7] == 'one, "two"\n\nthree 7'


def test_a_byte_order_mark_and_windows_line_ends_are_understood(tmp_path: Path) -> None:
    assert rows(tmp_path, b"\xef\xbb\xbfid,x\r\n1,a\r\n2,b\r\n").to_dicts() == [{"id": 1, "x": "a"}, {"id": 2, "x": "b"}]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert rows(tmp_path, "id,x\n1,\n\n2,b\n\n").to_dicts() == [{"id": 1, "x": None}, {"id": 2, "x": "b"}]


def test_separator_and_null_texts_are_as_declared(tmp_path: Path) -> None:
    found = rows(tmp_path, "id;x\n1;-\n2;3\n", separator=";", nulls=("-",))
    assert found.to_dicts() == [{"id": 1, "x": None}, {"id": 2, "x": 3}]


def test_columns_that_are_declared_text_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("zip,x\n01234,1\n")
    batch = FilesReader(tmp_path, Files("a.csv"), text=["zip", "unknown"]).read({})
    assert batch is not None
    assert batch.frame().to_dicts() == [{"zip": "01234", "x": 1}]


BROKEN = {
    "truncated": (b"id,x,y\n1,a,b\n2,a", "ends in the middle of line 3: 2 of 3", {"line": 3}),
    "short line": (b"id,x,y\n1,a,b\n2,a\n3,a,c\n", "line 3 is too short: 2 of 3", {"line": 3}),
    "short line after quotes": (b'id,x\n1,"a\nb"\n2\n3,c\n', "line 4 is too short", {"line": 4}),
    "long line": (b"id,x\n1,a\n2,b,c\n", "line 3 has 3 fields, the header 2", {"line": 3}),
    "wrong separator": (b"id;x\n1;a\n2;b\n", "';' between", {"line": 1}),
    "wrong separator, tab": (b"id\tx\n1\ta\n", "one column only", {"line": 1}),
    "utf-16": ("id,x\n1,a\n".encode("utf-16"), "UTF-16", {}),
    "utf-16 without a mark": ("id,x\n1,a\n".encode("utf-16-le"), "UTF-16", {}),
    "latin-1": ("id,x\n1,a\n2,\u00e9\n".encode("latin-1"), "line 3 is not UTF-8", {"line": 3}),
    "latin-1 in the header": ("id,\u00e9\n1,a\n".encode("latin-1"), "line 1 is not UTF-8", {"line": 1}),
    "two columns of one name": (b"id,x,id\n1,a,2\n", "'id'", {"column": "id"}),
    "nothing": (b"", "is empty", {}),
    "NUL": (b"id,x\n1,a\n2,\0\n", "line 3: holds a NUL byte", {"line": 3}),
    "old Macintosh": (b"id,x\r1,a\r2,b\r", "carriage return", {"line": 1}),
    "an open quote in the header": (b'"id,x\n' + b"1,a\n" * 200_000, "line 1: a quote is opened and never closed", {"line": 1}),
    "an open quote": (b'id,x\n1,a\n2,"b\n3,c\n', "line 3: a quote is opened and never closed", {"line": 3}),
    "stray quotes": (b'id,x\n1,a\n2,5" "b" 7" x"\n', "quote", {}),
    "a blank first line": (b"\nid,x\n1,2\n", "first line is blank", {"line": 1}),
}


@pytest.mark.parametrize(("content", "said", "facts"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_refused_and_the_place_is_named(
    content: bytes, said: str, facts: dict[str, object], tmp_path: Path
) -> None:
    error = refusal(tmp_path, content)
    assert said in error.detail
    assert error.next
    assert facts.items() <= error.facts.items()


def test_an_endless_line_is_refused_before_it_is_held(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(b"id,x\n1,2\n")
        for _ in range(100):
            file.write(b"7" * (1 << 20))
    with pytest.raises(DataError, match="line 3: is longer than 64 MiB"):
        FilesReader(tmp_path, Files("a.csv")).read({})
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match=r"a\.csv"):
        FilesReader(tmp_path, Files("a.csv")).read({})


def test_a_header_alone_gives_no_rows_until_rows_come(tmp_path: Path) -> None:
    reader = FilesReader(tmp_path, Files("*.csv"))
    (tmp_path / "a.csv").write_text("id,x\n")
    assert reader.read({}) is None
    (tmp_path / "a.csv").write_text("id,x\n1,2\n")
    batch = reader.read({})
    assert batch is not None
    assert batch.frame().rows() == [(1, 2)]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_appended_rows_keep_the_types_of_the_text_before(tmp_path: Path) -> None:
    path, reader = tmp_path / "a.csv", FilesReader(tmp_path, Files("a.csv"))
    path.write_text("code,x\nA1,1")
    first = reader.read({})
    assert first is not None
    append(path, "\n007,2\n")
    second = reader.read(first.positions)
    assert second is not None
    assert second.frame().rows() == [("007", 2)]
    assert second.positions["files"]["a.csv"]["rows"] == 2
    append(path, "008")
    with pytest.raises(DataError, match="middle of line 4"):
        reader.read(second.positions)


def test_a_line_that_goes_on_makes_the_file_a_correction(tmp_path: Path) -> None:
    path, reader = tmp_path / "a.csv", FilesReader(tmp_path, Files("a.csv"))
    path.write_text("id\n1\n2")
    first = reader.read({})
    assert first is not None
    append(path, "5\n")
    second = reader.read(first.positions)
    assert second is not None
    assert second.frame()["id"].to_list() == [1, 25]
    assert second.positions["files"]["a.csv"]["rows"] == 2


def test_what_is_appended_while_reading_belongs_to_the_next_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reader = tmp_path / "a.csv", FilesReader(tmp_path, Files("a.csv"))
    path.write_text("id\n1\n2\n")
    true_head = lines.LineFile.head

    def appending(self: lines.LineFile) -> bytes:
        append(path, "3\n4")
        return true_head(self)

    with monkeypatch.context() as patch:
        patch.setattr(lines.LineFile, "head", appending)
        first = reader.read({})
    assert first is not None
    assert first.frame()["id"].to_list() == [1, 2]
    append(path, "\n")
    second = reader.read(first.positions)
    assert second is not None
    assert second.frame()["id"].to_list() == [3, 4]


def test_a_prefix_of_the_rows_tells_the_type_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 1 << 12)
    calls = []
    true = delimited._inferred
    monkeypatch.setattr(delimited, "_inferred", lambda texts: calls.append(texts.len()) or true(texts))
    rows(tmp_path, "x\n" + "1\n" * 50_000)
    assert len(calls) == 1
    assert calls[0] <= 1_000


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6).map(lambda t: "w" + t)
COLUMNS = {
    "i": st.none() | st.integers(-(2**53), 2**53),
    "f": st.none() | st.floats(-1e9, 1e9, allow_nan=False),
    "t": st.none() | WORDS | st.sampled_from(['wa"b', "w,", "w\nx", "w ", "wé"]),
    "b": st.none() | st.booleans(),
    "d": st.none() | st.dates(date(1970, 1, 1), date(2200, 1, 1)),
    "m": st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
}
TYPES = {"i": pl.Int64, "f": pl.Float64, "t": pl.String, "b": pl.Boolean, "d": pl.Date, "m": pl.Datetime("us", "UTC")}
TABLE = st.lists(st.tuples(*COLUMNS.values()), min_size=1, max_size=30)


@settings(max_examples=120, deadline=None)
@given(table=TABLE, cuts=st.lists(st.integers(0, 30), max_size=4), block=st.sampled_from([32, 200, 1 << 20]))
def test_any_frame_appended_in_portions_is_read_once(
    table: list[tuple[object, ...]], cuts: list[int], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    frame = pl.DataFrame(table, schema=TYPES, orient="row")
    edges = sorted({0, *(c for c in cuts if c < frame.height), frame.height})
    reader, positions, found = FilesReader(folder, Files("a.csv")), {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK", block)
        for start, end in pairwise(edges):
            append(folder / "a.csv", frame[start:end].write_csv(include_header=start == 0, quote_style="non_numeric"))
            batch = reader.read(positions)
            assert batch is not None
            found.append(batch.frame())
            positions = dict(batch.positions)
        assert reader.read(positions) is None
    once = pl.concat([f.cast({c: TYPES[c] for c, t in f.schema.items() if t in (pl.Null, pl.Int64)}) for f in found])
    assert_frame_equal(once, frame)
    os.utime(folder / "a.csv", ns=(1, 1))
    assert reader.read(positions) is None


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.none() | st.integers(-99, 99), min_size=1, max_size=30), block=st.sampled_from([4, 1 << 20]))
def test_in_a_file_of_one_column_a_blank_line_is_a_null(
    values: list[int | None], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frame = pl.DataFrame({"x": values}, schema={"x": pl.Int64})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK", block)
        found = rows(tmp_path_factory.mktemp("csv"), frame.write_csv())
    assert found["x"].to_list() == values


@settings(max_examples=60, deadline=None)
@given(blank=st.lists(st.integers(0, 2), min_size=5, max_size=5), block=st.sampled_from([2, 8, 1 << 20]))
def test_blank_lines_are_left_out_wherever_they_stand(
    blank: list[int], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = "id,x\n" + "".join("\n" * n + f"{i},\n" for i, n in enumerate(blank))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK", block)
        found = rows(tmp_path_factory.mktemp("csv"), content)
    assert found["id"].to_list() == [0, 1, 2, 3, 4]
