"""Ten thousand members: listings, routes, moves and ticks that do not look at each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from tests.unit.calls import calls

from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock
from mulle.core.hashing import hash_folder
from mulle.core.records.base import Cause
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import Member, Run
from mulle.core.records.window import Window
from mulle.core.settings import load_settings
from mulle.kernel.routes import open_book
from mulle.lifecycle.monitoring.window import member_windows
from mulle.loop.monitoring.triggers import due_members
from mulle.loop.operate import rollback
from mulle.loop.parts import Parts
from mulle.loop.rollout.canaries import judge_member_releases
from mulle.loop.rollout.route import publish_routes
from mulle.loop.views.chain import model_names, models_view
from mulle.loop.views.members import members_view
from mulle.loop.views.status import status_view

MANY = 10_000
NOW = datetime(2024, 1, 10, tzinfo=UTC)
WHY = (Cause(type="run", id="r", why="its run"),)
NAMES = ["demand", *(f"demand/{n}" for n in range(MANY))]

PROJECT = """import mulle as ml
sales = ml.Dataset("sales", ml.Files("sales.csv"), key="id", time="at", outcome="units")
@ml.features(sales)
def shape(rows):
    return rows.select("price")
demand = ml.Model(
    "demand", features=shape, target="units", task="regression", each="store",
    monitor=ml.Monitor(performance=ml.at_most("mae", 2)), rollout=ml.canary(50, 100, min_rows=10),
)
"""


_FOLDER = TemporaryDirectory()
BUNDLE = Path(_FOLDER.name)
"""What every version here is made of: nobody goes back to one whose files are not there."""
HASH = hash_folder(BUNDLE)


def a_version(name: str, number: int) -> ModelVersion:
    return ModelVersion(
        id=f"{name}-{number}", created_at=NOW, causes=WHY, model=name, version=0, run=f"r{number}",
        address=str(BUNDLE), bundle=HASH, compiled="onnx", parity=None, metrics={"mae": 1.0}, size_bytes=1, features=("price",),
        data={"sales": 1}, data_cutoff=NOW, refit_cutoff=NOW,
    )  # fmt: skip


def a_move(name: str, number: int, *, canary: int = 0) -> Deployment:
    beside = (Route(version=canary, share=0.5, mode="canary"),) if canary else ()
    routes = (Route(version=number, share=0.5 if canary else 1.0, mode="champion"), *beside)
    at = NOW + timedelta(hours=number + canary)
    return Deployment(
        id=f"{name}-{number}-{canary}", created_at=at, causes=WHY, model=name, action="deploy", effective_at=at, by="loop",
        from_version=None, to_version=canary or number, routes=routes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder: Path = tmp_path_factory.mktemp("scale") / "project"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    made = wire(load_settings({"project": folder}, {}), clock=ReplayClock(NOW + timedelta(days=1)))
    made.metadata.runs.add(Run(id="r", created_at=NOW, causes=WHY, model="demand", cutoff=NOW, code="c"))
    for number in (1, 2):
        made.metadata.models.add_many([a_version(name, number) for name in NAMES])
        made.metadata.deployments.add_many([a_move(name, number) for name in NAMES])
    told = [
        Member(run="r", model=name, outcome="trained", rows=400, metric="mae", value=1.0 + n / MANY, shared=2.0, version=2)
        for n, name in enumerate(NAMES[1:])
    ]
    told[77] = replace(told[77], outcome="failed", reason="the target is 1 on every row")
    made.metadata.runs.add_members(told)
    yield made
    made.online.close()


def test_a_page_of_members_is_the_worst_of_all(parts: Parts) -> None:
    page = members_view(parts, "demand", limit=3)
    assert [i["model"] for i in page["items"]] == ["demand/77", f"demand/{MANY - 1}", f"demand/{MANY - 2}"]
    assert page["members"] == MANY
    following = members_view(parts, "demand", limit=2, after=page["next"])
    assert [(i["model"], i["champion"]) for i in following["items"]] == [(f"demand/{MANY - 3}", 2), (f"demand/{MANY - 4}", 2)]


def test_what_lists_models_shows_the_fleet_once(parts: Parts) -> None:
    assert model_names(parts) == ("demand",)
    assert len(status_view(parts)["models"]) == 1
    view = models_view(parts, model="demand")
    assert len(view["items"]) == 2
    assert view["fleet"]["outcomes"] == {"trained": MANY - 1, "kept": 0, "held_back": 0, "failed": 1, "small": 0}
    assert len(json.dumps(view)) < 10_000


def test_a_terminal_shows_the_sum_and_a_page(parts: Parts) -> None:
    from rich.console import Console, Group

    from mulle.surfaces.cli import render, render_members

    console = Console(width=200, record=True, file=StringIO())
    console.print(Group(*render.models(models_view(parts, model="demand"))))
    console.print(Group(*render_members.members(members_view(parts, "demand", limit=3))))
    shown = console.export_text()
    assert "10,000: 9,999 trained, 1 failed" in shown
    assert "the target is 1 on every row" in shown
    assert f"more: --after demand/{MANY - 2}" in shown
    assert len(shown.splitlines()) < 40


def test_a_move_of_one_member_writes_its_line_of_the_table_and_no_other(parts: Parts) -> None:
    path = parts.settings.home / "routes.json"
    publish_routes(parts)
    before = open_book(path)
    assert len(before) == MANY + 1
    moved = calls(lambda: rollback(parts, "demand/17", by="ada"))
    after = open_book(path)
    assert after.changed(before) == ["demand/17"]
    assert after["demand/17"].deployments[-1].routes[0].version == 1
    assert after.generation == before.generation + 1
    # Made anew it is the same: the short way leaves nothing out.
    written = path.read_bytes()
    looked_at_each = calls(lambda: publish_routes(parts))
    assert path.read_bytes() == written
    assert moved < looked_at_each / 20


def test_a_deployment_that_was_never_published_is_not_lost_by_the_short_way(parts: Parts) -> None:
    parts.metadata.deployments.add(a_move("demand/3", 1, canary=2))
    rollback(parts, "demand/18", by="ada")
    book = open_book(parts.settings.home / "routes.json")
    assert [r.mode for r in book["demand/3"].deployments[-1].routes] == ["champion", "canary"]
    assert book.generation == parts.metadata.deployments.count()


def test_a_tick_judges_the_canaries_that_run_and_no_other_member(parts: Parts) -> None:
    fleet = parts.project.model("demand")
    parts.metadata.deployments.add(a_move("demand/5", 1, canary=2))
    canaries = parts.metadata.deployments.canaries()
    assert "demand/5" in canaries
    assert len(canaries) < 4

    def look() -> None:
        assert judge_member_releases(parts, fleet, canaries, parts.clock.now(), parts.clock.now()) == []
        assert due_members(parts, fleet, parts.clock.now()) == []

    assert calls(look) < 4 * MANY, "a look at each member calls more than that of it"


def test_one_reading_of_the_log_says_which_member_answers_badly(parts: Parts) -> None:
    fleet = parts.project.model("demand")
    rows = [(store, n, 5.0 if store == "b" else 0.5) for store in ("a", "b", "c") for n in range(10 if store == "c" else 40)]
    predictions = pl.DataFrame({
        "id": [f"{s}{n}" for s, n, _ in rows], "model": [f"demand/{s}" for s, _, _ in rows], "version": [1] * len(rows),
        "route": ["champion"] * len(rows), "key": [f'{{"id": "{s}{n}"}}' for s, n, _ in rows],
        "time": [NOW + timedelta(minutes=n) for _, n, _ in rows], "features": ["{}"] * len(rows), "value": ["10.0"] * len(rows),
    }).with_columns(pl.col("time").dt.cast_time_unit("us"))  # fmt: skip
    labels = pl.DataFrame({
        "prediction_id": predictions["id"], "key": predictions["key"], "time": predictions["time"],
        "value": [str(10.0 + wrong) for _, _, wrong in rows], "known_at": predictions["time"],
    })  # fmt: skip
    window = Window(
        id="w", created_at=NOW, causes=(), model="demand", start=NOW, end=NOW + timedelta(days=1), rows=len(rows), mature=True,
        versions={}, signals=(), performance=None,
    )  # fmt: skip
    found = {w.model: w.performance for w in member_windows(fleet, predictions, labels, window, NOW + timedelta(days=2))}
    assert {name: p.verdict for name, p in found.items() if p} == {"demand/a": "pass", "demand/b": "alarm"}
