"""A bundle that was refused is taken up by itself when its files are put right."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from serving_parts import T0, bundle, version

from mulle.core.clock import ReplayClock
from mulle.kernel.routes import ModelRoutes, Routed, RoutingTable, write_routes
from mulle.lifecycle.serving import table as tables
from mulle.lifecycle.serving.following import Following
from mulle.lifecycle.serving.shelf import Shelf
from mulle.lifecycle.serving.table import Table


def no_joins(contract: object) -> object:
    return pytest.fail("no joins here")


@pytest.fixture
def moved(tmp_path: Path) -> tuple[Path, Callable[[], None], Callable[[int], None]]:
    """Routes to version 1, what moves them to version 2, whose graph is not what was registered, and what puts that right."""
    first, second = bundle(tmp_path / "1"), bundle(tmp_path / "2", offset=5.0)
    path, graph = tmp_path / "routes.json", second[1] / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(b"rot")
    made = [Routed(id=f"d{n}", effective_at=T0, salt="s", routes=(version(n, b),)) for n, b in ((1, first), (2, second))]

    def move(count: int = 2) -> None:
        write_routes(path, RoutingTable(generation=count, models={"trip": ModelRoutes(deployments=tuple(made[:count]))}))

    move(1)
    return path, move, lambda right: graph.write_bytes(whole if right else b"rot") and None


def test_a_server_takes_up_what_was_put_right_without_being_told(moved, monkeypatch, caplog) -> None:
    path, move, put_right = moved
    opened: list[int] = []

    class Counted(Shelf):
        def _open(self, model, route):
            opened.append(route.version)
            return super()._open(model, route)

    async def play() -> None:
        with ThreadPoolExecutor(1) as executor:
            table = Table(path, Counted(no_joins), executor, ReplayClock(T0 + timedelta(days=1)), by_row=False)
            assert await table.refresh()
            move()
            assert await table.refresh()
            assert (table.versions("trip"), table.ready("trip")[-1].id) == ([1], "d1")
            assert "is not the bundle that was registered" in table.problems["trip"].detail
            put_right(True)
            assert [await table.refresh() for _ in range(100)] == [False] * 100, "not at each look: a bundle takes long to open"
            assert opened == [1, 2]
            monkeypatch.setattr(tables, "AGAIN", 0.0)
            assert await table.refresh()
            assert (table.ready("trip")[-1].id, table.problems) == ("d2", {})
            assert [r.id for r in table.ready("trip")] == ["d2"]
            assert not await table.refresh(), "there is nothing left to try"
            assert opened == [1, 2, 2]

    with caplog.at_level(logging.INFO, logger="mulle.inference"):
        asyncio.run(play())
    assert [r.message.split(":")[0].split(";")[-1] for r in caplog.records][-1] == "what was refused is whole and in service"


def test_what_stays_refused_is_said_once_and_what_answers_stays_as_it_is(moved, monkeypatch, caplog) -> None:
    path, move, _ = moved
    monkeypatch.setattr(tables, "AGAIN", 0.0)

    async def play() -> None:
        with ThreadPoolExecutor(1) as executor:
            table = Table(path, Shelf(no_joins), executor, ReplayClock(T0 + timedelta(days=1)), by_row=True)
            await table.refresh()
            move()
            for _ in range(5):
                await table.refresh()
            assert [r.id for r in table.ready("trip")] == ["d1"]

    asyncio.run(play())
    assert len([r for r in caplog.records if "what answered before goes on" in r.message]) == 1


def test_a_stream_takes_up_what_was_put_right(moved) -> None:
    path, move, put_right = moved
    said: list[str] = []
    follows, now = Following(path, Shelf(no_joins), "trip", say=said.append), T0 + timedelta(days=1)
    assert follows.ready(now).id == "d1"
    move()
    for second in range(30):
        assert follows.ready(now + timedelta(seconds=second)).id == "d1"
    assert len(said) == 1
    assert said[0].startswith("trip@2 is not taken up: ")
    put_right(True)
    assert follows.ready(now + timedelta(seconds=29)).id == "d1"
    assert follows.ready(now + timedelta(seconds=30)).id == "d2"
