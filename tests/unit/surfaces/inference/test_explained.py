"""Explanations over HTTP, in a notebook and on the command line: the same numbers, from a child that comes when it is asked."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import psutil
import pytest
from rich.console import Console
from serving_parts import Server, bundle, route, version

import mulle as ml
from mulle.bootstrap.parts import wire
from mulle.core.errors import ContractError
from mulle.core.records.base import Cause, to_json
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.model import ModelVersion
from mulle.core.settings import load_settings
from mulle.loop.views.lineage import explain_view
from mulle.surfaces.cli.render import explained

TASKS = {"value": "regression", "late": "binary", "length": "multiclass"}


def making() -> Any:
    """The maker of real bundles that the registry's tests use."""
    path = Path(__file__).parents[2] / "lifecycle" / "registry" / "making.py"
    spec = importlib.util.spec_from_file_location("making", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["making"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Shop:
    folder: Path
    server: Server
    rows: Any


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Three real models of a project, deployed and served."""
    folder = tmp_path_factory.mktemp("shop")
    maker = making()
    made = {name: maker.make(_made(folder, name), task=task) for name, task in TASKS.items()}
    declared = "\n".join(
        f'{n} = ml.Model("{n}", features=flight_features, target="air_time", task="{t}")' for n, t in TASKS.items()
    )
    (folder / "project.py").write_text(maker.PROJECT + declared)
    (folder / "ours.py").write_text((folder / "value" / "project" / "ours.py").read_text())
    parts = wire(load_settings({"project": folder}, {}))
    why = (Cause(type="person", id="ada", why="asked"),)
    for name, one in [*made.items(), ("value/UA", made["value"])]:
        hashed, address = one.write()
        contract = one.contract
        parts.metadata.models.add(
            ModelVersion(
                id=f"v-{name}", created_at=contract.refit_cutoff, causes=why, model=name, version=1, run=f"run-{name}",
                bundle=hashed, address=str(address), compiled="onnx", parity=one.proved().parity, metrics={}, size_bytes=1,
                features=tuple(s.name for s in contract.features), data=contract.data, data_cutoff=contract.data_cutoff,
                refit_cutoff=contract.refit_cutoff,
            )
        )  # fmt: skip
        parts.metadata.deployments.add(
            Deployment(
                id=f"d-{name}", created_at=contract.refit_cutoff, causes=why, model=name, action="deploy",
                effective_at=contract.refit_cutoff, by="ada", from_version=None, to_version=1,
                routes=(Route(version=1, share=1.0, mode="champion"),),
            )
        )  # fmt: skip
        route(parts.settings.home, version(1, (hashed, address)), model=name)
    parts.online.close()
    with Server(parts.settings.home, {"deadline": "20s"}) as server:
        yield Shop(folder, server, made["value"].joined.head(20))


def _made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def ask(shop: Shop, model: str, query: str = "", rows: Any = None) -> Any:
    body = {"rows": [to_json(row) for row in (shop.rows if rows is None else rows).to_dicts()]}
    return shop.server.ask("POST", f"/v1/models/{model}/predict{query}", body)


def children(shop: Shop) -> list[psutil.Process]:
    assert shop.server.process is not None
    return psutil.Process(shop.server.process.pid).children(recursive=True)


@pytest.mark.parametrize("model", TASKS)
def test_contributions_and_base_add_up_to_what_they_explain(shop: Shop, model: str) -> None:
    import math

    plain = ask(shop, model).json["predictions"]
    assert "contributions" not in plain[0]
    answer = ask(shop, model, "?explain=true")
    assert answer.status == 200, answer.body
    for said, before in zip(answer.json["predictions"], plain, strict=True):
        assert said["value"] == before["value"]
        assert set(said["contributions"]) == {"carrier", "distance", "hour", "at", "half"}
        total = sum(said["contributions"].values()) + said["base"]
        if model == "value":
            assert (said["explains"], total) == ("value", pytest.approx(said["value"], rel=1e-4))
            continue
        logs = {name: math.log(p) for name, p in said["probabilities"].items()}
        mine = logs.pop(said["value"])
        others = list(logs.values())
        margin = mine - others[0] if len(others) == 1 else mine - (mine + sum(others)) / (1 + len(others))
        assert (said["explains"], total) == ("margin", pytest.approx(margin, abs=2e-3))


def test_the_lean_process_explains_nothing_itself(shop: Shop) -> None:
    assert ask(shop, "value", "?explain=true").status == 200
    (child,) = children(shop)
    assert shop.server.process is not None
    mapped = {m.path for m in psutil.Process(shop.server.process.pid).memory_maps()}
    assert not [path for path in mapped if "lightgbm" in path or "sklearn" in path or "/onnx/" in path]
    child.kill()
    assert ask(shop, "value").status == 200, "answers need no child"
    # Who asks in the moment of its death is told so; the next one has a new child.
    end, status = time.monotonic() + 60, 503
    while status == 503 and time.monotonic() < end:
        status = ask(shop, "value", "?explain=true").status
    assert status == 200, "a new child came"


def test_too_many_rows_are_refused_before_anything_is_answered(shop: Shop) -> None:
    import polars as pl

    many = pl.concat([shop.rows] * 6)
    assert ask(shop, "value", "?explain=true", many).status == 413
    assert ask(shop, "value", "", many).status == 200


def test_a_wish_that_is_neither_true_nor_false_is_not_passed_over(shop: Shop) -> None:
    refused = ask(shop, "value", "?explain=maybe")
    assert (refused.status, refused.json["detail"]) == (400, "explain is 'maybe'")
    assert "contributions" not in ask(shop, "value", "?explain=false").json["predictions"][0]


@pytest.mark.parametrize("model", TASKS)
def test_a_notebook_gives_the_servers_answers_and_explanations(shop: Shop, model: str) -> None:
    served = ask(shop, model, "?explain=true").json["predictions"]
    found = ml.load(f"{model}@champion", path=shop.folder).predict(shop.rows, explain=True)
    for here, there in zip(found.to_dicts(), served, strict=True):
        assert here["value"] == there["value"]
        assert json.loads(here["probabilities"]) == pytest.approx(there.get("probabilities", {}))
        assert json.loads(here["contributions"]) == pytest.approx(there["contributions"])
        assert (here["base"], here["explains"], here["by"]) == (pytest.approx(there["base"]), there["explains"], there["by"])
        assert here["version"] == there["version"]


def test_a_notebooks_frame_may_have_times_as_text(shop: Shop) -> None:
    model = ml.load("value@champion", path=shop.folder)
    told = shop.rows.with_columns(cs.temporal().dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert told.schema != shop.rows.schema
    assert model.predict(told)["value"].to_list() == model.predict(shop.rows)["value"].to_list()
    column = next(name for name in told.columns if told.schema[name] != shop.rows.schema[name])
    with pytest.raises(ContractError, match=f"row 1: {column} is 'soon'") as refused:
        model.predict(told.with_columns(pl.Series(column, [told[column][0], "soon", *told[column][2:]])))
    assert refused.value.facts["field"] == column


def test_a_fleets_member_is_loaded_by_its_name(shop: Shop) -> None:
    served = ask(shop, "value").json["predictions"]
    member = ml.load("value/UA", path=shop.folder)
    assert (member.version.model, member.version.version) == ("value/UA", 1)
    assert member.predict(shop.rows)["value"].to_list() == [p["value"] for p in served]


def test_an_answer_given_a_moment_ago_is_explained_by_its_id(shop: Shop) -> None:
    said = ask(shop, "length", "?explain=true").json["predictions"][0]
    parts = wire(load_settings({"project": shop.folder}, {}))
    try:
        view = explain_view(parts, said["id"], contributions=True)
    finally:
        parts.online.close()
    assert view["prediction"]["value"] == said["value"]
    assert view["contributions"] == pytest.approx(said["contributions"], abs=1e-4)
    assert view["explains"] == "margin"


def test_a_refusal_is_explained_by_the_id_that_the_client_was_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    refused = ask(shop, "value", rows=shop.rows.drop("distance"))
    assert refused.status == 422
    parts = wire(load_settings({"project": shop.folder}, {}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            view = explain_view(parts, refused.json["request_id"])
    finally:
        parts.online.close()
    Console(width=120).print(*explained(view))
    shown = capsys.readouterr().out
    assert "none, refused: schema (distance)" in shown
    assert "None" not in shown


def test_a_bundle_of_the_first_layout_is_explained(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    route(home, version(1, bundle(tmp_path / "b", offset=1.0)))
    with Server(home, {"deadline": "20s"}) as server:
        row = {"id": 1, "at": "2013-03-01T10:00:00Z", "size": 4.0, "kind": "a"}
        said = server.ask("POST", "/v1/models/trip/predict?explain=true", {"rows": [row]}).json["predictions"][0]
    assert said["value"] == 5.0
    assert said["contributions"] == {"size": 4.0, "kind": 0.0}
    assert (said["base"], said["by"]) == (1.0, "permutation")
