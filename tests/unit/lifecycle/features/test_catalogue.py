"""What a feature is: read from the function itself, so that it cannot be out of date."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features, Join, asof, features, history, lookup
from mulle.core.declare.sources import Files
from mulle.core.errors import TransformError
from mulle.lifecycle.features.catalogue import Described, describe

PLANES = Dataset("planes", Files("p.csv"), key="tailnum")
MAKERS = Dataset("makers", Files("m.csv"), key="maker")
WEATHER = Dataset("weather", Files("w.csv"), key="origin", time="observed_at")
pytestmark = pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")

FLIGHTS = Dataset("flights", Files("f.csv"), key="id", time="at", known_at="landed", outcome="air_time")
SCHEMAS = {
    "planes": {"tailnum": "String", "year": "Int64", "maker": "String"},
    "makers": {"maker": "String", "country": "String"},
    "weather": {"origin": "String", "observed_at": "Datetime(us, UTC)", "wind": "Float64"},
    "flights": {
        "id": "Int64", "at": "Datetime(us, UTC)", "landed": "Datetime(us, UTC)", "origin": "String", "dest": "String",
        "tailnum": "String", "distance": "Float64", "late": "Boolean", "air_time": "Float64",
    },
}  # fmt: skip
JOINS: dict[str, Join] = {
    "plane": lookup(PLANES, on="tailnum"),
    "maker": lookup(MAKERS, on={"plane.maker": "maker"}),
    "weather": asof(WEATHER, on="origin", within="3h"),
    "route": history(FLIGHTS, on=["origin", "dest"], window="7d", every="1h", mean=pl.col("air_time").mean(), n=pl.len()),
}

Function = Callable[[pl.LazyFrame], pl.LazyFrame]


def declared(function: Function, **joins: Join) -> Features:
    return features(FLIGHTS, **(joins or JOINS))(function)


def described(function: Function, **joins: Join) -> dict[str, Described]:
    return {d.name: d for d in describe(declared(function, **joins), SCHEMAS)}


def columns(found: Described) -> list[str]:
    return [s.column for s in found.sources]


def shape(rows: pl.LazyFrame) -> pl.LazyFrame:
    rows = rows.with_columns(far=pl.col("distance") * 2)
    return rows.select(
        "distance",
        hour=pl.col("at").dt.hour(),
        age=pl.col("at").dt.year() - pl.col("plane.year"),
        wind="weather.wind",
        country="maker.country",
        mean="route.mean",
        n="route.n",
        far=pl.col("far").log() + pl.col("late"),
        python=pl.col("distance").map_elements(lambda v: v + 1, return_dtype=pl.Float64),
    )


def test_each_feature_names_what_it_reads_and_where_that_comes_from() -> None:
    found = described(shape)
    assert {name: columns(d) for name, d in found.items()} == {
        "distance": ["distance"],
        "hour": ["at"],
        "age": ["at", "plane.year"],
        "wind": ["weather.wind"],
        "country": ["maker.country"],
        "mean": ["route.mean"],
        "n": ["route.n"],
        "far": ["distance", "late"],
        "python": ["distance"],
    }
    reads = {name: [r for s in d.sources for r in s.reads] for name, d in found.items()}
    assert reads["age"] == ["flights.at", "planes.year"]
    assert reads["mean"] == ["flights.air_time"]
    assert reads["n"] == []
    assert found["age"].joins == ("plane",)
    assert found["country"].joins == ("plane", "maker"), "the maker is joined on what the plane brings"
    assert found["distance"].joins == ()
    assert found["hour"].dtype == "Int8"
    assert found["hour"].id == "shape.hour"


def test_a_definition_reads_as_the_expression_it_is() -> None:
    found = described(shape)
    assert found["hour"].definition == 'col("at").dt.hour().alias("hour")'
    assert found["distance"].definition == 'col("distance")'
    assert 'col("distance") * 2' in found["far"].definition
    assert all("0x" not in d.definition and "SCAN" not in d.definition for d in found.values())
    assert Path(found["hour"].file).name == "test_catalogue.py"
    assert Path(found["hour"].file).read_text().splitlines()[found["hour"].line - 1].startswith("def shape")


@pytest.mark.parametrize(
    "function",
    [
        lambda r: r.map_batches(lambda f: f.select(y=pl.col("distance")), schema={"y": pl.Float64}),
        lambda r: r.collect().lazy().select(y=pl.col("distance")),
        lambda r: r.collect().select(y=pl.col("distance")),
    ],
    ids=["maps whole frames", "collects", "gives a frame"],
)
def test_where_it_cannot_be_told_every_column_is_named(function: Function) -> None:
    every = columns(described(function)["y"])
    assert {"distance", "at", "plane.year", "route.mean"} <= set(every)
    assert "air_time" not in every, "outcomes are never read"


def test_what_a_function_reads_while_it_is_written_down_counts_for_each_feature() -> None:
    def peeking(rows: pl.LazyFrame) -> pl.LazyFrame:
        some = rows.select("late").collect().height
        return rows.select(y=pl.col("distance") + some)

    assert columns(described(peeking)["y"]) == ["distance", "late"]


def hashes(function: Function, **joins: Join) -> dict[str, str]:
    return {name: d.hash for name, d in described(function, **joins).items()}


def test_a_hash_changes_with_its_own_feature_and_not_with_its_neighbours() -> None:
    def before(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select(a=pl.col("distance").round(1), b=pl.col("at").dt.hour(), w="weather.wind")

    def after(rows: pl.LazyFrame) -> pl.LazyFrame:
        # The plan's text does not show how far a number is rounded.
        return rows.select(a=pl.col("distance").round(0), b=pl.col("at").dt.hour(), w="weather.wind")

    first, second = hashes(before), hashes(after)
    assert described(before)["a"].definition == described(after)["a"].definition
    assert first["a"] != second["a"]
    assert (first["b"], first["w"]) == (second["b"], second["w"])


def test_a_hash_changes_with_the_join_it_reads_from() -> None:
    def windy(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("distance", w="weather.wind")

    near = hashes(windy, weather=asof(WEATHER, on="origin", within="3h"))
    far = hashes(windy, weather=asof(WEATHER, on="origin", within="6h"))
    assert near["w"] != far["w"]
    assert near["distance"] == far["distance"]


def test_python_code_counts_by_what_it_does() -> None:
    def by(step: int) -> Function:
        return lambda r: r.select(y=pl.col("distance").map_elements(lambda v: v + step, return_dtype=pl.Float64))

    assert hashes(by(1)) != hashes(by(2))
    assert hashes(by(1)) == hashes(by(1))


def test_hashes_are_the_same_in_another_process() -> None:
    code = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from test_catalogue import hashes, shape
    print(sorted(hashes(shape).items()))
    """
    answers = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(Path(__file__).parent)],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "POLARS_MAX_THREADS": "1"},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert answers[0] == answers[1] == f"{sorted(hashes(shape).items())}\n"


def test_a_function_that_fails_is_named() -> None:
    with pytest.raises(TransformError, match="broken failed: ColumnNotFoundError"):
        describe(declared(broken), SCHEMAS)


def broken(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("nowhere")


NUMBERS = ("distance", "plane.year", "weather.wind", "route.mean")
EXPRESSIONS = st.recursive(
    st.sampled_from(NUMBERS).map(lambda name: pl.col(name)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1] * 2),
        st.tuples(inner, inner).map(lambda p: pl.when(p[0] > 1).then(p[1])),
        st.tuples(inner, inner).map(lambda p: pl.max_horizontal(*p)),
        inner.map(lambda e: e.fill_null(0).round(1)),
        inner.map(lambda e: e.is_between(1, 2).cast(pl.Float64)),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EXPRESSIONS, min_size=1, max_size=4))
def test_sources_are_exactly_the_columns_an_expression_names(expressions: list[pl.Expr]) -> None:
    made = {f"f{i}": e for i, e in enumerate(expressions)}
    found = described(lambda r: r.with_columns(**made).select(*made))
    for name, expression in made.items():
        assert set(columns(found[name])) == set(expression.meta.root_names())
