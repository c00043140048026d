"""The words for checks: what they refuse to declare, and names that stay."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

import mulle as ml
from mulle.core.errors import DeclarationError

planes = ml.Dataset("planes", ml.Files("p.csv"), key="tailnum")
legs = ml.Dataset("legs", ml.Files("l.csv"), key=["origin", "dest"])
nameless = ml.Dataset("nameless", ml.Files("n.csv"))


def accept(rows: pl.DataFrame) -> bool:
    return True


@pytest.mark.parametrize(
    "declare",
    [
        lambda: ml.rows(),
        lambda: ml.rows(at_least=5, at_most=4),
        lambda: ml.rows(at_least=1, of="file"),  # type: ignore[arg-type]
        lambda: ml.rows_like_previous(within=-1),
        lambda: ml.rows_like_previous(within=float("nan")),
        lambda: ml.unique(),
        lambda: ml.one_of("x", []),
        lambda: ml.one_of("x", "abc"),
        lambda: ml.one_of("x", nameless),
        lambda: ml.foreign_key("x", nameless),
        lambda: ml.foreign_key("x", legs),
        lambda: ml.foreign_key(["x", "y"], planes),
        lambda: ml.foreign_key([], planes),
        lambda: ml.between("x", 2, 1),
        lambda: ml.between("x", float("nan"), 1),
        lambda: ml.between("x", "2013-02-01", "2013-01-01"),
        lambda: ml.between("x", "2013-01-01", datetime(2013, 2, 1)),
        lambda: ml.between("x", 0, "2013-01-01"),
        lambda: ml.between("x", "soon", "later"),
        lambda: ml.fresh("x", "soon"),
        lambda: ml.same_distribution("x", psi=0),
        lambda: ml.passes("accept"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused_with_a_next_step(declare: Any) -> None:
    with pytest.raises(DeclarationError) as refused:
        declare()
    assert refused.value.next


@pytest.mark.parametrize(
    ("checks", "names"),
    [
        (ml.rows(at_least=1), ["rows"]),
        (ml.rows(at_least=1, of="table"), ["rows(table)"]),
        (ml.not_null("a", "b"), ["not_null(a)", "not_null(b)"]),
        (ml.foreign_key(["a", "b"], legs), ["foreign_key(a, b -> legs)"]),
        (ml.increasing("a", by=["b", "c"]), ["increasing(a by b, c)"]),
        (ml.holds(pl.col("a") > 1, name="a is large"), ["a is large"]),
        (ml.holds("a  >\n 1"), ["holds(a > 1)"]),
        (ml.passes(accept), ["passes(accept)"]),
        (ml.passes(accept, name="accepted"), ["accepted"]),
    ],
)
def test_names_say_what_is_checked(checks: Any, names: list[str]) -> None:
    assert [c.name for c in checks] == names


def test_names_stay_when_bounds_change() -> None:
    assert ml.between("x", 0, 1)[0].name == ml.between("x", 0, 2)[0].name
    assert ml.fresh("x", "1h")[0].name == ml.fresh("x", "2h")[0].name


def test_text_bounds_are_dates_or_instants() -> None:
    assert ml.between("x", "2013-01-01", date(2013, 1, 2))[0].high == date(2013, 1, 2)
    assert ml.between("x", "2013-01-01T01:00:00+01:00", "2013-01-02 00:00")[0].low == datetime(2013, 1, 1, tzinfo=UTC)


def test_values_may_come_in_any_collection() -> None:
    given: list[Any] = [["a"], ("a",), {"a"}, pl.Series(["a"]), {"a": 1}]
    assert {ml.one_of("x", values)[0].values for values in given} == {("a",)}


def test_a_foreign_key_looks_for_the_key_unless_told() -> None:
    assert ml.foreign_key(["a", "b"], legs)[0].to == ("origin", "dest")
    assert ml.foreign_key("a", legs, to="dest")[0].to == ("dest",)


def test_a_dataset_takes_checks_of_every_kind_and_travels_between_processes() -> None:
    checks = [
        ml.rows(at_least=1), ml.rows_like_previous(), ml.rows_as_source(), ml.one_of("a", planes), ml.matches("a", "^N"),
        ml.unique("a"), ml.not_null("a"), ml.between("b", 0, 1), ml.foreign_key("a", planes), ml.holds("a <> 'x'"),
        ml.holds(pl.col("b") > 0), ml.increasing("b"), ml.fresh("at", "2h"), ml.no_duplicates(), ml.same_distribution("b"),
        ml.sql("select 1 where false"), ml.passes(accept),
    ]  # fmt: skip
    dataset = ml.Dataset("d", ml.Files("d.csv"), checks=checks)
    again = pickle.loads(pickle.dumps(dataset))
    assert [c.name for c in again.checks] == [c.name for c in dataset.checks]
    assert {c.severity for c in again.checks} == {"fail"}
    assert again == dataset
