"""Files read by spans: every row once, in order, whatever the format and wherever the spans are cut."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulle.adapters.sources.rowfiles import SpanFiles
from mulle.core.errors import DataError
from mulle.core.ports.rowfiles import Rows

FRAME = pl.DataFrame({"n": range(1000), "s": [f"row {i}" for i in range(1000)], "x": [i / 7 for i in range(1000)]})
WRITERS = {"parquet": "write_parquet", "arrow": "write_ipc", "csv": "write_csv", "jsonl": "write_ndjson"}


def wrote(folder: Path, kind: str, frame: pl.DataFrame = FRAME) -> Path:
    path = folder / f"rows.{kind}"
    getattr(frame, WRITERS[kind])(path)
    return path


def numbers(rows: Rows) -> list[int]:
    values = rows.values
    return [int(v) for v in values["n"]] if isinstance(values, pl.DataFrame) else [int(str(v["n"])) for v in values]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("cut", [1, 64, 333, 100_000])
def test_every_row_is_in_one_span_in_order(tmp_path: Path, kind: str, cut: int) -> None:
    files = SpanFiles(tmp_path, rows=max(cut, 50), size=cut)
    wrote(tmp_path, kind)
    (found,) = files.look(f"rows.{kind}")
    assert found.rows == 1000
    reads = [files.read(span, ["n", "x"]) for span in found.spans]
    assert [n for rows in reads for n in numbers(rows)] == list(range(1000))
    assert [n for rows in reads for n in rows.numbers] == [
        n + {"parquet": 0, "arrow": 0, "csv": 2, "jsonl": 1}[kind] for n in range(1000)
    ]
    assert sum(span.rows for span in found.spans) == 1000


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8), min_size=1), st.integers(1, 40))
def test_any_text_comes_back_from_csv_wherever_it_is_cut(tmp_path: Path, texts: list[str], size: int) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["n", "s"])
        out.writerows(enumerate(texts))
    files = SpanFiles(tmp_path, size=size)
    (found,) = files.look("any.csv")
    reads = [files.read(span, []) for span in found.spans]
    assert [b for rows in reads for b in rows.broken] == []
    back = [v for rows in reads for v in rows.values["s"]]  # type: ignore[call-overload]
    assert back == [None if t in ("", "NA") else t for t in texts]


@pytest.mark.parametrize("size", [10, 1000])
def test_lines_that_cannot_be_read_are_told_by_number_and_the_others_are_read(tmp_path: Path, size: int) -> None:
    files = SpanFiles(tmp_path, size=size)
    (tmp_path / "a.csv").write_bytes(b"n,s\n1,a\n2\n3,b,c\n4,\xff\n\n5,e\n6,f")
    (tmp_path / "b.jsonl").write_bytes(b'{"n": 1}\n{"n": \n\n[2]\n{"n": 3}')
    found = {f.name: [files.read(s, []) for s in f.spans] for f in files.look(".")}
    kept = {name: [n for rows in reads for n in numbers(rows)] for name, reads in found.items()}
    broken = {name: {b.number: b.reason for rows in reads for b in rows.broken} for name, reads in found.items()}
    assert kept == {"a.csv": [1, 5, 6], "b.jsonl": [1, 3]}
    assert broken["a.csv"] == {3: "1 fields, the header has 2", 4: "3 fields, the header has 2", 5: "not UTF-8"}
    assert list(broken["b.jsonl"]) == [2, 4]
    assert [n for rows in found["a.csv"] for n in rows.numbers] == [2, 7, 8]


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    files, path = SpanFiles(tmp_path), wrote(tmp_path, "parquet")
    (found,) = files.look(str(path))
    FRAME.head(10).write_parquet(path)
    with pytest.raises(DataError, match="changed since the job began"):
        files.read(found.spans[0], ["n"])


def test_a_place_without_files_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no rows")
    with pytest.raises(DataError, match="no file of rows"):
        SpanFiles(tmp_path).look(".")
    with pytest.raises(DataError, match="no file of rows"):
        SpanFiles(tmp_path).look("nowhere/*.parquet")


def test_a_file_that_is_not_what_its_ending_says_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match=r"rows\.parquet"):
        SpanFiles(tmp_path).look("rows.parquet")


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    name = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return client, name


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_objects_of_s3_are_read_by_spans_too(bucket: Any, kind: str) -> None:
    client, name = bucket
    made = io.BytesIO()
    getattr(FRAME, WRITERS[kind])(made)
    client.put_object(Bucket=name, Key=f"in/rows.{kind}", Body=made.getvalue())
    files = SpanFiles(Path("/"), rows=300, size=4096)
    (found,) = files.look(f"s3://{name}/in/rows.{kind}")
    assert len(found.spans) > 3
    assert [n for span in found.spans for n in numbers(files.read(span, ["n"]))] == list(range(1000))
