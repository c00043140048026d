"""A fleet through the real engine: every member trained, gated, released and rolled back by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mulle.bootstrap.parts import wire
from mulle.core.errors import MulleError, Refused
from mulle.core.records.base import Cause
from mulle.core.records.deployment import champion_of
from mulle.core.records.run import Run, run_state
from mulle.core.settings import load_settings
from mulle.kernel.bundle import Predictor
from mulle.kernel.routes import read_routes
from mulle.loop.operate import deploy, rollback, start_wanted
from mulle.loop.parts import Parts
from mulle.loop.runner import run_model
from mulle.loop.views.chain import find_version, history_view, models_view, run_view
from mulle.loop.views.members import members_view

WHY = (Cause(type="person", id="ada", why="asked"),)
OWN = ("a", "b", "c")

PROJECT = """import mulle as ml
sales = ml.Dataset("sales", ml.Files("sales*.parquet"), key="id", outcome="units")
@ml.features(sales)
def shape(rows):
    return rows.select("price", "promo")
demand = ml.Model(
    "demand", features=shape, target="units", task="regression", split=ml.holdout(0.2), each="store",
    search=ml.Search([ml.dummy(), ml.ridge()], trials=3),
    gates=[ml.no_worse_than_champion("mae"), ml.parity(1e-4)], rollout=ml.immediate(),
)
"""


def sold(store: str, slope: float, rows: int, first: int) -> pl.DataFrame:
    dice = np.random.default_rng(first)
    price, promo = dice.normal(10, 2, rows), dice.integers(0, 2, rows)
    units = slope * price + 5 * promo + dice.normal(size=rows) if slope else np.ones(rows)
    return pl.DataFrame({
        "id": np.arange(first, first + rows), "store": [store] * rows, "price": price, "promo": promo, "units": units,
    })  # fmt: skip


def write_project(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "project.py").write_text(PROJECT)
    shops = [*((s, 3.0 * n - 2, 200) for n, s in enumerate(OWN)), ("flat", 0.0, 200), ("tiny", 2.0, 40)]
    rows = [sold(store, slope, height, 1000 * n) for n, (store, slope, height) in enumerate(shops)]
    pl.concat(rows).write_parquet(folder / "sales1.parquet")


def opened(folder: Path) -> Parts:
    return wire(load_settings({"project": folder}, {}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Parts, Run, list[str]]]:
    folder = tmp_path_factory.mktemp("fleet") / "project"
    write_project(folder)
    parts = opened(folder)
    told: list[str] = []
    run = run_model(parts, "demand", causes=WHY, progress=lambda _, stage, state, s: told.append(f"{stage} {state}"))
    yield parts, run, told
    parts.online.close()


def test_one_run_gives_each_member_with_enough_rows_a_version_of_its_own(ran: tuple[Parts, Run, list[str]]) -> None:
    parts, run, told = ran
    view = run_view(parts, run.id)
    assert (view["state"], view["model_version"]) == ("succeeded", 1)
    assert [s["name"] for s in view["stages"]][-2:] == ["roll_out", "members"]
    found = {m.model: m for m in parts.metadata.runs.members(run.id)}
    assert {name: m.outcome for name, m in found.items()} == {
        "demand/a": "trained", "demand/b": "trained", "demand/c": "trained", "demand/flat": "failed", "demand/tiny": "small",
    }  # fmt: skip
    assert "1 on every row" in found["demand/flat"].reason
    assert found["demand/tiny"].reason.endswith("training rows, 100 are wanted")
    for store in OWN:
        member = found[f"demand/{store}"]
        assert member.value is not None
        assert member.shared is not None
        assert member.value <= member.shared
        gates = {g.gate: g for g in parts.metadata.runs.gates(run.id, member.model)}
        assert set(gates) == {"no_worse_than_champion(mae)", "parity", "no_worse_than_shared(mae)"}
        assert gates["no_worse_than_shared(mae)"].bound == pytest.approx(member.shared)
    assert all(g.model == "" for g in parts.metadata.runs.gates(run.id))
    assert "members 4 of 4" in told
    assert view["members"]["outcomes"] == {"trained": 3, "kept": 0, "held_back": 0, "failed": 1, "small": 1}


def test_members_answer_by_what_their_own_rows_say(ran: tuple[Parts, Run, list[str]]) -> None:
    parts, _, _ = ran
    rows = pl.DataFrame({"price": [10.0], "promo": [0]})
    for n, store in enumerate(OWN):
        version = find_version(parts, f"demand/{store}")
        predictor = Predictor.open(Path(version.address), expected=version.bundle)
        assert predictor.contract.model == f"demand/{store}"
        answer = predictor.score(predictor.transform(rows)).values[0]
        assert float(answer) == pytest.approx(10 * (3.0 * n - 2), abs=2)
        predictor.close()


def test_the_routing_table_names_the_column_and_each_member(ran: tuple[Parts, Run, list[str]]) -> None:
    parts, _, _ = ran
    table = read_routes(parts.settings.home / "routes.json")
    assert sorted(table.models) == ["demand", "demand/a", "demand/b", "demand/c"]
    assert table.models["demand"].each == "store"
    assert table.models["demand/a"].each is None


def test_listings_show_the_fleet_as_one_and_its_members_on_demand(ran: tuple[Parts, Run, list[str]]) -> None:
    parts, _, _ = ran
    assert [i["model"] for i in models_view(parts)["items"]] == ["demand"]
    assert models_view(parts, model="demand")["fleet"]["outcomes"]["trained"] == 3
    page = members_view(parts, "demand", limit=2)
    assert page["items"][0]["model"] == "demand/flat"
    rest = members_view(parts, "demand", limit=10, after=page["next"])
    assert len(page["items"]) + len(rest["items"]) == 5
    assert rest["next"] is None


def test_one_member_is_trained_rolled_back_and_deployed_while_the_others_stay(ran: tuple[Parts, Run, list[str]]) -> None:
    parts, _, _ = ran
    others = {s: parts.metadata.deployments.of(f"demand/{s}") for s in ("b", "c")}
    sold("a", 7.0, 300, 9000).write_parquet(parts.settings.project / "sales2.parquet")
    run = run_model(parts, "demand/a", causes=WHY)
    view = run_view(parts, run.id)
    assert (view["model"], view["state"], view["model_version"]) == ("demand", "succeeded", None)
    assert {s["name"] for s in view["stages"] if s["state"] == "skipped"} == {"bundle", "gate", "register", "roll_out"}
    assert [m.model for m in parts.metadata.runs.members(run.id)] == ["demand/a"]
    assert champion(parts, "demand/a") == 2
    assert champion(parts, "demand") == 1
    rollback(parts, "demand/a", by="ada")
    assert champion(parts, "demand/a") == 1
    deploy(parts, "demand/a", 2, by="ada")
    assert champion(parts, "demand/a") == 2
    assert [d["action"] for d in history_view(parts, "demand/a")["items"]] == ["deploy", "rollback", "deploy", "deploy"]
    assert {s: parts.metadata.deployments.of(f"demand/{s}") for s in ("b", "c")} == others
    routed = read_routes(parts.settings.home / "routes.json")
    assert [d.routes[0].version for d in routed.models["demand/a"].deployments][-1] == 2
    with pytest.raises(Refused):
        rollback(parts, "demand/b", by="ada")


def champion(parts: Parts, model: str) -> int | None:
    return champion_of(parts.metadata.deployments.of(model)[-1])


def test_what_a_tick_wants_of_several_members_is_one_run(ran: tuple[Parts, Run, list[str]]) -> None:
    parts, _, _ = ran
    causes = [Cause(type="alert", id=f"a{n}", why="decays") for n in range(3)]
    runs = start_wanted(parts, [("demand/a", causes[0]), ("demand/c", causes[1])])
    assert [(r.model, r.options, len(r.causes)) for r in runs] == [("demand", {"members": ["a", "c"]}, 2)]
    whole = start_wanted(parts, [("demand", causes[2])])
    assert [(r.model, r.options) for r in whole] == [("demand", {})]


def test_a_member_before_its_fleet_has_nothing_to_be_held_to(tmp_path: Path) -> None:
    write_project(tmp_path / "project")
    parts = opened(tmp_path / "project")
    run = run_model(parts, "demand/a", causes=WHY)
    events = parts.metadata.runs.events(run.id)
    assert run_state(events) == "rejected"
    assert "no shared model yet" in str(events[-1].detail)
    with pytest.raises(MulleError):
        run_model(parts, "demand/", causes=WHY)
    parts.online.close()
