"""A home as each release left it opens with this one: kept as it was, brought up to date, listed, answered from, run on."""

from __future__ import annotations

import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from mulle.adapters.metadata.tables import HEAD
from mulle.bootstrap.parts import wire
from mulle.core.records.base import Cause
from mulle.core.settings import load_settings
from mulle.loop.keeping.backup import _relocate
from mulle.loop.parts import Parts
from mulle.loop.runner import run_model
from mulle.loop.views.chain import datasets_view, history_view, models_view, run_view, runs_view
from mulle.surfaces.python import project

HOMES = Path(__file__).parents[2] / "fixtures" / "homes"
RELEASES = sorted(path.name.removesuffix(".tar.xz") for path in HOMES.glob("*.tar.xz"))


@pytest.fixture(params=RELEASES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(HOMES / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    # A home's addresses are whole paths: as if it had always been here.
    was = (tmp_path / "was.txt").read_text()
    for name in ("mulle.db", "mlflow.db", "engine.db"):
        _relocate(tmp_path / ".mulle" / name, [(was, str(tmp_path))])
    return tmp_path


@pytest.fixture
def parts(folder: Path) -> Iterator[Parts]:
    found = wire(load_settings({"project": folder}, {}))
    yield found
    found.online.close()


def revision(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    finally:
        connection.close()


def test_there_is_a_home_of_every_revision_since_the_third() -> None:
    assert [f"r{number:04}" for number in range(3, int(HEAD) + 1)] == RELEASES
    assert all((HOMES / f"{name}.tar.xz").stat().st_size < 300_000 for name in RELEASES)


def test_it_opens_after_a_copy_was_kept_and_all_that_was_there_is_there(folder: Path, request: pytest.FixtureRequest) -> None:
    home = folder / ".mulle"
    before = revision(home / "mulle.db")
    parts = wire(load_settings({"project": folder}, {}))
    request.addfinalizer(parts.online.close)
    assert revision(home / "mulle.db") == HEAD
    kept = home / "backups" / f"mulle.db.{before}"
    assert kept.exists() == (before != HEAD)
    if kept.exists():
        assert revision(kept) == before
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    runs = runs_view(parts)["items"]
    assert [run["state"] for run in runs] == ["succeeded", "succeeded"]
    assert run_view(parts, runs[0]["id"])["model_version"] == 2
    assert [v["version"] for v in models_view(parts)["items"]] == [2, 1]
    assert history_view(parts, "weight")["items"][0]["action"] == "rollback"
    assert datasets_view(parts)["items"][0]["rows"] == 120
    assert list(parts.metadata.queue.unfinished()) == []
    # Opened again, nothing is copied once more.
    kept.unlink(missing_ok=True)
    wire(load_settings({"project": folder}, {})).online.close()
    assert not kept.exists()


def test_it_answers_and_goes_on(folder: Path, parts: Parts) -> None:
    answered = project(folder).load("weight@champion").predict(pl.DataFrame({"id": [900], "size": [3.0], "age": [4.0]}))
    assert answered["version"].to_list() == [1]
    assert abs(answered["value"][0] - 10) < 1
    run = run_model(parts, "weight", causes=(Cause(type="person", id="ada", why="asked"),))
    assert run_view(parts, run.id)["state"] == "succeeded"
    assert run_view(parts, run.id)["model_version"] == 3
