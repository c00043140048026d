"""The routing table survives its round trip and is never seen half written."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from mulle.core.clock import instant
from mulle.core.errors import Unavailable
from mulle.kernel.routes import ModelRoutes, Routed, RoutedVersion, RoutingTable, in_force, read_routes, write_routes

T0 = instant("2013-03-01")


def table(generation: int, deployments: int = 1) -> RoutingTable:
    version = RoutedVersion(version=7, share=1.0, mode="champion", bundle="ab" * 16, address="/b/7")
    moves = tuple(
        Routed(id=f"d{i}", effective_at=T0 + timedelta(days=i), salt=f"s{i}", routes=(version,)) for i in range(deployments)
    )
    return RoutingTable(generation=generation, models={"air-time": ModelRoutes(deployments=moves)})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "home" / "routes.json"
    write_routes(path, table(3, 3))
    assert read_routes(path) == table(3, 3)
    assert [p.name for p in path.parent.iterdir()] == ["routes.json"]


def test_no_file_is_the_empty_table(tmp_path: Path) -> None:
    assert read_routes(tmp_path / "routes.json") == RoutingTable()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"models": 3}', '{"models": {"a": {"deployments": [{}]}}}'])
def test_a_broken_file_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "routes.json"
    path.write_text(text)
    with pytest.raises(Unavailable):
        read_routes(path)


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    write_routes(path, table(0))

    def keep_writing() -> None:
        for generation in range(1, 60):
            write_routes(path, table(generation, 1 + generation % 9))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(read_routes(path).generation)
    writer.join()
    assert seen == sorted(seen)
    assert read_routes(path).generation == 59


def test_the_deployment_in_force_is_the_last_effective() -> None:
    moves = table(1, 3).models["air-time"].deployments
    assert in_force(moves, T0 - timedelta(seconds=1)) is None
    assert [in_force(moves, T0 + timedelta(hours=h)).id for h in (0, 23, 24, 480)] == ["d0", "d0", "d1", "d2"]  # type: ignore[union-attr]
