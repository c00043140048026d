"""Ingest under kill -9, two at once, and a full disk: the table stays readable, nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from mulle.bootstrap.parts import wire
from mulle.core.settings import load_settings
from mulle.loop.data.offline import read_dataset
from mulle.loop.parts import Parts

LIFE = Path(__file__).with_name("ingest_life.py")
# Without a key nothing takes the place of anything: a row read twice would be there twice.
PROJECT = """
import mulle as ml

trips = ml.Dataset("trips", ml.Files("trips/*.csv"), {key}checks=[ml.between("km", 0, 1_000_000)])
"""


def project(folder: Path, key: str = "") -> Path:
    (folder / "trips").mkdir(parents=True)
    (folder / "project.py").write_text(PROJECT.format(key=key))
    return folder


def write(folder: Path, name: str, first: int, count: int, km: int | None = None) -> None:
    rows = pl.DataFrame({"id": range(first, first + count), "km": [km if km is not None else n for n in range(count)]})
    rows.write_csv(folder / "trips" / f"{name}.new")
    (folder / "trips" / f"{name}.new").rename(folder / "trips" / f"{name}.csv")


def start(folder: Path, word: str = "ingest", fault: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "MULLE_FAULT": fault}
    return subprocess.Popen(
        [sys.executable, str(LIFE), str(folder), word], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lived(folder: Path, word: str = "ingest", fault: str = "") -> tuple[int, str]:
    process = start(folder, word, fault)
    out, err = process.communicate(timeout=120)
    assert not err or process.returncode, err
    return process.returncode, out


def opened(folder: Path) -> Parts:
    return wire(load_settings({"project": folder}, {}))


def ids(folder: Path) -> list[int]:
    """What Mulle reads and what anybody else reads from the table's files: they must agree."""
    parts = opened(folder)
    ours = read_dataset(parts, "trips")["id"].sort().to_list()
    files = DeltaTable(parts.lake.address("data/trips")).file_uris()
    asked = duckdb.connect().sql(f"select id from read_parquet({files}, union_by_name = true) order by id")
    theirs = [r[0] for r in asked.fetchall()]
    parts.online.close()
    assert ours == theirs
    return ours


POINTS = ("during:stage", "during:publish:appended", "during:publish:recorded")


@pytest.mark.parametrize("point", POINTS)
def test_a_publish_that_dies_is_finished_by_the_next_ingest(tmp_path: Path, point: str) -> None:
    folder = project(tmp_path / "p")
    write(folder, "a", 0, 100)
    assert lived(folder)[0] == 0
    write(folder, "b", 100, 50)
    assert lived(folder, fault=point)[0] == -signal.SIGKILL
    write(folder, "c", 150, 50)
    assert lived(folder)[0] == 0
    assert ids(folder) == list(range(200))
    parts = opened(folder)
    versions = parts.metadata.datasets.versions("trips")
    assert sum(v.added for v in versions) == 200
    assert [v.version for v in versions] == list(range(len(versions), 0, -1))
    assert json.loads(lived(folder)[1]) == ["nothing new"]


@pytest.mark.parametrize("point", ["during:quarantine", "during:quarantine:recorded"])
def test_a_refusal_that_dies_is_finished_by_the_next_ingest(tmp_path: Path, point: str) -> None:
    folder = project(tmp_path / "p")
    write(folder, "a", 0, 100)
    lived(folder)
    write(folder, "bad", 100, 5, km=-1)
    assert lived(folder, fault=point)[0] == -signal.SIGKILL
    lived(folder)
    write(folder, "c", 200, 50)
    lived(folder)
    assert ids(folder) == [*range(100), *range(200, 250)]
    assert json.loads(lived(folder)[1]) == ["nothing new"]
    aside = list(opened(folder).lake.parkings("quarantine/trips"))
    assert aside, "the refused rows are kept"


def test_killed_at_any_moment(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    write(folder, "0", 0, 1000)
    assert lived(folder)[0] == 0
    rng, total = random.Random(7), 1000
    for number in range(1, 9):
        write(folder, str(number), total, 60_000)
        total += 60_000
        process = start(folder)
        try:
            process.wait(timeout=rng.uniform(0.3, 1.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if number % 3 == 0:
            found = ids(folder)
            assert found == list(range(len(found))), "whole batches only"
    assert lived(folder)[0] == 0
    assert ids(folder) == list(range(total))


def test_two_ingests_at_once_bring_every_row_once(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    for round_ in range(2):
        write(folder, f"r{round_}", round_ * 40_000, 40_000)
        lives = [start(folder) for _ in range(3)]
        for life in lives:
            _, err = life.communicate(timeout=120)
            assert life.returncode == 0, err
    assert lived(folder)[0] == 0
    assert ids(folder) == list(range(80_000))


def test_a_full_disk_is_told_and_nothing_is_published(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    write(folder, "a", 0, 100)
    assert lived(folder)[0] == 0
    write(folder, "b", 100, 400_000)
    code, out = lived(folder, word=f"limit={300_000}")
    told = json.loads(out)
    assert (code, told["error"]) == (3, "Unavailable")
    assert told["next"]
    assert ids(folder) == list(range(100))
    assert [p for p in Path(folder, ".mulle", "lake").rglob("*") if p.is_file() and ".parquet." in p.name] == []
    assert lived(folder)[0] == 0
    assert ids(folder) == list(range(400_100))


def test_going_back_and_forgetting_survive_a_death(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", key='key="id", ')
    write(folder, "a", 0, 100)
    lived(folder)
    write(folder, "b", 100, 100)
    lived(folder)
    assert lived(folder, "restore", fault="during:restore")[0] == -signal.SIGKILL
    assert ids(folder) == list(range(100)), "the commit holds, and its record is written by whoever comes next"
    assert lived(folder, "forget", fault="during:forget:rows")[0] == -signal.SIGKILL
    assert lived(folder, "forget")[0] == 0
    assert ids(folder) == [n for n in range(100) if n != 7]
    write(folder, "c", 200, 10)
    lived(folder)
    assert ids(folder) == [n for n in (*range(100), *range(200, 210)) if n != 7]
    assert [e.dataset for e in opened(folder).metadata.datasets.erasures()] == ["trips"]
