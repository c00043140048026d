"""A dataset's life by commands alone: good, bad and good batches, and all that is asked of them."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest
from commands import command
from deltalake import DeltaTable

import mulle as ml

PROJECT = """
import mulle as ml

flights = ml.Dataset(
    "flights",
    ml.Files("incoming"),
    key="flight_id",
    time="scheduled_at",
    outcome="air_time",
    checks=[
        ml.rows(at_least=1),
        ml.unique("flight_id"),
        ml.one_of("origin", ["EWR", "JFK", "LGA"]),
        ml.between("distance", 10, 6000),
    ],
)

@ml.features(flights)
def shape(rows):
    return rows.select("distance", "origin")

air_time = ml.Model("air-time", features=shape, target="air_time", task="regression")
"""
SECOND = """
import mulle as ml

flights = ml.Dataset("flights", ml.Shared("{url}"), key="flight_id", time="scheduled_at")
"""
COLUMNS = ["flight_id", "scheduled_at", "origin", "distance", "air_time"]
MONTH = 120
SECRET = "passenger-4711-of-may"


class Folder:
    """A project's folder, and the commands that are run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said = ""

    def __call__(self, *arguments: str, wanted: int = 0) -> str:
        done = command(self.path, *arguments)
        assert done.returncode == wanted, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.said = done.stderr
        return done.stdout

    def ask(self, *arguments: str, wanted: int = 0) -> dict:
        return json.loads(self(*arguments, "--json", wanted=wanted))

    def refused(self, *arguments: str, wanted: int = 2) -> str:
        self(*arguments, wanted=wanted)
        return self.said

    def month(self, month: int, **worse: object) -> None:
        """Put a month's file into the folder that keeps receiving them; what is worse stands in its last row."""
        chance = random.Random(month)
        rows = []
        for number in range(MONTH):
            far, origin = chance.randint(90, 2500), chance.choice(["EWR", "JFK", "LGA"])
            at = f"2013-{month:02}-{1 + number % 28:02}T10:00:00Z"
            rows.append([f"{month}-{number}", at, origin, far, far // 8 + chance.randint(15, 30)])
        rows[-1] = [worse.get(name, value) for name, value in zip(COLUMNS, rows[-1], strict=True)]
        (self.path / "incoming").mkdir(exist_ok=True)
        with (self.path / "incoming" / f"{month:02}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])

    def table(self, columns: str) -> tuple:
        """Ask DuckDB about the files of the table itself, Mulle left aside."""
        files = DeltaTable(self.path / ".mulle" / "lake" / "data" / "flights").file_uris()
        return duckdb.execute(f"select {columns} from read_parquet(?)", [files]).fetchone()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Folder:
    """A project with a good month, a bad one, and the bad one mended: versions 1 and 2."""
    folder = Folder(tmp_path_factory.mktemp("lab"))
    (folder.path / "project.py").write_text(PROJECT)
    folder.month(1)
    folder.first = folder.ask("data", "ingest")["items"]
    folder.month(2, flight_id=SECRET, origin="XXX", distance=-5)
    folder.looked = folder("data", "check", "flights", "--new", wanted=1)
    folder.bad = folder.ask("data", "ingest", wanted=1)["items"]
    folder.between = folder.table("count(*), max(flight_id)")
    folder.month(2, flight_id=SECRET)
    folder.mended = folder.ask("data", "ingest")["items"]
    folder("data", "tag", "flights@1", "2013-q1")
    return folder


@pytest.fixture
def copy(lab, tmp_path) -> Folder:
    """A project of its own for what changes it, with the same past."""
    shutil.copytree(lab.path, tmp_path / "lab")
    return Folder(tmp_path / "lab")


def test_good_bad_good_leaves_no_bad_row_in_the_table(lab):
    assert [(i["action"], i["version"], i["added"]) for i in lab.first] == [("published", 1, MONTH)]
    assert [(i["action"], i["version"], i["verdict"]) for i in lab.bad] == [("quarantined", 1, "fail")]
    assert {c["name"]: c["failed"] for c in lab.bad[0]["checks"] if c["failed"]} == {"one_of(origin)": 1, "between(distance)": 1}
    assert lab.between == (MONTH, "1-99"), "the published version is untouched"
    assert [(i["action"], i["version"], i["added"]) for i in lab.mended] == [("published", 2, MONTH)]
    assert lab.table("count(*), count(*) filter (origin = 'XXX' or distance < 0), count(distinct flight_id)") == (
        2 * MONTH, 0, 2 * MONTH
    )  # fmt: skip
    assert lab.ask("data", "ingest")["items"][0]["action"] == "nothing new"


def test_a_failing_check_shows_the_rows_it_found_and_ends_with_1(lab):
    assert "one_of(origin): 1 of 1 rows" in lab.looked
    assert "XXX" in lab.looked


def test_versions_list_what_was_published_and_what_was_turned_away(lab):
    told = lab.ask("data", "versions", "flights")
    assert [(i["version"], i["rows"], i["tags"]) for i in told["items"]] == [(2, 2 * MONTH, []), (1, MONTH, ["2013-q1"])]
    assert [q["rows"] for q in told["quarantined"]] == [MONTH]
    assert Path(told["quarantined"][0]["address"]).is_file()
    assert all({"id", "created_at", "causes", "hash"} <= set(item) for item in told["items"])


def test_a_diff_counts_rows_and_a_tag_can_stand_for_a_version(lab):
    told = lab.ask("data", "diff", "flights@2013-q1", "2")
    assert (told["before"], told["after"]) == (1, 2)
    assert (told["added"], told["changed"], told["removed"]) == (MONTH, 0, 0)
    assert "scheduled_at" in {c["column"] for c in told["columns"] if c["psi"] > c["noise"]}
    tagged = ml.read("flights@2013-q1", path=lab.path)
    assert (tagged.height, sorted(tagged.columns)) == (MONTH, sorted(COLUMNS))
    assert tagged["scheduled_at"].dtype == pl.Datetime("us", "UTC")


def test_a_restore_publishes_the_old_rows_as_the_next_version(copy):
    assert copy.ask("data", "restore", "flights@2013-q1")["version"] == 3
    assert ml.read("flights", path=copy.path).equals(ml.read("flights@1", path=copy.path))
    assert ml.read("flights@2", path=copy.path).height == 2 * MONTH


def test_what_is_suggested_can_be_pasted_and_holds(copy):
    proposed = copy("data", "suggest", "flights")
    assert "ml.one_of(" in proposed
    project = copy.path / "project.py"
    text = project.read_text()
    begin, end = text.index("    checks=["), text.index("    ],\n") + len("    ],\n")
    project.write_text(text[:begin] + proposed + text[end:])
    told = copy.ask("data", "check", "flights@2")
    assert (told["dataset"], told["verdict"], told["rows"]) == ("flights", "pass", 2 * MONTH)
    assert len(told["checks"]) > 4
    assert all({"name", "severity", "verdict", "failed", "samples"} <= set(check) for check in told["checks"])


def test_the_page_exists_needs_no_network_and_names_every_column(lab):
    told = lab.ask("data", "explore", "flights", "--target", "air_time", "--output", "page.html")
    assert told["versions"] == [2]
    page = Path(told["page"]).read_text()
    assert all(name in page for name in COLUMNS)
    assert "Mutual information of each column with air_time" in page
    assert 'src="http' not in page


def test_two_versions_are_laid_side_by_side_on_a_page(lab):
    told = lab.ask("data", "explore", "flights", "--compare", "1", "2", "--output", "compared.html")
    assert told["versions"] == [1, 2]
    page = Path(told["page"]).read_text()
    assert all(name in page for name in COLUMNS)
    assert "one version too many" in lab.refused("data", "explore", "flights", "2")


def test_sql_sees_the_last_versions(lab):
    told = lab.ask("data", "sql", "select count(*) as n, min(distance) >= 90 as far from flights")
    assert told["items"] == [{"n": 2 * MONTH, "far": True}]


def test_a_second_project_reads_what_is_shared(copy, tmp_path):
    url = copy.ask("data", "share", "flights")["url"]
    second = Folder(tmp_path / "second")
    second.path.mkdir()
    (second.path / "project.py").write_text(SECOND.format(url=url))
    assert ml.read(f"{url}@2013-q1", path=second.path).height == MONTH
    assert second.ask("data", "ingest")["items"][0]["added"] == 2 * MONTH
    copy.month(3)
    copy("data", "ingest")
    assert second.ask("data", "ingest")["items"][0]["added"] == MONTH


def test_a_key_is_forgotten_and_the_dataset_lives_on(copy):
    found = {path.name.removesuffix("-wal") for path in holding(copy.path / ".mulle", SECRET)}
    assert "mulle.db" in found, "a sample of the check holds it"
    told = copy.ask("data", "forget", "flights", SECRET, "--why", "request 88", "--yes")
    assert {place: n for place, n in told["removed"].items() if n} == {"rows": 1, "quarantine": 1, "samples": 4}
    assert (told["causes"][0]["why"], SECRET in json.dumps(told)) == ("request 88", False)
    assert holding(copy.path / ".mulle", SECRET) == []
    copy.month(3)
    assert copy.ask("data", "ingest")["items"][0]["added"] == MONTH
    assert copy.table("count(*), count(*) filter (flight_id like 'passenger%')") == (3 * MONTH - 1, 0)


def holding(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_labels_by_key_and_time_are_taken_with_who_said_so(copy):
    (copy.path / "told.csv").write_text("flight_id,scheduled_at,air_time\n1-0,2013-01-01T10:00:00Z,80\n1-1,,90\n")
    told = copy.ask("label", "air-time", "--input", "told.csv", "--by", "anna")
    assert (told["accepted"], told["by"]) == (2, "anna")


def test_a_file_that_was_cut_off_is_named_and_changes_nothing(copy):
    (copy.path / "incoming" / "03.csv").write_text("flight_id,scheduled_at,origin,distance,air_time\n3-0,2013-03-01T10:0")
    assert "03.csv: the file ends in the middle of line 2" in copy.refused("data", "ingest", wanted=1)
    assert ml.read("flights", path=copy.path).height == 2 * MONTH


def test_an_unknown_version_is_wrong_use_and_the_words_help(lab):
    problem = json.loads(lab.refused("data", "check", "flights@nope", "--json"))
    assert (problem["status"], problem["next"]) == (404, "see `mulle data versions flights`")
