"""Declarations: defaults, and mistakes that are refused where they are made."""

from __future__ import annotations

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
