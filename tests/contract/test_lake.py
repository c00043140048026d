"""The lake: one suite for every adapter of the port."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.errors import DataError, NotFound, Unavailable, UsageError
from mulle.core.ports.lake import Lake

NOON = datetime(2013, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def rows(first: int = 0, count: int = 3, day: str = "2013-03-01") -> pl.DataFrame:
    numbers = range(first, first + count)
    columns = {
        "id": [f"p{n}" for n in numbers],
        "value": [float(n) for n in numbers],
        "time": [NOON] * count,
        "day": [day] * count,
    }
    return pl.DataFrame(columns, schema_overrides={"time": pl.Datetime("us", "UTC")})


@pytest.fixture(params=["delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return DeltaLake(str(tmp_path / "lake"))


def ids(lake: Lake, table: str = "predictions", version: int | None = None) -> list[str]:
    return sorted(lake.scan(table, version).collect()["id"].to_list())


def test_rows_read_back_with_their_types(lake: Lake) -> None:
    lake.append("predictions", rows(), application="a", sequence=0, partition_by=["day"])
    found = lake.scan("predictions").sort("id").collect()
    assert found.schema["time"] == pl.Datetime("us", "UTC")
    assert_frame_equal(found.select(rows().columns), rows())


def test_a_repeated_or_older_sequence_writes_nothing(lake: Lake) -> None:
    for sequence in (0, 0, 1, 0, 1):
        lake.append("t", rows(10 * sequence), application="a", sequence=sequence)
    lake.append("t", rows(50), application="b", sequence=0)
    assert len(ids(lake, "t")) == 9
    assert (lake.applied("t", "a"), lake.applied("t", "b"), lake.applied("t", "c"), lake.applied("no", "a")) == (1, 0, None, None)


def test_sequences_are_remembered_over_many_commits_and_by_another_process(lake: Lake) -> None:
    for n in range(25):
        lake.append("t", rows(n, 1), application=f"segment-{n}", sequence=7)
    other = DeltaLake(str(lake.folder))
    assert all(other.applied("t", f"segment-{n}") == 7 for n in range(25))
    assert other.append("t", rows(), application="segment-0", sequence=7) == other.version("t")
    assert len(ids(other, "t")) == 25


def test_an_older_version_can_be_read(lake: Lake) -> None:
    versions = [lake.append("t", rows(10 * n), application="a", sequence=n) for n in range(3)]
    assert versions == sorted(set(versions))
    assert lake.version("t") == versions[-1]
    assert [len(ids(lake, "t", version)) for version in versions] == [3, 6, 9]


def test_a_frame_keeps_reading_the_version_it_was_made_at(lake: Lake) -> None:
    lake.append("t", rows(), application="a", sequence=0)
    before = lake.scan("t")
    lake.append("t", rows(10), application="a", sequence=1)
    assert before.collect().height == 3
    assert lake.scan("t").collect().height == 6


def test_what_another_writer_appended_is_seen_at_once(lake: Lake) -> None:
    other = DeltaLake(str(lake.folder))
    for n in range(4):
        (lake, other)[n % 2].append("t", rows(10 * n), application="a", sequence=n)
        assert len(ids(lake, "t")) == len(ids(other, "t")) == 3 * (n + 1)


def test_unknown_tables_and_versions_are_not_found(lake: Lake) -> None:
    assert lake.version("t") is None
    with pytest.raises(NotFound):
        lake.scan("t")
    lake.append("t", rows(), application="a", sequence=0)
    for version in (2, -1):
        with pytest.raises(NotFound):
            lake.scan("t", version)


def test_a_new_column_reads_as_null_in_older_rows(lake: Lake) -> None:
    lake.append("t", rows(), application="a", sequence=0)
    lake.append("t", rows(10).with_columns(wind=1.5), application="a", sequence=1)
    lake.append("t", rows(20).drop("value"), application="a", sequence=2)
    found = lake.scan("t").sort("id").collect()
    assert found["wind"].null_count() == 6
    assert found["value"].null_count() == 3
    assert "wind" not in lake.scan("t", 0).collect_schema()


def test_a_conflicting_type_is_refused_by_name_and_nothing_is_written(lake: Lake) -> None:
    lake.append("t", rows(), application="a", sequence=0)
    with pytest.raises(DataError, match="value") as caught:
        lake.append("t", rows(10).with_columns(value=pl.lit("far")), application="a", sequence=1)
    assert caught.value.facts["column"] == "value"
    assert len(ids(lake, "t")) == 3
    assert lake.applied("t", "a") == 0


def test_partitions_prune_the_files_read(lake: Lake) -> None:
    for n in range(3):
        lake.append("t", rows(10 * n, day=f"2013-03-0{n + 1}"), application="a", sequence=n, partition_by=["day"])
    one = lake.scan("t").filter(pl.col("day") == "2013-03-02")
    assert one.explain().count(".parquet") == 1
    assert sorted(one.collect()["id"]) == ["p10", "p11", "p12"]


def test_an_empty_append_makes_the_table_and_counts(lake: Lake) -> None:
    lake.append("t", rows().clear(), application="a", sequence=3)
    assert lake.scan("t").collect().height == 0
    assert lake.applied("t", "a") == 3


def test_names_cannot_leave_the_lake(lake: Lake) -> None:
    for name in ("../x", "/etc/x", "a//b", "", "."):
        with pytest.raises(UsageError):
            lake.append(name, rows(), application="a", sequence=0)
        with pytest.raises(UsageError):
            lake.park(name, rows())


def test_parked_rows_stay_outside_every_table(lake: Lake) -> None:
    address = lake.park("staging/flights/b1", rows())
    lake.park("staging/flights/b1", rows(10))
    assert_frame_equal(lake.parked("staging/flights/b1").collect(), rows(10))
    assert Path(address).parent.exists()
    assert [p.name for p in Path(address).parent.iterdir()] == ["b1.parquet"]
    for _ in range(2):
        lake.unpark("staging/flights/b1")
    with pytest.raises(NotFound):
        lake.parked("staging/flights/b1").collect()


def test_threads_append_and_read_at_once(lake: Lake) -> None:
    def write(n: int) -> int:
        lake.append("t", rows(10 * n), application=f"a{n % 4}", sequence=n)
        return lake.scan("t").collect().height

    # Sequences rise per application: each of the four writes its own in order.
    with ThreadPoolExecutor(4) as pool:
        heights = list(pool.map(lambda a: [write(n) for n in range(a, 16, 4)][-1], range(4)))
    assert max(heights) == 48
    assert len(set(ids(lake, "t"))) == 48


APPEND_TEN = """
import sys, polars as pl
from mulle.adapters.lake.delta import DeltaLake
folder, application, first = sys.argv[1:]
lake = DeltaLake(folder)
for n in range(10):
    extra = {f"of_{first}": [n]} if n == 5 else {}
    lake.append("t", pl.DataFrame({"id": [f"p{int(first) + n}"], **extra}), application=application, sequence=n)
"""

APPEND_AND_DIE = """
import os, signal, sys, polars as pl
from mulle.adapters.lake.delta import DeltaLake
DeltaLake(sys.argv[1]).append("t", pl.DataFrame({"id": ["p0", "p1"]}), application="a", sequence=1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments])


def test_two_processes_append_to_one_table_and_all_lands(lake: Lake) -> None:
    children = [start(APPEND_TEN, str(lake.folder), name, first) for name, first in (("a", "0"), ("b", "100"))]
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(set(ids(lake, "t"))) == 20
    assert {"of_0", "of_100"} <= set(lake.scan("t").collect_schema())


def test_two_processes_with_one_application_write_each_sequence_once(lake: Lake) -> None:
    children = [start(APPEND_TEN, str(lake.folder), "same", "0") for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert ids(lake, "t") == sorted(f"p{n}" for n in range(10))


def test_two_writers_that_make_one_table_at_once_write_a_sequence_once(lake: Lake) -> None:
    def write(table: str, start_line: Barrier) -> None:
        other = DeltaLake(str(lake.folder))
        for sequence in range(3):
            start_line.wait()
            other.append(table, rows(10 * sequence), application="same", sequence=sequence)

    with ThreadPoolExecutor(4) as pool:
        for n in range(15):
            start_line = Barrier(4)
            list(pool.map(write, [f"t{n}"] * 4, [start_line] * 4))
    assert [len(ids(lake, f"t{n}")) for n in range(15)] == [9] * 15


def test_a_process_killed_after_its_write_does_not_double_it(lake: Lake) -> None:
    assert start(APPEND_AND_DIE, str(lake.folder)).wait(60) == -signal.SIGKILL
    lake.append("t", pl.DataFrame({"id": ["p0", "p1"]}), application="a", sequence=1)
    assert ids(lake, "t") == ["p0", "p1"]


def test_a_lake_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lake = DeltaLake(str(tmp_path / "file" / "lake"))
    with pytest.raises(Unavailable):
        lake.append("t", rows(), application="a", sequence=0)
    with pytest.raises(Unavailable):
        lake.park("staging/x", rows())


def test_a_lazy_frame_is_written_as_it_is_read(lake: DeltaLake, tmp_path: Path) -> None:
    pl.DataFrame({"x": range(500_000), "s": ["a"] * 500_000}).write_parquet(tmp_path / "x.parquet")
    lake.append("t", pl.scan_parquet(tmp_path / "x.parquet"), application="a", sequence=1)
    assert lake.scan("t").select(pl.len(), pl.col("x").sum()).collect().row(0) == (500_000, 124_999_750_000)


def test_a_commit_keeps_its_note(lake: DeltaLake) -> None:
    for number in (1, 2, 3):
        lake.append("t", pl.DataFrame({"x": [number]}), application="a", sequence=number, note={"n": number, "at": "2013"})
        lake.append("t", pl.DataFrame({"x": [-number]}), application="b", sequence=number, note={"n": -number})
    assert [(n.sequence, n.words["n"]) for n in lake.notes("t", "a", 0)] == [(1, 1), (2, 2), (3, 3)]
    assert [n.sequence for n in lake.notes("t", "a", 2)] == [3]
    assert [n.sequence for n in lake.notes("t", "a", 3)] == []
    assert list(lake.notes("none", "a", 0)) == []
    last = lake.notes("t", "a", 2)[0]
    assert lake.scan("t", last.version).collect()["x"].sort().to_list() == [-2, -1, 1, 2, 3]


def test_a_table_can_be_given_other_rows_and_types_and_its_past_stays(lake: DeltaLake) -> None:
    first = lake.append("t", pl.DataFrame({"x": [1, 2], "s": ["a", "b"]}), application="a", sequence=1)
    again = lake.scan("t", first).with_columns(pl.col("x").cast(pl.Float64)).filter(pl.col("s") == "b")
    second = lake.replace("t", again, application="a", sequence=2, note={"why": "wider"})
    assert lake.replace("t", again, application="a", sequence=2) == second
    assert lake.scan("t").collect().rows() == [(2.0, "b")]
    assert lake.scan("t", first).collect().sort("x").rows() == [(1, "a"), (2, "b")]
    assert lake.notes("t", "a", 1)[0].words == {"why": "wider"}
    with pytest.raises(NotFound):
        lake.replace("none", again, application="a", sequence=1)


def test_small_files_put_together_change_no_row_and_no_version(lake: DeltaLake) -> None:
    versions = [lake.append("t", rows(3 * n), application="a", sequence=n, note={"n": n}) for n in range(12)]
    opened = lake.scan("t")
    assert lake.compact("t") == 12
    assert lake.compact("t") == 0
    assert ids(lake, "t") == sorted(opened.collect()["id"]) == sorted(f"p{n}" for n in range(36))
    assert [len(ids(lake, "t", version)) for version in versions] == [3 * n + 3 for n in range(12)]
    assert (lake.applied("t", "a"), [note.words["n"] for note in lake.notes("t", "a", 9)]) == (11, [10, 11])
    assert lake.compact("nothing") == 0


def test_what_is_erased_after_files_were_put_together_is_in_no_file(lake: DeltaLake) -> None:
    secret = "Q7-secret-Q7"
    for sequence, name in enumerate(("a", secret, "b")):
        lake.append("t", pl.DataFrame({"k": [name]}), application="a", sequence=sequence)
    lake.compact("t")
    assert lake.append("t", pl.DataFrame({"k": ["c"]}), application="a", sequence=3) == lake.version("t")
    assert lake.erase("t", pl.DataFrame({"k": [secret]})) == 1
    assert sorted(DeltaLake(str(lake.folder)).scan("t").collect()["k"]) == ["a", "b", "c"]
    assert secret.encode() not in b"".join(file.read_bytes() for file in lake.folder.rglob("*") if file.is_file())


def test_erased_rows_are_in_no_file_and_no_version(lake: DeltaLake) -> None:
    secret = "Q7-secret-Q7"
    first = lake.append("t", pl.DataFrame({"k": [secret, "b"], "n": [1, 2]}), application="a", sequence=1)
    second = lake.append("t", pl.DataFrame({"k": [secret, secret], "n": [3, 1]}), application="a", sequence=2)
    reader = DeltaLake(str(lake.folder))
    assert reader.scan("t", first).collect().height == 2
    assert lake.erase("t", pl.DataFrame({"k": [secret, "nobody"], "n": [1, 1]})) == 2
    assert lake.scan("t").collect().sort("n").rows() == [("b", 2), (secret, 3)]
    assert lake.erase("t", pl.DataFrame({"k": [secret]})) == 1
    for version in (first, second):
        for each in (lake, reader):
            assert each.scan("t", version).collect().rows() == [("b", 2)], "an earlier version shows what is left"
    assert lake.folder is not None
    left = [path for path in lake.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert left == []
    assert lake.applied("t", "a") == 2, "what is applied is still known"
    lake.append("t", pl.DataFrame({"k": ["c"], "n": [4]}), application="a", sequence=3)
    assert reader.scan("t").collect().height == 2
    assert lake.erase("none", pl.DataFrame({"k": ["x"]})) == 0


@pytest.mark.parametrize("value", ["it's", 'say "x"', "a'; drop table t; --", "ü\\n"])
def test_erasing_takes_any_text_as_text(lake: DeltaLake, value: str) -> None:
    lake.append("t", pl.DataFrame({'k"ey': [value, "other"]}), application="a", sequence=1)
    assert lake.erase("t", pl.DataFrame({'k"ey': [value]})) == 1
    assert lake.scan("t").collect().rows() == [("other",)]


def test_erasing_by_numbers_dates_instants_and_truths(lake: DeltaLake) -> None:
    at = datetime(2013, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
    rows = pl.DataFrame({"n": [1, 2], "f": [0.5, 1.5], "d": [date(2013, 1, 1)] * 2, "t": [at, at], "b": [True, False]})
    lake.append("t", rows, application="a", sequence=1)
    assert lake.erase("t", rows[1:]) == 1
    assert lake.scan("t").collect().rows() == rows[:1].rows()


def test_pieces_are_parked_whole_or_not_at_all(lake: DeltaLake) -> None:
    def pieces(last: bool) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"x": [1, 2]})
        if last:
            raise DataError("line 3 is broken", next="mend it")
        yield pl.DataFrame({"x": [3]})

    lake.park("staging/t/a", pieces(False))
    assert lake.parked("staging/t/a").collect()["x"].to_list() == [1, 2, 3]
    with pytest.raises(DataError, match="line 3"):
        lake.park("staging/t/b", pieces(True))
    assert list(lake.parkings("staging/t")) == ["staging/t/a"]
    assert list(lake.parkings("none")) == []
    assert lake.folder is not None
    assert [p.name for p in (lake.folder / "staging" / "t").iterdir()] == ["a.parquet"], "no half-written file is left"


def test_documents_are_kept_beside_the_tables(lake: DeltaLake) -> None:
    assert lake.read_document("shared/t") is None
    address = lake.write_document("shared/t", {"a": [1, "ü"]})
    lake.write_document("shared/t", {"a": 2})
    assert lake.read_document("shared/t") == {"a": 2}
    assert Path(address).is_file()


def test_a_batch_keeps_the_order_of_its_rows(tmp_path: Path) -> None:
    """Up to the rows that are written at once: what a model is trained on must not depend on threads."""
    for attempt in range(10):
        lake = DeltaLake(str(tmp_path / str(attempt)))
        lake.append("t", pl.DataFrame({"x": range(2_000)}).lazy(), application="a", sequence=1)
        assert lake.scan("t").collect()["x"].to_list() == list(range(2_000))


def test_rows_are_put_together_by_what_readers_ask_for_within_each_partition(lake: DeltaLake) -> None:
    for number in range(4):
        made = pl.DataFrame({"day": ["a", "a", "b"], "model": ["m1", f"m{number}", "m0"], "x": [number] * 3})
        lake.append("t", made, application="a", sequence=number, partition_by=["day"])
    before = lake.scan("t").collect().sort("day", "model", "x")
    assert lake.compact("t", cluster_by=("model", "x")) == 8
    assert lake.compact("t", cluster_by=("model", "x")) == 0
    assert lake.scan("t").collect().sort("day", "model", "x").equals(before)
    assert lake.scan("t").filter(pl.col("day") == "a").collect()["model"].rle().len() == 4
    assert lake.applied("t", "a") == 3
