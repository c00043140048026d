"""Proposed checks are Python that evaluates, and they hold on the rows they were made from."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mulle as ml
from mulle.core.clock import instant
from mulle.core.declare.dataset import Dataset
from mulle.core.records.base import to_json
from mulle.core.records.dataset import verdict_of
from mulle.lifecycle.data.checks.check import Beside, check_batch
from mulle.lifecycle.data.checks.shapes import range_of, shapes_of
from mulle.lifecycle.data.checks.suggest import Suggestion, suggest
from mulle.lifecycle.data.checks.words import literal

NOW = instant("2013-01-02")


def pasted(text: str) -> Any:
    return eval(f"dict({text})", {"ml": ml})["checks"]


def check(dataset: Dataset, frame: pl.DataFrame, found: Suggestion) -> None:
    """The text, evaluated and checked on the rows it was made from, passes."""
    again = ml.Dataset(
        dataset.name, dataset.source, key=dataset.key, time=dataset.time, known_at=dataset.known_at, checks=pasted(found.text)
    )
    results = check_batch(again, frame.lazy(), Beside(), now=NOW)[1:]
    assert verdict_of(results) == "pass", [r for r in results if r.verdict != "pass"]
    assert len(results) >= len(found.proposals)
    assert json.loads(json.dumps(to_json(found)))["rows"] == frame.height


texts = st.text(max_size=6) | st.sampled_from(["N1", "AA", 'a"b', "c\\d", "e'", "\n", "\\", "ü-1", "{x}"])
SERIES = [
    st.tuples(st.just(pl.Int64), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)),
    st.tuples(st.just(pl.UInt8), st.integers(0, 255)),
    st.tuples(st.just(pl.Float64), st.floats()),
    st.tuples(st.just(pl.Float64), st.floats(-1e6, 1e6, width=32)),
    st.tuples(st.just(pl.String), texts),
    st.tuples(st.just(pl.Boolean), st.booleans()),
    st.tuples(st.just(pl.Date), st.dates()),
    st.tuples(st.just(pl.Datetime("us", "UTC")), st.datetimes().map(instant)),
    st.tuples(st.just(pl.List(pl.Int64)), st.lists(st.integers(0, 3), max_size=2)),
]


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    height = draw(st.sampled_from([0, 1, 5, 40]))
    columns = {}
    for i in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from([0, 1, 2, 3, 4, 4, 5, 6, 7, 8]))
        kind = {0: pl.Int64, 1: pl.UInt8, 2: pl.Float64, 3: pl.Float64, 4: pl.String, 5: pl.Boolean, 6: pl.Date}.get(
            dtype, pl.Datetime("us", "UTC") if dtype == 7 else pl.List(pl.Int64)
        )
        values = SERIES[dtype].map(lambda pair: pair[1])
        pool = draw(st.lists(values | st.none(), min_size=1, max_size=height or 1))
        columns[draw(st.sampled_from(["a", 'b"', "c d", "é"])) + str(i)] = pl.Series(
            [pool[n % len(pool)] for n in range(height)], dtype=kind
        )
    return pl.DataFrame(columns)


@given(frame=frames(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_proposals_evaluate_and_hold(frame: pl.DataFrame, data: st.DataObject) -> None:
    names = frame.columns
    key = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    moments = [n for n in names if isinstance(frame.schema[n], pl.Datetime)]
    time = data.draw(st.sampled_from([None, *moments]))
    known = data.draw(st.sampled_from([None, *moments])) if time else None
    dataset = ml.Dataset("d", ml.Files("d"), key=key, time=time, known_at=known)
    check(dataset, frame, suggest(dataset, frame.lazy(), now=NOW))


def flights(rows: int) -> pl.DataFrame:
    at = [instant("2013-01-01") + timedelta(minutes=i) for i in range(rows)]
    return pl.DataFrame(
        {
            "flight_id": [f"UA{1000 + i}-2013" for i in range(rows)],
            "carrier": ["UA", "AA", "B6"] * (rows // 3),
            "tailnum": [f"N{100 + i % 300 * 7}{'ABC'[i % 3]}A" if i % 50 else None for i in range(rows)],
            "distance": [200 + i % 100 * 43 for i in range(rows)],
            "speed": [float(i % 97) / 100 for i in range(rows)],
            "temperature": [float("nan") if i == 3 else float(i % 30) - 10 for i in range(rows)],
            "month": [1 + i % 12 for i in range(rows)],
            "scheduled_at": at,
            "landed_at": [t + timedelta(hours=2) for t in at],
            "_batch": [f"b{i // 240}" for i in range(rows)],
        }
    )


def test_a_realistic_table_gets_what_an_engineer_would_write() -> None:
    frame = flights(1200)
    dataset = ml.Dataset("flights", ml.Files("f"), key="flight_id", time="scheduled_at", known_at="landed_at")
    found = suggest(dataset, frame.lazy(), now=instant("2013-01-01T22:00:00Z"))
    check(dataset, frame.filter(pl.lit(True)), suggest(dataset, frame.lazy()))
    codes = [p.code for p in found.proposals]
    assert codes == [
        "ml.rows(at_least=100)",
        'ml.unique("flight_id", "scheduled_at")',
        'ml.unique("flight_id")',
        'ml.not_null("flight_id", "carrier", "distance", "speed", "month", "scheduled_at", "landed_at")',
        'ml.increasing("scheduled_at")',
        'ml.holds(\'"scheduled_at" <= "landed_at"\')',
        'ml.fresh("scheduled_at", "6h")',
        'ml.matches("flight_id", r"^UA[0-9]{4}\\-2013$")',
        'ml.one_of("carrier", ["AA", "B6", "UA"])',
        'ml.matches("tailnum", "^N[0-9]+[A-Z]{2}$")',
        'ml.between("distance", 0, 4900)',
        'ml.between("speed", 0, 1.06)',
        'ml.one_of("month", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])',
    ]
    assert all("\n" not in p.why and p.why for p in found.proposals)


def test_what_does_not_hold_is_not_proposed() -> None:
    frame = pl.DataFrame({"id": [*range(50), 0], "at": [NOW, *[NOW - timedelta(hours=1)] * 50]})
    codes = [p.code for p in suggest(ml.Dataset("d", ml.Files("d"), key="id", time="at"), frame.lazy()).proposals]
    assert not any(c.startswith(("ml.increasing", "ml.fresh", 'ml.unique("id")')) for c in codes)


def test_one_batch_tells_nothing_of_the_next_ones_size() -> None:
    for rows, code in ((360, "ml.rows(at_least=1)"), (720, "ml.rows(at_least=100)")):
        assert suggest(ml.Dataset("d", ml.Files("d")), flights(rows).lazy()).proposals[0].code == code


def test_order_is_looked_for_within_batches() -> None:
    frame = flights(720).sort("_batch", descending=True, maintain_order=True)
    dataset = ml.Dataset("d", ml.Files("d"), key="flight_id", time="scheduled_at")
    assert 'ml.increasing("scheduled_at")' in [p.code for p in suggest(dataset, frame.lazy()).proposals]
    assert "increasing" not in suggest(dataset, frame.drop("_batch").lazy()).text


def test_no_rows_propose_nothing_that_needs_rows() -> None:
    found = suggest(ml.Dataset("d", ml.Files("d"), key="id"), flights(12).clear().lazy())
    assert not any("one_of" in p.code or "between" in p.code or "matches" in p.code for p in found.proposals)


@given(low=st.integers(-(10**15), 10**15), span=st.integers(0, 10**15))
def test_ranges_of_whole_numbers_hold_both_ends_and_stay_whole(low: int, span: int) -> None:
    near, far = range_of(low, low + span)
    assert isinstance(near, int)
    assert isinstance(far, int)
    assert near <= low
    assert far >= low + span
    assert far - near <= 1.5 * span + 2 * abs(low) + 4


@given(ends=st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)))
def test_ranges_hold_both_ends_where_numbers_can_tell(ends: tuple[float, float]) -> None:
    low, high = min(ends), max(ends)
    near, far = range_of(low, high)
    assert math.isfinite(near)
    assert near <= low or math.isclose(near, low, rel_tol=1e-9, abs_tol=1e-300)
    assert far >= high or math.isclose(far, high, rel_tol=1e-9, abs_tol=1e-300)


@given(value=st.recursive(st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False), st.lists))
def test_literals_mean_what_they_were_made_from(value: object) -> None:
    assert eval(literal(value), {"inf": math.inf}) == value


@given(found=st.lists(st.from_regex(r"\A[A-Z]{1,2}[0-9]{3}[-/. ][a-z]\Z"), min_size=10, unique=True))
def test_patterns_match_every_text(found: list[str]) -> None:
    patterns = shapes_of(found)
    assert patterns
    assert all(pl.Series(found).str.contains(p).all() for p in patterns)


@pytest.mark.parametrize("found", [["line\n" + str(i) for i in range(20)], ["a" * i + "!?;:,.#+" for i in range(20)], []])
def test_texts_of_no_shape_get_no_pattern(found: list[str]) -> None:
    assert shapes_of(found) == []


def test_a_column_of_decimals_gets_its_range() -> None:
    rows = pl.LazyFrame({"price": pl.Series(["1.50", "2.25", None, "99.99"] * 50).cast(pl.Decimal(10, 2))})
    text = suggest(ml.Dataset("d", ml.Files("d")), rows).text
    assert 'ml.between("price", 0, 110)' in text
