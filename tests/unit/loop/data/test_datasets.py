"""What people do with a dataset: check, compare, name, go back, share, ask, label."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mulle.core.errors import DataError, NotFound, UsageError
from mulle.core.records.base import Cause, Json
from mulle.loop.data.datasets import (
    check_dataset,
    check_history,
    diff_versions,
    find_data,
    query,
    read_rows,
    restore_version,
    suggest_checks,
    tag_version,
)
from mulle.loop.data.ingest import ingest_all
from mulle.loop.data.offline import read_dataset
from mulle.loop.data.share import share, unshare
from mulle.loop.parts import Parts

Opened = Callable[..., Parts]
WHY = (Cause(type="person", id="ada", why="asked"),)
TRIPS = """
trips = ml.Dataset(
    "trips", ml.Files("trips/*.csv"), key="id", time="at", checks=[ml.rows(at_least=1), ml.between("km", 0, 100)]
)
"""


def write(parts: Parts, name: str, *rows: str, header: str = "id,at,km") -> Path:
    folder = parts.settings.project / "trips"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder / name


def ingest(parts: Parts, **options: bool) -> Json:
    return {item["dataset"]: item for item in ingest_all(parts, causes=WHY, **options)["items"]}


@pytest.fixture
def trips(opened: Opened) -> Parts:
    parts = opened(TRIPS)
    write(parts, "a.csv", "1,2013-01-01T10:00:00Z,5", "2,2013-01-01T11:00:00Z,6")
    assert ingest(parts)["trips"]["action"] == "published"
    write(parts, "b.csv", "2,2013-01-01T11:00:00Z,60", "3,2013-01-01T12:00:00Z,7")
    assert ingest(parts)["trips"]["added"] == 2
    return parts


def test_ingesting_twice_adds_nothing_and_a_bad_batch_is_told(trips: Parts) -> None:
    assert ingest(trips)["trips"]["action"] == "nothing new"
    write(trips, "bad.csv", "4,2013-01-01T10:00:00Z,5000")
    told = ingest(trips)["trips"]
    assert (told["action"], told["verdict"], told["version"]) == ("quarantined", "fail", 2)
    assert [c["samples"][0]["km"] for c in told["checks"] if c["verdict"] == "fail"] == [5000]
    assert ingest(trips)["trips"]["action"] == "nothing new"


def test_a_version_is_read_by_number_and_by_tag(trips: Parts) -> None:
    tag_version(trips, "trips@1", "first")
    assert read_dataset(trips, "trips@first").equals(read_dataset(trips, "trips@1"))
    assert read_dataset(trips, "trips@1").sort("id")["km"].to_list() == [5, 6]
    assert read_dataset(trips, "trips").sort("id")["km"].to_list() == [5, 60, 7]
    assert read_dataset(trips, "trips").columns == ["id", "at", "km"]
    for wrong in ("trips@9", "trips@never"):
        with pytest.raises(NotFound):
            read_dataset(trips, wrong)
    for name in ("7", "a@b", "", "a/b"):
        with pytest.raises(UsageError):
            tag_version(trips, "trips", name)


def test_a_tag_moves_to_its_newest_version(trips: Parts) -> None:
    tag_version(trips, "trips@1", "best")
    tag_version(trips, "trips@2", "best")
    assert find_data(trips, "trips@best")[1].version == 2


def test_the_difference_of_two_versions(trips: Parts) -> None:
    told = diff_versions(trips, "trips@1", "trips@2")
    assert (told["added"], told["changed"], told["removed"]) == (1, 1, 0)
    assert told["changed_rows"][0]["after"] == {"km": 60}
    back = diff_versions(trips, "trips@2", "trips@1")
    assert (back["added"], back["changed"], back["removed"]) == (0, 1, 1)


def test_going_back_is_a_version_of_its_own(trips: Parts) -> None:
    made = restore_version(trips, "trips@1", causes=WHY)
    assert (made.version, made.causes[0].why) == (3, "asked")
    assert read_dataset(trips, "trips").sort("id")["km"].to_list() == [5, 6]
    assert read_dataset(trips, "trips@2").sort("id")["km"].to_list() == [5, 60, 7]
    assert ingest(trips)["trips"]["action"] == "nothing new"


def test_checks_run_by_hand_are_kept(trips: Parts) -> None:
    assert check_dataset(trips, "trips", causes=WHY)["verdict"] == "pass"
    write(trips, "bad.csv", "4,2013-01-01T10:00:00Z,5000")
    told = check_dataset(trips, "trips", causes=WHY, fresh=True)
    assert (told["verdict"], told["version"], told["rows"]) == ("fail", None, 1)
    assert list(trips.lake.parkings("staging/trips")) == [], "looking leaves nothing behind"
    history = check_history(trips, "trips")["items"]
    assert [(i["kind"], i["verdict"]) for i in history] == [
        ("version", "pass"),
        ("version", "pass"),
        ("audit", "pass"),
        ("audit", "fail"),
    ]
    assert ingest(trips)["trips"]["action"] == "quarantined", "what was only looked at is still to be judged"


def test_a_stricter_declaration_is_checked_against_what_is_published(opened: Opened, trips: Parts) -> None:
    strict = opened(TRIPS.replace("0, 100", "0, 50"))
    told = check_dataset(strict, "trips", causes=WHY)
    assert told["verdict"] == "fail"
    assert check_dataset(strict, "trips@1", causes=WHY)["verdict"] == "pass"


def test_suggested_checks_can_be_pasted_and_pass(opened: Opened, trips: Parts) -> None:
    text = suggest_checks(trips, "trips")["text"]
    assert 'ml.between("km", 0, ' in text
    pasted = opened(f'trips = ml.Dataset("trips", ml.Files("trips/*.csv"), key="id", time="at", {text})')
    told = check_dataset(pasted, "trips", causes=WHY)
    assert (told["verdict"], told["version"]) == ("pass", 2)
    assert [c["name"].partition("(")[0] for c in told["checks"]][:3] == ["schema", "rows", "unique"]
    write(pasted, "far.csv", "9,2013-01-01T12:00:00Z,5000")
    far = {c["name"]: c["verdict"] for c in check_dataset(pasted, "trips", causes=WHY, fresh=True)["checks"]}
    assert far["between(km)"] == "fail"


def test_sql_over_what_is_published(trips: Parts) -> None:
    told = query(trips, "select count(*) as n, max(km) as most from trips")
    assert told["items"] == [{"n": 3, "most": 60}]
    with pytest.raises(UsageError, match="does not exist") as refused:
        query(trips, "select * from nothing")
    assert "tables: trips" in refused.value.next
    for hostile in ("select * from read_csv('/etc/passwd')", "copy trips to '/tmp/x.csv'", "set lock_configuration = false"):
        with pytest.raises(UsageError, match="the query failed"):
            query(trips, hostile)


def test_another_project_reads_what_is_shared_and_no_more(opened: Opened, trips: Parts) -> None:
    url = share(trips, "trips")["url"]
    tag_version(trips, "trips@1", "first")
    second = opened(f'shared = ml.Dataset("trips2", ml.Shared("{url}"), key="id", time="at")', "second")
    assert read_dataset(second, url).height == 3
    assert read_dataset(second, f"{url}@first").height == 2
    assert read_dataset(second, f"{url}@1").height == 2
    assert ingest(second)["trips2"]["action"] == "published"
    assert ingest(second)["trips2"]["action"] == "nothing new"
    assert read_rows(second, "trips2").collect().sort("id").equals(read_dataset(trips, "trips").sort("id"))
    write(trips, "c.csv", "5,2013-01-01T10:00:00Z,9")
    ingest(trips)
    told = ingest(second)["trips2"]
    assert (told["added"], told["rows"]) == (1, 4)
    unshare(trips, "trips")
    with pytest.raises(NotFound, match="nothing is shared"):
        read_dataset(second, url)


@pytest.mark.parametrize("key", ['key="id"', ""])
def test_another_project_gets_what_a_restore_brought_back(opened: Opened, key: str) -> None:
    first = opened(f'trips = ml.Dataset("trips", ml.Files("trips/*.csv"), {key})', "first")
    write(first, "a.csv", "1,5", header="id,km")
    ingest(first)
    write(first, "b.csv", "2,6", "2,6" if not key else "1,50", header="id,km")
    ingest(first)
    restore_version(first, "trips@1", causes=WHY)
    second = opened(f'copied = ml.Dataset("copied", ml.Shared("{share(first, "trips")["url"]}"), {key})', "second")

    def kilometres(parts: Parts, name: str) -> list[int]:
        return sorted(read_dataset(parts, name)["km"].to_list())

    ingest(second)
    assert kilometres(second, "copied") == [5]
    restore_version(first, "trips@2", causes=WHY)
    ingest(second)
    assert kilometres(second, "copied") == kilometres(first, "trips") == ([6, 50] if key else [5, 6, 6])
    restore_version(first, "trips@1", causes=WHY)
    ingest(second)
    # A value that was brought back takes its place again; a row that was taken back stays with those who have read it.
    assert kilometres(second, "copied") == ([5, 6] if key else [5, 6, 6])
    restore_version(first, "trips@2", causes=WHY)
    write(first, "c.csv", "3,7", header="id,km")
    ingest(first)
    ingest(second)
    assert kilometres(second, "copied") == kilometres(first, "trips") == ([6, 7, 50] if key else [5, 6, 6, 7])
    assert ingest(second)["copied"]["action"] == "nothing new"


def test_a_column_whose_name_begins_with_an_underscore_is_data(opened: Opened) -> None:
    parts = opened('docs = ml.Dataset("docs", ml.Files("docs/*.jsonl"), key="_id", checks=[ml.unique("_id")])')
    (parts.settings.project / "docs").mkdir()
    (parts.settings.project / "docs" / "a.jsonl").write_text('{"_id": "a", "__v": 1}\n{"_id": "b", "__v": 2}\n')
    assert ingest(parts)["docs"]["action"] == "published"
    (parts.settings.project / "docs" / "b.jsonl").write_text('{"_id": "b", "__v": 3}\n')
    assert ingest(parts)["docs"]["replaced"] == 1
    assert read_rows(parts, "docs").collect().sort("_id").rows(named=True) == [{"_id": "a", "__v": 1}, {"_id": "b", "__v": 3}]
    assert query(parts, "select sum(__v) as total from docs where _id >= 'a'")["items"] == [{"total": 4}]
    assert 'ml.unique("_id")' in suggest_checks(parts, "docs")["text"]


def test_rows_whose_key_begins_with_an_underscore_repeat_and_get_labels_like_others(opened: Opened) -> None:
    parts = opened(
        """
def documents(position):
    return pl.DataFrame({"_id": ["a", "b"], "x": [1, 2]})
docs = ml.Dataset("docs", documents, key="_id", outcome="y", labels=ml.Files("labels/*.csv"))
"""
    )
    assert ingest(parts)["docs"]["action"] == "published"
    assert ingest(parts)["docs"]["action"] == "nothing new"
    (parts.settings.project / "labels").mkdir()
    (parts.settings.project / "labels" / "a.csv").write_text("_id,y\nb,1.5\n")
    ingest(parts)
    assert read_dataset(parts, "docs").sort("_id")["y"].to_list() == [None, 1.5]


@pytest.mark.parametrize("name", ["_ingested_at", "_batch", "_version", "_live"])
def test_a_source_may_not_bring_a_column_of_the_platform(opened: Opened, name: str) -> None:
    parts = opened('trips = ml.Dataset("trips", ml.Files("trips/*.csv"), key="id")')
    write(parts, "a.csv", "1,2", header=f"id,{name}")
    with pytest.raises(DataError, match=f"the source has a column '{name}'"):
        ingest(parts)
    assert parts.metadata.datasets.get("trips") is None


def test_a_file_without_a_key_that_was_turned_away_is_mended_in_place(opened: Opened) -> None:
    parts = opened('trips = ml.Dataset("trips", ml.Files("trips/*.csv"), checks=[ml.between("km", 0, 100)])')
    write(parts, "a.csv", "1,5", header="id,km")
    ingest(parts)
    write(parts, "b.csv", "2,999", header="id,km")
    assert ingest(parts)["trips"]["action"] == "quarantined"
    assert ingest(parts)["trips"]["action"] == "nothing new"
    write(parts, "c.csv", "3,7", header="id,km")
    assert ingest(parts)["trips"]["action"] == "published"
    write(parts, "b.csv", "2,6", header="id,km")
    assert ingest(parts)["trips"]["action"] == "published"
    assert sorted(read_dataset(parts, "trips")["km"].to_list()) == [5, 6, 7]
    write(parts, "b.csv", "2,60", header="id,km")
    with pytest.raises(DataError, match="was changed after it was read"):
        ingest(parts)


def test_the_count_of_a_database_is_held_against_an_overlap_too(opened: Opened, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("create table o(id int, seq int)")
        db.executemany("insert into o values(?, ?)", [(1, 1), (2, 2)])
    source = f'ml.Sql("sqlite:///{tmp_path}/x.db", "o", cursor="seq", overlap=1)'
    parts = opened(f'orders = ml.Dataset("orders", {source}, key="id", checks=[ml.rows_as_source()])')
    assert ingest(parts)["orders"]["action"] == "published"
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("insert into o values(3, 3)")
    told = ingest(parts)["orders"]
    assert (told["action"], told["added"]) == ("published", 1)


LABELLED = """
trips = ml.Dataset(
    "trips", ml.Files("trips/*.csv"), key="id", time="at", known_at="ended_at", outcome="minutes",
    labels=ml.Files("labels/*.csv"),
)
"""


def test_outcomes_that_come_later_become_corrections_of_their_rows(opened: Opened) -> None:
    parts = opened(LABELLED)
    write(parts, "a.csv", "1,2013-01-01T10:00:00Z,5", "2,2013-01-01T11:00:00Z,6")
    folder = parts.settings.project / "labels"
    folder.mkdir()
    (folder / "l.csv").write_text("id,minutes,ended_at\n1,12.5,2013-01-01T10:30:00Z\n9,3,2013-01-01T10:30:00Z\n")
    assert ingest(parts)["trips"]["version"] == 2, "the labels find the rows that came with them"
    rows = read_dataset(parts, "trips").sort("id")
    assert rows["minutes"].to_list() == [12.5, None]
    assert ingest(parts)["trips"]["action"] == "nothing new"
    write(parts, "b.csv", "9,2013-01-01T09:00:00Z,1")
    ingest(parts)
    assert read_dataset(parts, "trips").sort("id")["minutes"].to_list() == [12.5, None, 3.0], "a label waits for its row"
    (folder / "m.csv").write_text("id,minutes,ended_at\n1,13.5,2013-01-01T11:30:00Z\n")
    ingest(parts)
    assert read_dataset(parts, "trips").sort("id")["minutes"].to_list() == [13.5, None, 3.0]
    past = read_dataset(parts, "trips@2").sort("id")["minutes"].to_list()
    assert past == [12.5, None], "a correction is a new record; the past can be asked"
    assert ingest(parts)["trips"]["action"] == "nothing new"


def test_rows_of_later_publishes_arrive_live_unless_they_are_history(trips: Parts) -> None:
    def lives() -> list[bool]:
        return trips.lake.scan("data/trips").sort("_version").collect()["_live"].to_list()

    assert lives() == [False, False, True, True]
    write(trips, "c.csv", "8,2012-01-01T10:00:00Z,9")
    ingest(trips, bulk=True)
    assert lives()[-1] is False
    stamps = trips.lake.scan("data/trips").select(pl.col("_ingested_at").unique()).collect()
    assert stamps.height == 3
