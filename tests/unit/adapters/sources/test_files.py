"""Paths, globs and folders: what counts as a file of the source, what is read again, and what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mulle.adapters.sources.files import FilesReader
from mulle.adapters.sources.objects import _regex
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError
from mulle.core.ports.source import Batch


def put(path: Path, text: str = "id\n1\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def ids(reader: FilesReader) -> list[int]:
    batch = reader.read({})
    return sorted(batch.frame()["id"].to_list()) if batch else []


def test_a_folder_is_read_with_all_below_and_other_files_are_ignored(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.csv")
    put(tmp_path / "in" / "2024" / "b.CSV", "id\n2\n")
    put(tmp_path / "in" / "c.jsonl", '{"id": 3}\n')
    pl.DataFrame({"id": [4]}).write_parquet(tmp_path / "in" / "d.parquet")
    pl.DataFrame({"id": [5]}).write_ipc(tmp_path / "in" / "e.feather")
    for other in ("readme.md", "a.csv.gz", "a.csv.tmp", ".hidden.csv", "_SUCCESS", "_temporary/x.csv", ".git/y.csv"):
        put(tmp_path / "in" / other, "id\n99\n")
    put(tmp_path / "in" / "being-written.csv", "")
    reader = FilesReader(tmp_path, Files("in"))
    assert ids(reader) == [1, 2, 3, 4, 5]
    assert FilesReader(tmp_path, Files("in")).read({}).counted is None  # type: ignore[union-attr]


def test_a_glob_leaves_out_what_a_shell_leaves_out(tmp_path: Path) -> None:
    put(tmp_path / ".home" / "in" / "a.csv")
    put(tmp_path / ".home" / "in" / ".a.csv.Xy12.csv", "id\n99\n")
    put(tmp_path / ".home" / "in" / "_b.csv", "id\n2\n")
    assert ids(FilesReader(tmp_path, Files(".home/in/*.csv"))) == [1, 2]


def test_a_folder_keeps_receiving_and_each_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    reader, positions, found = FilesReader(tmp_path, Files("in")), {}, []
    assert reader.read(positions) is None
    for number in range(5):
        put(tmp_path / "in" / f"{number}.csv", f"id\n{number}\n")
        batch = reader.read(positions)
        assert batch is not None
        found += batch.frame()["id"].to_list()
        positions = batch.positions
        assert batch.origin == f"in/{number}.csv"
    assert found == [0, 1, 2, 3, 4]
    (tmp_path / "in" / "0.csv").unlink()
    assert reader.read(positions) is None


def test_a_file_that_gets_its_content_later_is_read_then(tmp_path: Path) -> None:
    reader = FilesReader(tmp_path, Files("*.csv"))
    put(tmp_path / "a.csv", "")
    assert reader.read({}) is None
    put(tmp_path / "a.csv", "id\n7\n")
    assert ids(reader) == [7]


def test_formats_are_told_by_the_ending_or_by_name(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.txt", "id\n1\n")
    put(tmp_path / "in" / "b.dat", "id\n2\n")
    put(tmp_path / "in" / "c.jsonl", '{"id": 3}\n')
    assert ids(FilesReader(tmp_path, Files("in", format="csv"))) == [1, 2]
    assert ids(FilesReader(tmp_path, Files("in/*.txt", format="csv"))) == [1]
    with pytest.raises(DataError, match="format") as caught:
        FilesReader(tmp_path, Files("in/a.txt")).read({})
    assert "format=" in caught.value.next
    with pytest.raises(DataError, match="format"):
        FilesReader(tmp_path, Files("in/*.txt")).read({})


def test_types_that_conflict_between_files_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", "id,x\n1,2\n")
    put(tmp_path / "b.csv", "id,x\n1,oops\n")
    with pytest.raises(DataError, match=r"b\.csv: column 'x' is String, and Int64 in a\.csv") as caught:
        FilesReader(tmp_path, Files("*.csv")).read({})
    assert caught.value.facts == {"file": "b.csv", "column": "x"}


def test_one_broken_file_gives_nothing_of_the_others(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", "id,x\n1,2\n")
    put(tmp_path / "b.csv", "id,x\n1,2\n1")
    with pytest.raises(DataError, match=r"b\.csv"):
        FilesReader(tmp_path, Files("*.csv")).read({})


def test_a_file_removed_between_listing_and_reading_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.csv")
    reader = FilesReader(tmp_path, Files("*.csv"))
    found = reader._files()
    (tmp_path / "a.csv").unlink()
    reader._files = lambda: found  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"a\.csv: was removed"):
        reader.read({})


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("b/*.csv", "b/x.csv", True),
        ("b/*.csv", "b/c/x.csv", False),
        ("b/**/*.csv", "b/c/d/x.csv", True),
        ("b/**/*.csv", "b/x.csv", True),
        ("b/x?.csv", "b/x1.csv", True),
        ("b/x[!1].csv", "b/x1.csv", False),
        ("b/x.csv", "b/xacsv", False),
    ],
)
def test_globs_of_objects_mean_what_those_of_files_mean(pattern: str, path: str, fits: bool, tmp_path: Path) -> None:
    import re

    put(tmp_path / path)
    assert (re.fullmatch(_regex(pattern), path) is not None) == fits
    assert bool(list(tmp_path.glob(pattern))) == fits


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A CSV of 180 MB goes through a budget of 32 MiB."""
    part = "".join(f"{i},2024-01-01T10:00:00Z,{i / 7:.6f},some text {i % 100}\n" for i in range(100_000))
    with (tmp_path / "a.csv").open("w") as file:
        file.write("id,at,x,s\n")
        for _ in range(35):
            file.write(part)
    code = (
        "import re, sys; from pathlib import Path\n"
        "from mulle.adapters.sources import spool; spool.Budget.__init__.__defaults__ = (32 << 20,)\n"
        "from mulle.adapters.sources.files import FilesReader; from mulle.core.declare.sources import Files\n"
        "batch = FilesReader(Path(sys.argv[1]), Files('a.csv')).read({})\n"
        "height = sum(p.height for p in batch.pieces)\n"
        # Not ru_maxrss: it counts the process that started this one too.
        "print(height, int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    height, peak = map(int, answer.stdout.split())
    assert height == 3_500_000
    assert peak < 600, f"{peak} MiB at most (a frame of the whole takes above 250 beside its text)"


@pytest.mark.parametrize("pattern", ["inn/*.csv", "in/2O24/*.csv", "inn/**/*.csv"])
def test_a_glob_in_a_folder_that_does_not_exist_is_told(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "in" / "2024").mkdir(parents=True)
    with pytest.raises(DataError, match="there is no folder") as told:
        FilesReader(tmp_path, Files(pattern)).read({})
    assert "mend the path" in str(told.value.next)
    assert FilesReader(tmp_path, Files("in/*.csv")).read({}) is None
    assert FilesReader(tmp_path, Files("in/*/*.csv")).read({}) is None
    assert FilesReader(tmp_path, Files(pattern), late=True).read({}) is None


def unkeyed(folder: Path) -> FilesReader:
    return FilesReader(folder, Files("in"), keyed=False)


def left_alone(path: Path, seconds: int = 61) -> None:
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))


@pytest.mark.parametrize(
    ("name", "early", "rest"),
    [
        ("a.csv", "id,x\n1,1\n2,", "2\n3,3\n"),
        ("a.csv", 'id,x\n1,1\n2,"half\n', 'a text"\n3,c\n'),
        ("a.jsonl", '{"id": 1}\n{"id": 2', '}\n{"id": 3}\n'),
    ],
)
def test_without_a_key_a_line_in_the_middle_of_its_writing_waits(tmp_path: Path, name: str, early: str, rest: str) -> None:
    reader, path = unkeyed(tmp_path), tmp_path / "in" / name
    put(path, early)
    first = reader.read({})
    assert first is not None
    assert first.frame()["id"].to_list() == [1]
    assert first.origin == f"in/{name}; an unfinished last line waits: in/{name}"
    put(path, early + rest)
    second = reader.read(first.positions)
    assert second is not None
    assert second.frame()["id"].to_list() == [2, 3]
    assert second.origin == f"in/{name}"


def test_without_a_key_a_last_line_that_never_gets_an_end_is_read_once_the_file_is_left_alone(tmp_path: Path) -> None:
    reader, path = unkeyed(tmp_path), tmp_path / "in" / "a.csv"
    put(path, "id\n1\n2")
    first = reader.read({})
    assert first is not None
    left_alone(path)
    second = reader.read(first.positions)
    assert second is not None
    assert first.frame()["id"].to_list() + second.frame()["id"].to_list() == [1, 2]
    assert reader.read(second.positions) is None
    put(tmp_path / "in" / "b.csv", "id\n3\n4")
    left_alone(tmp_path / "in" / "b.csv")
    assert ids(reader) == [1, 2, 3, 4]


def test_without_a_key_half_a_header_waits_too(tmp_path: Path) -> None:
    reader, path = unkeyed(tmp_path), tmp_path / "in" / "a.csv"
    put(path, "i")
    put(tmp_path / "in" / "b.csv", "id\n1\n")
    batch = reader.read({})
    assert batch is not None
    assert list(batch.positions["files"]) == ["in/b.csv"]
    put(path, "id\n2\n")
    assert reader.read(batch.positions).frame()["id"].to_list() == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize("again", ["id,x\n1,1\n2,9\n", "id,x\n1,1\n", "id,x\n7,7\n8,8\n9,9\n"])
def test_without_a_key_a_file_that_was_written_again_is_refused(tmp_path: Path, again: str) -> None:
    path = tmp_path / "in" / "a.csv"
    put(path, "id,x\n1,1\n2,2\n")
    positions = unkeyed(tmp_path).read({}).positions  # type: ignore[union-attr]
    put(path, again)
    with pytest.raises(DataError, match=r"in/a.csv was changed after it was read.*without a key") as told:
        unkeyed(tmp_path).read(positions)
    assert "declare key=" in str(told.value.next)
    assert FilesReader(tmp_path, Files("in")).read(positions).frame().height == again.count("\n") - 1  # type: ignore[union-attr]


def test_without_a_key_a_columnar_file_that_was_written_again_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    pl.DataFrame({"id": [1, 2]}).write_parquet(path)
    positions = unkeyed(tmp_path).read({}).positions  # type: ignore[union-attr]
    os.utime(path)
    assert unkeyed(tmp_path).read(positions) is None
    pl.DataFrame({"id": [1, 3]}).write_parquet(path)
    with pytest.raises(DataError, match="was changed after it was read"):
        unkeyed(tmp_path).read(positions)


def test_without_a_key_a_file_that_was_turned_away_is_mended_in_place(tmp_path: Path) -> None:
    reader, path = unkeyed(tmp_path), tmp_path / "in" / "a.csv"

    def read(positions: dict[str, Any]) -> Batch:
        batch = reader.read(positions)
        assert batch is not None
        return batch

    put(path, "id\n1\n99\n")
    refused = read({}).refused
    assert refused is not None
    assert reader.read(refused) is None, "it stays turned away while it stays the same"
    os.utime(path)
    assert reader.read(refused) is None
    put(path, "id\n1\n2\n")
    mended = read(refused)
    assert mended.frame()["id"].to_list() == [1, 2]
    put(path, "id\n1\n2\n98\n")
    appended = read(mended.positions)
    assert appended.frame()["id"].to_list() == [98]
    assert appended.refused is not None
    put(path, "id\n1\n2\n97\n")
    twice = read(appended.refused).refused
    assert twice is not None
    put(path, "id\n1\n2\n3\n")
    assert read(twice).frame()["id"].to_list() == [3], "what was published before it stays as it is"
    put(path, "id\n1\n7\n3\n")
    with pytest.raises(DataError, match="was changed after it was read"):
        reader.read(twice)


def test_without_a_key_a_columnar_file_that_was_turned_away_is_mended_in_place(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    pl.DataFrame({"id": [99]}).write_parquet(path)
    refused = unkeyed(tmp_path).read({}).refused  # type: ignore[union-attr]
    assert refused is not None
    os.utime(path)
    assert unkeyed(tmp_path).read(refused) is None
    pl.DataFrame({"id": [1]}).write_parquet(path)
    assert unkeyed(tmp_path).read(refused).frame()["id"].to_list() == [1]  # type: ignore[union-attr]
