"""Only audited rows are published, once; the rest is kept aside with its reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mulle.adapters.lake.delta import DeltaLake
from mulle.adapters.metadata.connect import open_metadata
from mulle.adapters.sources.files import FilesReader
from mulle.core.clock import instant
from mulle.core.declare.checks import between
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files
from mulle.core.errors import Conflict, DataError, NotFound
from mulle.core.ports.lake import Lake
from mulle.core.ports.metadata import Datasets
from mulle.core.ports.source import Batch
from mulle.core.records.base import Cause, from_json, to_json
from mulle.core.records.dataset import DatasetVersion, Quarantine
from mulle.lifecycle.data.checks.check import Beside, check_batch
from mulle.lifecycle.data.publish import publish, recover, restore
from mulle.lifecycle.data.stage import Staged, stage, staged_rows
from mulle.lifecycle.data.version import read_version

NOW = instant("2013-03-01T12:00:00Z")
WHY = (Cause(type="schedule", id="tick", why="asked"),)
trips = Dataset("trips", Files("trips/*.csv"), key="id", time="at", outcome="y", checks=[between("km", 0, 100)])


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "trips").mkdir()
        self.lake: Lake = DeltaLake(str(folder / "lake"))
        self.datasets: Datasets = open_metadata(f"sqlite:///{folder / 'm.db'}").datasets
        self.reader = FilesReader(folder, Files("trips/*.csv"))

    def file(self, name: str, *lines: str, header: str = "id,at,km,y") -> None:
        (self.folder / "trips" / name).write_text("\n".join([header, *lines]) + "\n")

    def stage(self, batch: str, hours: int = 0) -> Staged | None:
        now = NOW + timedelta(hours=hours)
        return stage(trips, self.reader, self.datasets.get("trips"), self.lake, batch=batch, now=now)

    def publish(self, staged: Staged, hours: int = 0) -> DatasetVersion | Quarantine:
        previous = self.datasets.get("trips")
        results = check_batch(trips, staged_rows(staged, self.lake), Beside(version=previous), now=staged.at)
        now = NOW + timedelta(hours=hours)
        return publish(trips, staged, results, previous, self.lake, self.datasets, now=now, causes=WHY)

    def ingest(self, batch: str, hours: int = 0) -> DatasetVersion | Quarantine:
        staged = self.stage(batch, hours)
        assert staged is not None
        return self.publish(staged, hours)

    def rows(self, version: DatasetVersion) -> list[tuple[int, float]]:
        frame = read_version(self.lake, trips, version).sort("id").select("id", "km").collect()
        return [(r[0], r[1]) for r in frame.rows()]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    return Home(tmp_path)


def test_new_rows_become_a_version(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1.5", "2,2013-01-01T11:00:00Z,6,")
    version = home.ingest("b1")
    assert isinstance(version, DatasetVersion)
    assert (version.version, version.rows, version.added) == (1, 2, 2)
    assert version.schema == {"id": "Int64", "at": "Datetime(us, UTC)", "km": "Int64", "y": "Float64"}
    found = read_version(home.lake, trips, version).collect()
    assert found.schema["_ingested_at"] == pl.Datetime("us", "UTC")
    assert set(found["_batch"]) == {"b1"}
    assert home.stage("b2") is None


def test_a_version_stays_what_it_was_when_the_next_is_published(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    first = home.ingest("b1")
    home.file("b.csv", "1,2013-01-01T10:00:00Z,7,1", "2,2013-01-01T11:00:00Z,8,1")
    second = home.ingest("b2", hours=1)
    assert isinstance(first, DatasetVersion)
    assert isinstance(second, DatasetVersion)
    assert home.rows(first) == [(1, 5)]
    assert home.rows(second) == [(1, 7), (2, 8)]
    assert read_version(home.lake, trips, second, superseded=True).collect().height == 3
    assert first.hash != second.hash


def test_a_failing_batch_is_kept_aside_and_judged_once(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    home.ingest("b1")
    home.file("bad.csv", "2,2013-01-01T11:00:00Z,9999,1")
    record = home.ingest("b2", hours=1)
    assert isinstance(record, Quarantine)
    assert [c.name for c in record.checks if c.verdict == "fail"] == ["between(km)"]
    assert record.checks[-1].samples[0]["km"] == 9999
    assert home.lake.parked("quarantine/trips/b2").collect().height == 1
    published = home.datasets.get("trips")
    assert published is not None
    assert home.rows(published) == [(1, 5)]
    assert home.stage("b3") is None, "the bad file is not read again"
    home.file("c.csv", "3,2013-01-01T12:00:00Z,7,1")
    after = home.ingest("b4", hours=2)
    assert isinstance(after, DatasetVersion)
    assert home.rows(after) == [(1, 5), (3, 7)]
    assert home.stage("b5") is None
    assert [q.id for q in home.datasets.quarantines("trips")] == [record.id]


def test_running_a_step_again_adds_nothing(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    staged = home.stage("b1")
    assert staged is not None
    assert from_json(Staged, json.loads(json.dumps(to_json(staged)))) == staged
    first = home.publish(staged)
    again = publish(trips, staged, (), None, home.lake, home.datasets, now=NOW, causes=WHY)
    assert again == first
    assert len(home.datasets.versions("trips")) == 1
    with pytest.raises(NotFound):
        staged_rows(staged, home.lake)
    assert home.rows(first) == [(1, 5)]


class DiesAtItsRecord:
    """The records' database as a process finds it that dies between the lake's commit and the record."""

    def __init__(self, datasets: Datasets) -> None:
        self.get = datasets.get

    def add(self, version: DatasetVersion) -> DatasetVersion:
        raise KeyboardInterrupt


def test_a_commit_without_its_record_gets_it_and_the_source_is_not_read_again(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    staged = home.stage("b1")
    assert staged is not None
    dying: Datasets = DiesAtItsRecord(home.datasets)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        publish(trips, staged, (), None, home.lake, dying, now=NOW, causes=WHY)
    assert home.datasets.get("trips") is None
    found = recover("trips", home.lake, home.datasets)
    assert found is not None
    assert (found.version, found.positions, found.lake_version) == (1, staged.positions, 1)
    assert home.stage("another") is None, "what was read is published"
    assert publish(trips, staged, (), None, home.lake, home.datasets, now=NOW, causes=WHY) == found
    assert home.lake.scan("data/trips").collect().height == 1


def test_two_publishers_of_one_version_cannot_both_win(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    first, second = home.stage("b1"), home.stage("b2")
    assert first is not None
    assert second is not None
    home.publish(first)
    with pytest.raises(Conflict, match="another process"):
        publish(trips, second, (), None, home.lake, home.datasets, now=NOW, causes=WHY)
    assert home.lake.scan("data/trips").collect()["_batch"].to_list() == ["b1"]


def test_a_quarantine_step_may_run_again(home: Home) -> None:
    home.file("bad.csv", "2,2013-01-01T11:00:00Z,9999,1")
    staged = home.stage("b1")
    assert staged is not None
    first = home.publish(staged)
    assert isinstance(first, Quarantine)
    again = publish(trips, staged, first.checks, None, home.lake, home.datasets, now=NOW, causes=WHY)
    assert again == first
    assert len(home.datasets.quarantines("trips")) == 1


def test_whole_numbers_fit_a_column_of_decimals_and_a_retyped_column_does_not(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5.5,1")
    home.ingest("b1")
    home.file("b.csv", "2,2013-01-01T10:00:00Z,6,")
    assert isinstance(home.ingest("b2", hours=1), DatasetVersion)
    home.file("c.csv", "3,2013-01-01T10:00:00Z,six,1")
    record = home.ingest("b3", hours=2)
    assert isinstance(record, Quarantine)
    assert "'km' is String, expected Float64" in record.checks[0].detail


def test_a_new_column_is_recorded_and_a_missing_one_refused(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    home.ingest("b1")
    home.file("b.csv", "2,2013-01-01T10:00:00Z,6,1,x", header="id,at,km,y,note")
    version = home.ingest("b2", hours=1)
    assert isinstance(version, DatasetVersion)
    assert version.checks[0].detail == "new columns: note"
    assert version.schema["note"] == "String"
    home.file("c.csv", "3,2013-01-01T10:00:00Z,1,x", header="id,at,y,note")
    record = home.ingest("b3", hours=2)
    assert isinstance(record, Quarantine)
    assert "'km' is missing" in record.checks[0].detail


def test_rows_carry_who_brought_them_and_whether_they_came_live(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    home.ingest("b1")
    home.file("b.csv", "2,2013-01-02T10:00:00Z,6,1")
    staged = home.stage("b2", hours=1)
    assert staged is not None
    later = NOW + timedelta(hours=3)
    version = publish(trips, staged, (), home.datasets.get("trips"), home.lake, home.datasets, now=later, causes=WHY, live=True)
    assert isinstance(version, DatasetVersion)
    rows = read_version(home.lake, trips, version).sort("id").select("_version", "_live", "_ingested_at").collect().rows()
    assert rows == [(1, False, NOW), (2, True, later)]
    assert (version.bulk, version.spans) == (False, ((1, 2),))


def test_a_row_of_the_same_key_and_time_takes_the_place_of_the_earlier_one(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1", "2,2013-01-01T10:00:00Z,6,1", "2,2013-01-01T10:00:00Z,7,1")
    first = home.ingest("b1")
    assert isinstance(first, DatasetVersion)
    assert (first.rows, first.added, first.replaced) == (2, 3, 1)
    home.file("b.csv", "1,2013-01-01T10:00:00Z,8,1", "1,2013-01-02T10:00:00Z,9,1")
    second = home.ingest("b2", hours=1)
    assert isinstance(second, DatasetVersion)
    assert (second.rows, second.added, second.replaced) == (3, 2, 1)
    assert home.rows(first) == [(1, 5), (2, 7)]
    assert sorted(home.rows(second)) == [(1, 8), (1, 9), (2, 7)]


def test_without_time_the_key_names_the_row(home: Home) -> None:
    planes = Dataset("planes", Files("trips/*.csv"), key="id")
    home.file("a.csv", "1,x,5,1")
    staged = stage(planes, home.reader, None, home.lake, batch="b1", now=NOW)
    assert staged is not None
    first = publish(planes, staged, (), None, home.lake, home.datasets, now=NOW, causes=WHY)
    home.file("b.csv", "1,y,6,1", "2,z,7,1")
    assert isinstance(first, DatasetVersion)
    staged = stage(planes, home.reader, first, home.lake, batch="b2", now=NOW)
    assert staged is not None
    second = publish(planes, staged, (), first, home.lake, home.datasets, now=NOW, causes=WHY)
    assert isinstance(second, DatasetVersion)
    found = read_version(home.lake, planes, second).sort("id").select("id", "at").collect().rows()
    assert (found, second.rows) == ([(1, "y"), (2, "z")], 2)


def test_a_version_can_be_gone_back_to_and_the_source_goes_on(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    first = home.ingest("b1")
    home.file("b.csv", "2,2013-01-01T11:00:00Z,6,1")
    second = home.ingest("b2", hours=1)
    assert isinstance(first, DatasetVersion)
    assert isinstance(second, DatasetVersion)
    third = restore(trips, first, home.lake, home.datasets, now=NOW + timedelta(hours=2), causes=WHY)
    assert (third.version, third.rows, third.hash, third.spans) == (3, 1, first.hash, ((1, 1),))
    assert home.rows(third) == [(1, 5)]
    assert home.rows(second) == [(1, 5), (2, 6)], "what was taken back can still be read"
    assert home.stage("again") is None, "the file that was taken back is not read again"
    home.file("c.csv", "3,2013-01-01T12:00:00Z,7,1")
    fourth = home.ingest("b4", hours=3)
    assert isinstance(fourth, DatasetVersion)
    assert (home.rows(fourth), fourth.spans) == ([(1, 5), (3, 7)], ((1, 1), (4, 4)))
    fifth = restore(trips, second, home.lake, home.datasets, now=NOW + timedelta(hours=4), causes=WHY)
    assert home.rows(fifth) == [(1, 5), (2, 6)]


def test_an_outside_reader_of_the_table_sees_no_row_that_failed(home: Home) -> None:
    import duckdb

    home.file("good.csv", "1,2013-01-01T10:00:00Z,5,1")
    home.ingest("b1")
    home.file("bad.csv", "2,2013-01-01T11:00:00Z,9999,1")
    assert isinstance(home.ingest("b2", hours=1), Quarantine)
    home.file("more.csv", "3,2013-01-01T12:00:00Z,7,1")
    home.ingest("b3", hours=2)
    # Whoever reads the table's files as its log lists them: DuckDB, with what Delta says is in the table.
    import deltalake

    files = deltalake.DeltaTable(home.lake.address("data/trips")).file_uris()
    found = duckdb.connect().sql(f"select id, km from read_parquet({files}, union_by_name = true) order by id").fetchall()
    assert found == [(1, 5), (3, 7)]


def test_a_declared_type_widens_what_is_published(home: Home) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    first = home.ingest("b1")
    assert isinstance(first, DatasetVersion)
    wider = Dataset("trips", Files("trips/*.csv"), key="id", time="at", outcome="y", schema={"km": "Float64"})
    home.file("b.csv", "2,2013-01-01T11:00:00Z,6.5,1")
    staged = stage(wider, home.reader, first, home.lake, batch="b2", now=NOW)
    assert staged is not None
    second = publish(wider, staged, (), first, home.lake, home.datasets, now=NOW, causes=WHY)
    assert isinstance(second, DatasetVersion)
    assert second.schema["km"] == "Float64"
    assert home.rows(second) == [(1, 5.0), (2, 6.5)]
    assert home.rows(first) == [(1, 5)], "the earlier version keeps its type"


def test_an_optional_column_may_be_missing_and_a_declared_type_that_does_not_fit_is_an_error(home: Home) -> None:
    lenient = Dataset("trips", Files("trips/*.csv"), key="id", time="at", optional="km", schema={"km": "Int64"})
    home.file("a.csv", "1,2013-01-01T10:00:00Z,1", header="id,at,y")
    staged = stage(lenient, home.reader, None, home.lake, batch="b1", now=NOW)
    assert staged is not None
    assert staged_rows(staged, home.lake).collect()["km"].to_list() == [None]
    home.file("b.csv", "2,2013-01-01T10:00:00Z,far,1")
    with pytest.raises(DataError, match="km"):
        stage(lenient, home.reader, None, home.lake, batch="b2", now=NOW)
    assert home.lake.parkings("staging/trips") == [f"staging/trips/{staged.batch}"], "nothing half-read is left"


class Dump:
    """A source that gives all it has, each time."""

    def __init__(self, *rows: tuple[int, str, float | None]) -> None:
        self.rows = pl.DataFrame(list(rows), schema={"id": pl.Int64, "at": pl.String, "km": pl.Float64}, orient="row")

    def read(self, positions: object, until: object = None) -> Batch:
        return Batch(pieces=self.rows.iter_slices(2), positions={}, origin="dump", repeats=pl.lit(True))


def test_rows_given_again_add_nothing_and_changed_ones_are_corrections(home: Home) -> None:
    dataset = Dataset("trips", Files("trips/*.csv"), key="id", time="at", checks=[between("km", 0, 100)])

    def take(batch: str, *rows: tuple[int, str, float | None]) -> DatasetVersion | Quarantine | None:
        last = home.datasets.get("trips")
        staged = stage(dataset, Dump(*rows), last, home.lake, batch=batch, now=NOW)
        if staged is None:
            return None
        results = check_batch(dataset, staged_rows(staged, home.lake), Beside(version=last), now=NOW)
        return publish(dataset, staged, results, last, home.lake, home.datasets, now=NOW, causes=WHY)

    one, two = (1, "2013-01-01T10:00:00Z", 5.0), (2, "2013-01-01T11:00:00Z", None)
    first = take("b1", one, two)
    assert isinstance(first, DatasetVersion)
    assert take("b2", one, two) is None
    bad = (3, "2013-01-01T12:00:00Z", 9999.0)
    assert isinstance(take("b3", one, two, bad), Quarantine)
    assert take("b4", one, two, bad) is None, "a row that failed is not judged again while it stays the same"
    second = take("b5", one, (2, "2013-01-01T11:00:00Z", 6.0), (3, "2013-01-01T12:00:00Z", 9.0))
    assert isinstance(second, DatasetVersion)
    assert (second.added, home.rows(second)) == (2, [(1, 5.0), (2, 6.0), (3, 9.0)])
