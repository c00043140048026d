"""Declarations: defaults, and mistakes that are refused where they are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import mulle as ml
from mulle.core.declare.project import collect
from mulle.core.errors import DeclarationError, NotFound

rows = ml.Dataset("rows", ml.Files("r.csv"), key="id", time="at", known_at="done", outcome="y")
table = ml.Dataset("table", ml.Files("t.csv"), key="id")


@ml.features(rows, t=ml.lookup(table, on="id"))
def some(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.select("x")


def test_a_short_model_is_complete() -> None:
    model = ml.Model("x", features=some, target="y", task="binary")
    assert model.split.span is not None
    assert {c.kind for c in model.search.candidates} == {"dummy", "logistic", "lightgbm", "random_forest"}
    assert [type(g).__name__ for g in model.gates] == ["NoWorseThanChampion", "ParityGate", "P99"]
    assert model.rollout.steps == (0.05, 0.25, 1.0)
    assert model.hidden == ("y", "done")


def test_a_table_without_time_is_split_at_random() -> None:
    @ml.features(table)
    def plain(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame

    assert ml.Model("x", features=plain, target="y", task="regression").split.span is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ml.Dataset("a/b", ml.Files("x")), "refused"),
        (lambda: ml.Dataset("a", ml.Files("x"), known_at="k"), "known_at without time"),
        (lambda: ml.Model("x", features=some, target="y", task="ranking"), "unknown task"),
        (lambda: ml.Model("x", features=some, target="id", task="binary"), "key or time"),
        (lambda: ml.Model("x", features=lambda r: r, target="y", task="binary"), "features is a function"),
        (lambda: ml.asof(table, on="id", within="3h"), "declares no time"),
        (lambda: ml.history(rows, on="id", window="1d", every="1h"), "no value"),
        (lambda: ml.lookup(table, on=["id", "x"]), "has the key"),
        (lambda: ml.canary(50, 20, 100), "must rise"),
        (lambda: ml.canary(5, 50), "must rise"),
        (lambda: ml.Retrain(on=["boredom"]), "unknown cause"),
        (lambda: ml.Retrain(cron="daily"), "five fields"),
        (lambda: ml.between("x", 3, 1), "low is above high"),
        (lambda: ml.unique(), "names no column"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_at_once(make: object, said: str) -> None:
    with pytest.raises(DeclarationError, match=said) as error:
        make()  # type: ignore[operator]
    assert error.value.next


def test_a_project_finds_datasets_that_only_joins_name() -> None:
    project = collect({"m": ml.Model("x", features=some, target="y", task="binary")}, Path("."), "code")
    assert set(project.datasets) == {"rows", "table"}
    with pytest.raises(NotFound, match="no model 'y'"):
        project.model("y")


def test_two_datasets_of_one_name_are_refused() -> None:
    other = ml.Dataset("rows", ml.Files("other.csv"))
    with pytest.raises(DeclarationError, match="two datasets"):
        collect({"a": rows, "b": other}, Path("."), "code")


def test_how_a_search_goes_about_it_is_declared_and_plain_by_default() -> None:
    plain = ml.Search()
    assert (plain.validation, plain.parallel, plain.trial_timeout, plain.memory, plain.prune) == (None, 1, None, None, False)
    search = ml.Search(validation=ml.sliding("90d", folds=4), parallel=2, trial_timeout="5s", memory="1.5GB", prune=True)
    model = ml.Model("x", features=some, target="y", task="binary", search=search)
    told = model.search
    assert told.candidates, "what is not said has its default beside what is"
    assert (told.parallel, told.memory, told.prune) == (2, 1_500_000_000, True)
    assert told.validation is not None
    assert (told.validation.kind, told.validation.folds) == ("sliding", 4)
    assert ml.groups(["customer", "shop"]).by == ("customer", "shop")


def test_what_is_trained_on_is_one_window_or_several() -> None:
    def labels(**more: object) -> list[str]:
        model = ml.Model("x", features=some, target="y", task="binary", **more)  # type: ignore[arg-type]
        return [w.label for w in model.train_on]

    assert labels() == ["all"]
    assert labels(train_on=ml.window("180d")) == ["180d"]
    assert labels(train_on=["all", ml.window("180d"), ml.window("30d"), "all"]) == ["all", "180d", "30d"]


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: ml.Search(trials=0), "trials=0"),
        (lambda: ml.Search(parallel=0), "parallel=0"),
        (lambda: ml.Search(memory="2 gigs"), "'2 gigs' cannot be read"),
        (lambda: ml.Search(validation="kfold"), "validation is a str"),  # type: ignore[arg-type]
        (lambda: ml.Search([ml.ridge(), ml.lightgbm(), ml.ridge()]), "the candidate ridge stands twice"),
        (lambda: ml.Search(["ridge"]), "the candidate 'ridge' is none"),  # type: ignore[list-item]
        (lambda: ml.Search([ml.ridge]), "the candidate <function ridge"),  # type: ignore[list-item]
        (lambda: ml.kfold(1), "folds=1"),
        (lambda: ml.holdout(1.5), "a holdout of 1.5"),
        (lambda: ml.holdout("14d", by="customer"), "by time or by group"),
        (lambda: ml.Model("x", features=some, target="y", task="regression", calibrate=True), "no probabilities to calibrate"),
        (lambda: ml.Model("x", features=some, target="y", task="binary", train_on="180d"), "train_on=.180d"),
        (lambda: ml.Model("x", features=some, target="y", task="binary", train_on=[]), "train_on"),
    ],
)
def test_what_a_search_cannot_be_is_refused_where_it_is_written(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(DeclarationError, match=said) as caught:
        declare()
    assert caught.value.next


def test_windows_and_folds_by_time_need_a_time() -> None:
    @ml.features(table)
    def plain(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame

    for more in ({"train_on": ml.window("9d")}, {"search": ml.Search(validation=ml.expanding())}):
        with pytest.raises(DeclarationError, match="is by time, and table declares none"):
            ml.Model("x", features=plain, target="y", task="regression", **more)  # type: ignore[arg-type]
