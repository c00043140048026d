"""A fleet's declaration: what may cut it, and the members it stands for."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mulle.core.declare.candidates import dummy, lightgbm, random_forest, ridge
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features, features
from mulle.core.declare.fleet import Each, each, fleet_of, key_of, member_name
from mulle.core.declare.gates import NoWorseThanChampion, at_most, no_worse_than_champion
from mulle.core.declare.log import Log
from mulle.core.declare.model import Model
from mulle.core.declare.project import collect
from mulle.core.declare.sources import Files
from mulle.core.declare.training import Search
from mulle.core.errors import DeclarationError, NotFound

sales = Dataset("sales", Files("s.csv"), key="id", time="at", known_at="seen", outcome="units")


@features(sales)
def shape(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("price")


def a_model(by: str | Each | None, **more: object) -> Model:
    assert isinstance(shape, Features)
    return Model("demand", features=shape, target="units", task="regression", each=by, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["units", "seen", "at", "weather.temp"])
def test_a_column_that_no_request_carries_is_refused_when_it_is_declared(column: str) -> None:
    with pytest.raises(DeclarationError, match=column):
        a_model(column)


def test_the_column_that_names_members_cannot_be_kept_out_of_the_log() -> None:
    assert a_model("store", log=Log(redact=["price"])).log.redact == ("price",)
    with pytest.raises(DeclarationError, match="store, whose values name models"):
        a_model("store", log=Log(redact=["store"]))


@pytest.mark.parametrize("wrong", [{"at_least": 19}, {"trials": 1}])
def test_too_little_to_train_with_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(DeclarationError):
        each("store", **wrong)


def test_a_member_is_a_model_by_itself_with_what_its_fleet_declares() -> None:
    fleet = a_model("store", gates=[at_most("mae", 3)])
    member = fleet.member("17")
    assert (member.name, member.each) == ("demand/17", None)
    assert (member.features, member.gates, member.rollout, member.retrain) == (
        fleet.features, fleet.gates, fleet.rollout, fleet.retrain,
    )  # fmt: skip
    assert fleet.name == "demand"


def test_a_member_tries_little_that_costs_little_and_what_won_for_all() -> None:
    search = Search([random_forest(), lightgbm(), ridge(), dummy()], trials=9, parallel=4, memory="1GB", prune=True)
    fleet = a_model(each("store", trials=3), search=search)
    found = fleet.member("17").search
    assert [c.kind for c in found.candidates] == ["dummy", "ridge", "lightgbm"]
    assert (found.trials, found.parallel, found.trial_timeout, found.memory, found.prune) == (3, 1, None, None, False)
    assert [c.kind for c in fleet.member("17", winner="random_forest").search.candidates][-1] == "random_forest"


def test_a_small_member_is_compared_on_as_few_rows_as_it_can_bring() -> None:
    fleet = a_model(each("store", at_least=100), gates=[no_worse_than_champion("mae", margin=0.1, min_rows=500)])
    gate = fleet.member("17").gates[0]
    assert isinstance(gate, NoWorseThanChampion)
    assert (gate.min_rows, gate.margin) == (10, 0.1)
    assert fleet.member("17").monitor.min_rows == 20


def test_a_project_knows_members_by_name() -> None:
    project = collect(
        {"a": a_model("store"), "b": Model("plain", features=shape, target="units", task="regression")}, Path(), "c"
    )
    assert project.model("demand/a/b").name == "demand/a/b"
    for absent in ("plain/17", "demand/", "other/17"):
        with pytest.raises(NotFound):
            project.model(absent)
    assert list(project.models) == ["demand", "plain"]


@pytest.mark.parametrize("key", ["", None, " x", "line\nbreak", "x" * 101])
def test_a_key_that_cannot_be_in_a_name_has_no_member(key: str | None) -> None:
    assert member_name("demand", key) is None


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([1, -20, 2**60]), pl.Series([True, False]), pl.Series([date(2026, 3, 1), date(99, 1, 2)]),
        pl.Series(["a/b", "New York", "ÅÄÖ", "1.0"]), pl.Series(["x", "y z"], dtype=pl.Categorical),
        pl.Series(["u", "v"], dtype=pl.Enum(["u", "v"])),
    ],
    ids=lambda column: str(column.dtype),
)  # fmt: skip
def test_a_request_names_the_member_that_was_cut_from_rows_with_its_value(column: pl.Series) -> None:
    cut = column.cast(pl.String).to_list()
    assert [member_name("demand", value) for value in column.to_list()] == [f"demand/{key}" for key in cut]


def test_names_split_at_the_first_slash() -> None:
    assert (fleet_of("demand/a/b"), key_of("demand/a/b")) == ("demand", "a/b")
    assert member_name("demand", True) == "demand/true"
