"""The suite that every source of rows meets, on real files, databases, servers and objects."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import polars as pl
import pytest

from mulle.adapters.sources.files import FilesReader
from mulle.adapters.sources.frames import FrameReader
from mulle.adapters.sources.function import FunctionReader
from mulle.adapters.sources.http import HttpReader
from mulle.adapters.sources.sql import SqlReader
from mulle.core.clock import instant
from mulle.core.declare.sources import Files, Function, Http, Sql
from mulle.core.errors import DataError, Unavailable
from mulle.core.ports.source import SourceReader

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 3, 4],
        "at": [instant(f"2013-01-0{d}") for d in (3, 1, 2, 4)],
        "known": [instant("2013-01-04"), None, instant("2013-01-02"), instant("2013-01-05")],
    },
    schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC"), "known": pl.Datetime("us", "UTC")},
)


class Place(Protocol):
    """Somewhere rows are put, and the reader of them."""

    reader: SourceReader

    def put(self, first: int, last: int) -> None:
        """Add rows ``{"id": i, "x": i / 2, "s": "row i"}`` for i in [first, last]."""
        ...


def rows(first: int, last: int) -> pl.DataFrame:
    found = pl.DataFrame({"id": range(first, last + 1)}, schema={"id": pl.Int64})
    return found.with_columns(x=pl.col("id") / 2, s=pl.format("row {}", "id"))


class InFolder:
    def __init__(self, folder: Path, ending: str) -> None:
        (folder / "in").mkdir()
        self._folder, self._ending = folder / "in", ending
        self.reader: SourceReader = FilesReader(folder, Files("in"))

    def put(self, first: int, last: int) -> None:
        path, frame = self._folder / f"{first:05}.{self._ending}", rows(first, last)
        writers = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet, "arrow": frame.write_ipc}
        writers[self._ending](path)  # type: ignore[operator]


class Appended:
    def __init__(self, folder: Path, ending: str) -> None:
        self._path = folder / f"all.{ending}"
        self._path.touch()
        self.reader: SourceReader = FilesReader(folder, Files("all.*"))

    def put(self, first: int, last: int) -> None:
        frame, is_csv = rows(first, last), self._path.suffix == ".csv"
        with self._path.open("a") as file:
            file.write(frame.write_csv(include_header=not self._path.stat().st_size) if is_csv else frame.write_ndjson())


class InTable:
    def __init__(self, folder: Path, query: str) -> None:
        self._connection = sqlite3.connect(folder / "shop.db")
        self._connection.execute("create table orders (id integer, x real, s text)")
        self.reader: SourceReader = SqlReader(Sql(f"sqlite:///{folder}/shop.db", query, cursor="id"))

    def put(self, first: int, last: int) -> None:
        with self._connection:
            self._connection.executemany("insert into orders values (?, ?, ?)", rows(first, last).rows())


class Behind:
    """An HTTP endpoint with pages of two rows."""

    def __init__(self, folder: Path) -> None:
        given: list[dict[str, Any]] = []
        self._given = given

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {k: int(v[0]) for k, v in parse_qs(urlsplit(self.path).query).items()}
                left = [r for r in given if r["id"] > query.get("after", 0)]
                body = json.dumps(left[2 * query["page"] - 2 : 2 * query["page"]]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.close = server.shutdown
        source = Http(f"http://127.0.0.1:{server.server_port}/orders", page="page", cursor="id", since="after")
        self.reader: SourceReader = HttpReader(source, backoff=0)

    def put(self, first: int, last: int) -> None:
        self._given += rows(first, last).to_dicts()


class Called:
    def __init__(self, folder: Path) -> None:
        given = rows(1, 0)

        def orders(position: dict[str, Any]) -> tuple[pl.DataFrame, dict[str, Any]]:
            fresh = self._given.filter(pl.col("id") > position.get("last", 0))
            return fresh, {"last": fresh["id"].max()}

        self._given = given
        self.reader: SourceReader = FunctionReader(Function(orders))

    def put(self, first: int, last: int) -> None:
        self._given = self._given.vstack(rows(first, last))


PLACES: dict[str, Callable[[Path], Place]] = {
    **{f"folder of {e}": (lambda folder, e=e: InFolder(folder, e)) for e in ("csv", "jsonl", "parquet", "arrow")},
    **{f"appended {e}": (lambda folder, e=e: Appended(folder, e)) for e in ("csv", "jsonl")},
    "table": lambda folder: InTable(folder, "orders"),
    "query": lambda folder: InTable(folder, "select id, x, s from orders"),
    "http": Behind,
    "function": Called,
}


@pytest.fixture(params=PLACES.values(), ids=PLACES.keys())
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made: Place = request.param(tmp_path)
    yield made
    getattr(made, "close", lambda: None)()


def test_each_read_gives_exactly_the_rows_that_came_since(place: Place) -> None:
    positions: dict[str, Any] = {}
    assert place.reader.read(positions) is None, "nothing there"
    for first, last in ((1, 5), (6, 6), (7, 20)):
        place.put(first, last)
        batch = place.reader.read(positions)
        assert batch is not None
        assert batch.origin
        found = list(batch.pieces)
        assert len({tuple(f.schema.items()) for f in found}) == 1
        assert pl.concat(found).equals(rows(first, last)), batch.origin
        assert batch.counted in (None, last - first + 1)
        positions = json.loads(json.dumps(batch.positions))
        assert place.reader.read(positions) is None, "read twice from its own positions adds nothing"


def test_a_batch_that_was_not_published_is_read_again(place: Place) -> None:
    place.put(1, 3)
    first = place.reader.read({})
    assert first is not None
    place.put(4, 5)
    again = place.reader.read({})
    assert again is not None
    assert again.frame().equals(rows(1, 5))


@pytest.fixture(params=["sqlite", "function"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SourceReader, Callable[[int, int], None]]:
    """A source that cannot tell what is new."""
    place = InTable(tmp_path, "orders")
    if request.param == "sqlite":
        return SqlReader(Sql(f"sqlite:///{tmp_path}/shop.db", "orders")), place.put
    called = Called(tmp_path)
    return FunctionReader(Function(lambda _: called._given)), called.put


def test_what_cannot_tell_what_is_new_gives_all_and_says_so(
    whole: tuple[SourceReader, Callable[[int, int], None]],
) -> None:
    reader, put = whole
    positions: dict[str, Any] = {}
    for last in (2, 3):
        put(1 if last == 2 else 3, last)
        batch = reader.read(positions)
        assert batch is not None
        assert batch.repeats is not None
        assert rows(1, 2).filter(batch.repeats).height == 2
        assert batch.frame().equals(rows(1, last))
        positions = json.loads(json.dumps(batch.positions))


def from_files(folder: Path) -> SourceReader:
    ROWS[:2].write_parquet(folder / "a.parquet")
    ROWS[2:].write_parquet(folder / "b.parquet")
    return FilesReader(folder, Files("*.parquet"), "known", time="at")


@pytest.fixture(params=[from_files, lambda folder: FrameReader(ROWS, "known", time="at")], ids=["files", "frame"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> SourceReader:
    make: Callable[[Path], SourceReader] = request.param
    return make(tmp_path)


def ids(reader: SourceReader, positions: dict[str, Any], until: str | None = None) -> tuple[list[int], dict[str, Any]]:
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


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """A bucket on the server that the environment names, and pyarrow's view of it."""
    from pyarrow.fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    system = S3FileSystem(
        access_key="key", secret_key="secret", region="us-east-1", endpoint_override=s3_endpoint, allow_bucket_creation=True
    )
    name = f"sources-{uuid4().hex[:10]}"
    system.create_dir(name)
    return name, system


def put_object(system: Any, path: str, content: bytes) -> None:
    with system.open_output_stream(path) as stream:
        stream.write(content)


def test_objects_are_read_like_files(bucket: tuple[str, Any], tmp_path: Path) -> None:
    name, system = bucket
    put_object(system, f"{name}/in/a.csv", b"id,x\n1,0.5\n")
    put_object(system, f"{name}/in/deep/b.jsonl", b'{"id": 2, "x": 1}\n')
    put_object(system, f"{name}/in/.hidden.csv", b"id\n99\n")
    put_object(system, f"{name}/in/readme.md", b"not rows")
    put_object(system, f"{name}/in/empty.csv", b"")
    for ending, write in (("parquet", ROWS[:1].write_parquet), ("arrow", ROWS[1:2].write_ipc)):
        write(tmp_path / ending)
        put_object(system, f"{name}/in/c.{ending}", (tmp_path / ending).read_bytes())
    folder = FilesReader(tmp_path, Files(f"s3://{name}/in"))
    found, positions = ids(folder, {})
    assert found == [1, 2, 1, 2]
    assert sorted(positions["files"])[0] == f"s3://{name}/in/a.csv"
    assert folder.read(json.loads(json.dumps(positions))) is None
    assert ids(FilesReader(tmp_path, Files(f"s3://{name}/in/*.csv")), {})[0] == [1]
    assert ids(FilesReader(tmp_path, Files(f"s3://{name}/**/*.jsonl")), {})[0] == [2]
    assert ids(FilesReader(tmp_path, Files(f"s3://{name}/in/c.parquet")), {})[0] == [1]


def test_objects_that_are_new_or_changed_are_read(bucket: tuple[str, Any], tmp_path: Path) -> None:
    name, system = bucket
    reader = FilesReader(tmp_path, Files(f"s3://{name}/in/"))
    assert reader.read({}) is None
    put_object(system, f"{name}/in/a.csv", b"id\n1\n")
    _, positions = ids(reader, {})
    put_object(system, f"{name}/in/b.csv", b"id\n2\n")
    found, positions = ids(reader, positions)
    assert found == [2]
    put_object(system, f"{name}/in/a.csv", b"id\n1\n3\n")
    found, positions = ids(reader, positions)
    assert found == [3], "an object that grew gives what was appended"
    put_object(system, f"{name}/in/a.csv", b"id\n7\n")
    assert ids(reader, positions)[0] == [7]


def test_a_missing_bucket_is_told_and_an_empty_place_in_one_is_nothing_new(bucket: tuple[str, Any], tmp_path: Path) -> None:
    name, _ = bucket
    for pattern in ("in", "in/*.csv", "*.csv"):
        assert FilesReader(tmp_path, Files(f"s3://{name}/{pattern}")).read({}) is None
        with pytest.raises(DataError, match=f"there is no bucket {name}x") as told:
            FilesReader(tmp_path, Files(f"s3://{name}x/{pattern}")).read({})
        assert "mend the path" in str(told.value.next)


def test_a_missing_object_or_store_is_told(bucket: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, system = bucket
    with pytest.raises(DataError, match=r"gone\.csv"):
        FilesReader(tmp_path, Files(f"s3://{name}/gone.csv")).read({})
    put_object(system, f"{name}/a.csv", b"id,x\n1,2\n1")
    with pytest.raises(DataError, match=rf"s3://{name}/a\.csv: the file ends in the middle of line 3"):
        FilesReader(tmp_path, Files(f"s3://{name}/a.csv")).read({})
    put_object(system, f"{name}/b.parquet", b"PAR1")
    with pytest.raises(DataError, match=rf"s3://{name}/b\.parquet"):
        FilesReader(tmp_path, Files(f"s3://{name}/b.parquet")).read({})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=name):
        FilesReader(tmp_path, Files(f"s3://{name}/a.csv")).read({})
