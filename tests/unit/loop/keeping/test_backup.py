"""Backups of a home that is at work, and homes made from them."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.loop.conftest import write_cells

from mulle.adapters.metadata.connect import open_metadata
from mulle.adapters.metadata.export import dump_records, load_records
from mulle.bootstrap.keeping import back_up, restore
from mulle.bootstrap.parts import wire
from mulle.core.clock import WallClock
from mulle.core.errors import Conflict, DataError, NotFound
from mulle.core.hashing import new_id
from mulle.core.records.base import Cause
from mulle.core.records.run import run_state
from mulle.core.settings import load_settings
from mulle.kernel.bundle import read_contract
from mulle.lifecycle.data.version import read_version
from mulle.loop.data.ingest import ingest
from mulle.loop.keeping.backup import known_backups
from mulle.loop.keeping.forget import forget
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts
from mulle.loop.runner import await_run, run_model
from mulle.loop.takeup import take_up
from mulle.loop.views.chain import history_view, models_view, run_view, runs_view

WHY = (Cause(type="person", id="ada", why="asked"),)
POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")

PROJECT = """
cells = ml.Dataset("cells", ml.Files("cells.csv"), key="id")


@ml.features(cells)
def cell_features(rows):
    return rows.select("size", "age")


weight = ml.Model(
    "weight", features=cell_features, target="weight", task="regression",
    search=ml.Search([ml.ridge()], trials=2), gates=[ml.at_most("mae", 5)],
)
"""

Open = Callable[..., Parts]


@pytest.fixture
def lab(opened: Open, tmp_path: Path) -> Parts:
    write_cells(tmp_path / "project")
    return opened(PROJECT)


def test_a_home_at_work_is_backed_up_and_another_made_from_it_does_all_that_it_did(lab: Parts, tmp_path: Path) -> None:
    first = run_model(lab, "weight", causes=WHY)
    file = tmp_path / "kept" / "home.tar.gz"
    # Beside a run: what it has done so far is in the copy or done again there.
    second: list[str] = []
    thread = threading.Thread(target=lambda: second.append(run_model(lab, "weight", causes=WHY).id))
    thread.start()
    told = back_up(lab.settings, file)
    thread.join()
    assert told["left_out"] == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [kept["file"] for kept in known_backups(lab.settings.home)] == [str(file)]
    with pytest.raises(Conflict, match="exists"):
        back_up(lab.settings, file)

    home = tmp_path / "elsewhere" / "home"
    there = load_settings({"project": lab.settings.project, "home": home}, {})
    made = restore(there, file)
    assert made["records"] > 10
    with pytest.raises(Conflict, match="not empty"):
        restore(there, file)
    parts = wire(there)
    try:
        assert run_view(parts, first.id) == run_view(lab, first.id)
        assert history_view(parts, "weight")["items"][-1] == history_view(lab, "weight")["items"][-1]
        version = models_view(parts)["items"][-1]
        assert Path(version["address"]).is_relative_to(home)
        assert read_contract(Path(version["address"])).target == "weight"
        cells = parts.metadata.datasets.get("cells")
        assert cells is not None
        assert read_version(parts.lake, parts.project.dataset("cells"), cells).collect().height == 300
        # Nothing of the new home points into the former one.
        for path in [path for path in home.rglob("*.db") if path.is_file()]:
            assert str(lab.settings.home).encode() not in path.read_bytes(), path
        # It goes on: the run that was under way, a new one, and one from a stage of an old one by the journal.
        run = run_model(parts, "weight", causes=WHY)
        states = {r["id"]: r["state"] for r in runs_view(parts)["items"]}
        assert set(states.values()) == {"succeeded"}
        assert run.id in states
        again = take_up(parts, first.id, by="ada", start="features")
        await_run(parts, again)
        assert run_state(parts.metadata.runs.events(again.id)) == "succeeded"
    finally:
        parts.online.close()


def test_a_damaged_or_foreign_file_makes_no_home(lab: Parts, tmp_path: Path) -> None:
    start_run(lab, "weight", causes=WHY)
    file = tmp_path / "home.tar.gz"
    back_up(lab.settings, file)
    there = load_settings({"project": lab.settings.project, "home": tmp_path / "new"}, {})
    whole = file.read_bytes()
    cut, foreign, changed = tmp_path / "cut", tmp_path / "foreign", tmp_path / "changed"
    cut.write_bytes(whole[: len(whole) // 2])
    foreign.write_text("not a backup")
    with tarfile.open(file) as old, tarfile.open(changed, "w:gz") as new:
        for info in old:
            body = old.extractfile(info).read()  # type: ignore[union-attr]
            body = gzip.compress(b"[]\n") if info.name == "records.jsonl.gz" else body
            info.size = len(body)
            new.addfile(info, io.BytesIO(body))
    for bad in (cut, foreign, changed):
        with pytest.raises(DataError, match=r"no whole backup|damaged"):
            restore(there, bad)
    with pytest.raises(NotFound):
        restore(there, tmp_path / "nothing")
    outside = tmp_path / "outside"
    with tarfile.open(outside, "w:gz") as evil:
        info = tarfile.TarInfo("../escaped")
        evil.addfile(info, io.BytesIO(b""))
    with pytest.raises(DataError, match="no backup does"):
        restore(there, outside)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.fixture
def database() -> Iterator[str]:
    if not POSTGRES:
        pytest.skip("MULLE_TEST_POSTGRES names no server")
    import psycopg

    name = f"backup_{new_id(WallClock().now()).lower()}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield POSTGRES.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_records_move_between_sqlite_and_postgresql(lab: Parts, database: str, tmp_path: Path) -> None:
    for _ in range(3):
        start_run(lab, "weight", causes=WHY)
    revision, rows = dump_records(lab.settings.database)
    kept = list(rows)
    assert load_records(database, kept) == len(kept)
    with pytest.raises(Conflict, match="holds"):
        load_records(database, kept)
    # A home whose records cannot be filled is not left half made.
    back_up(lab.settings, tmp_path / "b")
    there = load_settings({"project": lab.settings.project, "home": tmp_path / "new"}, {"MULLE_DATABASE": database})
    with pytest.raises(Conflict, match="holds"):
        restore(there, tmp_path / "b")
    assert not (tmp_path / "new").exists()
    moved = open_metadata(database)
    assert moved.runs.list() == lab.metadata.runs.list()
    assert moved.queue.unfinished() == lab.metadata.queue.unfinished()
    # Numbers go on after those that were brought.
    moved.queue.put("next")
    assert dump_records(database)[0] == revision
    back = f"sqlite:///{tmp_path}/back.db"
    load_records(back, dump_records(database)[1])
    assert open_metadata(back).queue.unfinished()[-1] == "next"


def test_what_lies_elsewhere_is_named_without_its_password(lab: Parts, tmp_path: Path) -> None:
    far = replace(lab.settings, lake="s3://bucket/lake", online="redis://me:secret@cache:6379")
    told = back_up(far, tmp_path / "b")
    assert told["left_out"] == ["lake: it lies at s3://bucket/lake", "online: it lies at redis://cache:6379"]
    with tarfile.open(tmp_path / "b") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert "secret" not in json.dumps(manifest)


def test_an_erasure_names_the_backups_that_hold_the_rows_still(lab: Parts, tmp_path: Path) -> None:
    ingest(lab, lab.project.dataset("cells"), now=lab.clock.now(), causes=WHY)
    back_up(lab.settings, tmp_path / "b")
    erasure = forget(lab, "cells", ["5"], by="ada", causes=WHY)
    assert erasure.removed["rows"] == 1
    assert erasure.backups == (str(tmp_path / "b"),)
    assert lab.metadata.datasets.erasures("cells") == [erasure]


def test_what_staging_logged_is_in_a_backup_and_its_routes_are_made_anew(lab: Parts, tmp_path: Path) -> None:
    staging = lab.settings.home / "staging"
    (staging / "log").mkdir(parents=True)
    (staging / "log" / "predictions-1.seg").write_bytes(b"rows")
    (staging / "routes.json").write_text(str(lab.settings.home))
    back_up(lab.settings, tmp_path / "home.tar.gz")
    settings = load_settings({"project": lab.settings.project, "home": tmp_path / "other"}, {})
    restore(settings, tmp_path / "home.tar.gz")
    assert [p.name for p in (settings.home / "staging").rglob("*") if p.is_file()] == ["predictions-1.seg"]
