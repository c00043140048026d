"""A request may ask for one route past the others, to try it: with the token where one is set, and the log says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from serving_parts import Server, bundle, route, row, version

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import WallClock
from mulle.kernel.routes import ROUTES, RoutingTable, read_routes, write_routes
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder

TOKEN = {"authorization": "Bearer s3cret"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("forced")
    home = folder / "home"
    home.mkdir()
    made = [bundle(folder / str(n), offset=float(n)) for n in range(4)]
    route(home, version(1, made[0]), keep=True)
    moved = (version(2, made[1], share=0.999), version(3, made[2], share=0.001, mode="canary"))
    route(home, *moved, version(4, made[3], share=0.0, mode="shadow"), keep=True)
    with Server(home, {"token": "s3cret"}) as running:
        yield running


def ask(server: Server, told: str, path: str = "", headers: dict[str, str] = TOKEN) -> tuple[int, object, object]:
    body = {"rows": [row(), row(2)]}
    answer = server.ask("POST", f"/v1/models/trip{path}/predict", body, headers={"X-Mulle-Route": told, **headers})
    first = answer.json.get("predictions", [{}])[0]
    return answer.status, first.get("version"), first.get("route")


@pytest.mark.parametrize(("told", "number"), [("champion", 2), ("canary", 3), ("shadow", 4), ("1", 1), ("4", 4)])
def test_the_route_asked_for_answers(server: Server, told: str, number: int) -> None:
    assert ask(server, told) == (200, number, "forced")


def test_other_protocols_take_it_too(server: Server) -> None:
    body = {"dataframe_records": [{"id": 1, "size": 2, "kind": "a"}]}
    asked = {"X-Mulle-Route": "shadow", **TOKEN}
    assert server.ask("POST", "/v1/models/trip/invocations", body, headers=asked).json == {"predictions": [5.0]}


def test_only_with_the_token(server: Server) -> None:
    assert ask(server, "canary", headers={})[0] == 401
    assert ask(server, "canary", headers={"authorization": "Bearer no"})[0] == 401


@pytest.mark.parametrize(("told", "status"), [("9", 404), ("loser", 400), ("", 400), ("9" * 30, 400), ("-1", 400)])
def test_what_is_not_there_is_told(server: Server, told: str, status: int) -> None:
    assert ask(server, told)[0] == status


def test_not_beside_a_version_in_the_address(server: Server) -> None:
    assert ask(server, "canary", "/versions/2")[0] == 400


def test_nothing_is_forced_on_a_model_without_that_route(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    route(home, version(1, bundle(tmp_path / "b")))
    with Server(home) as server:
        assert ask(server, "shadow", headers={})[0] == 404
        assert ask(server, "champion", headers={}) == (200, 1, "forced")
        assert server.predict(row()).json["predictions"][0]["route"] == "champion"
        text = server.get("/metrics").body.decode()
        assert 'mulle_requests_total{model="trip",route="forced",status="200",version="1"} 1.0' in text
    lake = DeltaLake(str(home / "lake"))
    drain(log_folder(home), lake, now=WallClock().now())
    logged = lake.scan("predictions").collect()
    assert logged.group_by("route").len().sort("route").rows() == [("champion", 1), ("forced", 2)]
    assert logged.filter(pl.col("route") == "forced")["version"].unique().to_list() == [1]


def test_in_a_fleet_the_model_is_loaded_first(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    made = bundle(tmp_path / "b"), bundle(tmp_path / "c", offset=5.0)
    route(home, version(1, made[0], share=0.9), version(2, made[1], share=0.1, mode="canary"))
    many = read_routes(home / ROUTES).models["trip"]
    write_routes(home / ROUTES, RoutingTable(generation=5, models={f"m{n}": many for n in range(80)}))
    with Server(home) as server:
        answer = server.predict(row(), model="m7", headers={"X-Mulle-Route": "canary"}).json["predictions"][0]
        assert (answer["version"], answer["value"], answer["route"]) == (2, 7.0, "forced")
        assert server.predict(row(), model="ghost", headers={"X-Mulle-Route": "canary"}).status == 404
