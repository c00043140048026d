"""OpenAPI from the contracts: what a model's document says, that its examples answer, and the page to try them on."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from openapi_spec_validator import validate
from serving_parts import Server, bundle, route, two_models, version

from mulle.core.hashing import hash_folder
from mulle.kernel.routes import ROUTES, ModelRoutes, RoutingTable, read_routes, write_routes
from mulle.kernel.sample import Sample, sample_json


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(two_models(tmp_path_factory.mktemp("openapi"))) as running:
        yield running


def test_a_models_document_follows_its_contract(server: Server) -> None:
    found = server.get("/v1/models/trip/openapi.json").json
    row = found["components"]["schemas"]["Row-trip"]
    fields = row["properties"]
    assert row["required"] == ["id", "size", "kind"]
    assert row["additionalProperties"] is False
    assert fields["size"]["type"] == ["number", "null"]
    assert fields["id"]["maximum"] == 2**63 - 1
    assert fields["id"]["description"].startswith("Key")
    assert fields["at"]["format"] == "date-time"
    assert (fields["kind"]["type"], fields["kind"]["examples"]) == (["string", "null"], ["a", "b"])
    assert "/v1/models/trip/predict" in found["paths"]
    assert "/v1/models/trip/versions/6/predict" in server.get("/v1/models/trip/versions/6/openapi.json").json["paths"]
    assert server.get("/v1/models/ghost/openapi.json").status == 404


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/models/trip/openapi.json", "/v1/models/kind/versions/1/openapi.json"])
def test_the_documents_are_openapi(server: Server, path: str) -> None:
    validate(server.get(path).json)


def test_the_servers_document_has_every_model(server: Server) -> None:
    found = server.get("/openapi.json").json
    assert {"/v1/labels", "/v1/models/trip/predict", "/v2/models/kind/infer", "/v2/health/ready"} <= found["paths"].keys()
    assert {"Row-trip", "Row-kind"} <= found["components"]["schemas"].keys()


@pytest.mark.parametrize("model", ["trip", "kind"])
def test_every_example_answers(server: Server, model: str) -> None:
    asked = 0
    for path, item in server.get(f"/v1/models/{model}/openapi.json").json["paths"].items():
        if "get" in item:
            assert server.get(path).status == 200
        else:
            example = item["post"]["requestBody"]["content"]["application/json"]["example"]
            assert server.ask("POST", path, example).status == 200, path
            asked += 1
    assert asked == 3


def test_the_example_is_the_bundles_own_where_it_has_one(tmp_path: Path) -> None:
    _, folder = bundle(tmp_path / "b")
    rows = pl.DataFrame({"id": [77], "size": [3.25], "kind": ["b"], "at": ["2013-05-01T12:00:00+00:00"]}).with_columns(
        pl.col("at").str.to_datetime(time_unit="us", time_zone="UTC")
    )
    sample = Sample(rows, np.zeros((1, 2), np.float32))
    (folder / "sample.json").write_text(json.dumps(sample_json(sample)))
    home = tmp_path / "home"
    home.mkdir()
    route(home, version(1, (hash_folder(folder), folder)))
    with Server(home) as server:
        found = server.get("/v1/models/trip/openapi.json").json["components"]["schemas"]["Row-trip"]["examples"][0]
    assert found == {"id": 77, "at": "2013-05-01T12:00:00Z", "size": 3.25, "kind": "b"}


def test_a_large_fleet_has_one_document_a_model(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    route(home, version(1, bundle(tmp_path / "b")))
    only = read_routes(home / ROUTES).models["trip"]
    fleet = {f"m/{n}": ModelRoutes(deployments=only.deployments) for n in range(100)}
    write_routes(home / ROUTES, RoutingTable(generation=9, models={"m": only, **fleet}))
    with Server(home) as server:
        assert not any("m/7" in path for path in server.get("/openapi.json").json["paths"])
        own = server.get("/v1/models/m/7/openapi.json").json
        assert "/v1/models/m/7/predict" in own["paths"]
        validate(own)


def test_the_page_brings_all_it_needs(server: Server) -> None:
    answer = server.get("/docs")
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.findall(r"""(?:src|href)=["'](?!/openapi\.json)""", page)
    assert "http" not in page
    policy = answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert inner is not None
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_page_is_open_and_what_it_asks_for_is_not(tmp_path: Path) -> None:
    with Server(two_models(tmp_path), {"token": "s3cret"}) as server:
        assert server.get("/docs").status == 200
        assert server.get("/openapi.json").status == 401
        assert server.get("/openapi.json", headers={"authorization": "Bearer s3cret"}).status == 200
