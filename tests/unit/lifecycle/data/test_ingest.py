"""Only audited rows are published, once; the rest is kept aside with its reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

import mulle.lifecycle.data.ingest as ingest
from mulle.adapters.lake.delta import DeltaLake
from mulle.adapters.metadata.connect import open_metadata
from mulle.adapters.sources.files import FilesReader
from mulle.core.clock import instant
from mulle.core.declare.checks import between
from mulle.core.declare.dataset import Dataset, Files
from mulle.core.errors import NotFound
from mulle.core.ports.lake import Lake
from mulle.core.ports.metadata import Datasets
from mulle.core.records.base import Cause, from_json, to_json
from mulle.core.records.dataset import DatasetVersion, Quarantine
from mulle.lifecycle.data.check import check_batch
from mulle.lifecycle.data.ingest import Staged, publish, stage, staged_rows
from mulle.lifecycle.data.version import content_hash, read_version

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
        results = check_batch(
            trips, staged_rows(staged, self.lake), published=None, references={}, schema=previous.schema if previous else None
        )
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
    assert home.lake.parked("quarantine/trips/b2").height == 1
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


def test_a_step_killed_before_its_record_adds_its_rows_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("a.csv", "1,2013-01-01T10:00:00Z,5,1")
    staged = home.stage("b1")
    assert staged is not None
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "DatasetVersion", None)  # dies after the append, before the record
        with pytest.raises(TypeError):
            home.publish(staged)
    version = home.publish(staged)
    assert isinstance(version, DatasetVersion)
    assert home.lake.scan("data/trips").collect().height == 1


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


def test_the_hash_is_of_content_alone() -> None:
    frame = pl.DataFrame({"a": [1.5, None, 3.0], "b": ["x", "", None], "t": [NOW, None, NOW], "l": [[1], [], None]})
    assert content_hash(frame) == content_hash(frame.reverse().select("t", "l", "b", "a").with_columns(_batch=pl.lit("z")))
    changed = [frame[:2], frame.with_columns(b=pl.Series(["x", None, ""])), frame.rename({"a": "c"}), pl.concat([frame, frame])]
    assert len({content_hash(f) for f in [frame, *changed]}) == 5
