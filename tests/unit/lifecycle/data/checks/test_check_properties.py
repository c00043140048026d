"""Every kind of check counts what a row-by-row reading in plain Python counts, and samples the first of those rows."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulle.core.clock import instant
from mulle.core.declare.checks import (
    between,
    foreign_key,
    fresh,
    holds,
    increasing,
    matches,
    no_duplicates,
    not_null,
    one_of,
    passes,
    rows,
    sql,
    unique,
)  # fmt: skip
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files
from mulle.lifecycle.data.checks.check import SAMPLES, Beside, check_batch

NOW = instant("2013-01-02")
Row = dict[str, Any]
TIME, LIST = pl.Datetime("us", "UTC"), pl.List(pl.Int64)
SCHEMA = {"id": pl.Int64, "x": pl.Float64, "code": pl.String, "group": pl.String, "at": TIME, "many": LIST}

a_row = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(0, 6),
        "x": st.none() | st.sampled_from([0.0, -0.0, 1.5, 2.0, math.nan, math.inf, -math.inf]),
        "code": st.none() | st.sampled_from(["A", "B1", "b", "", "é"]),
        "group": st.sampled_from(["g", "h"]),
        "at": st.none() | st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours)),
        "many": st.none() | st.lists(st.integers(0, 1), max_size=1),
    }
)
some_rows = st.lists(a_row, max_size=40)
refs = Dataset("refs", Files("r"), key="code")
pairs = Dataset("pairs", Files("p"), key=["id", "code"])
REFERENCES = [{"id": i, "code": c} for i in range(3) for c in ("A", "b")]


def plain(value: Any) -> Any:
    """Values as checks see them: one NaN, one zero."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return tuple(value) if isinstance(value, list) else value


def nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def doubled(given: list[Row], *columns: str) -> list[bool]:
    values = [tuple(plain(r[c]) for c in columns) for r in given]
    counts = Counter(values)
    return [None not in v and counts[v] > 1 for v in values]


def descends(given: list[Row], column: str, by: str | None, strictly: bool) -> list[bool]:
    last: dict[Any, Any] = {}
    found = []
    for row in given:
        group, value = row[by] if by else None, row[column]
        known = value is not None and not nan(value)
        before = last.get(group)
        found.append(known and before is not None and (value <= before if strictly else value < before))
        if known:
            last[group] = value
    return found


def twins(given: list[Row]) -> list[bool]:
    values = [tuple(plain(r[c]) for c in SCHEMA) for r in given]
    counts = Counter(values)
    return [counts[v] > 1 for v in values]


def each(test: Callable[[Row], bool]) -> Callable[[list[Row]], list[bool]]:
    return lambda given: [test(r) for r in given]


def absent(row: Row, *columns: str) -> bool:
    return None not in [row[c] for c in columns] and not any(all(row[c] == f[c] for c in columns) for f in REFERENCES)


def unlike(pattern: str) -> Callable[[Row], bool]:
    return lambda row: row["code"] is not None and not re.search(pattern, row["code"])


def below(low: Any, high: Any) -> bool:
    return nan(high) or bool(low < high)  # NaN is above every number


def outside(value: Any, low: Any, high: Any) -> bool:
    return value is not None and not low <= value <= high


KINDS: dict[str, tuple[Any, Callable[[list[Row]], list[bool]]]] = {
    "not_null": (not_null("x"), each(lambda r: r["x"] is None or nan(r["x"]))),
    "not_null text": (not_null("code"), each(lambda r: r["code"] is None)),
    "between": (between("x", 0, 2), each(lambda r: outside(r["x"], 0, 2))),
    "between infinite": (between("x", 0, math.inf), each(lambda r: outside(r["x"], 0, math.inf))),
    "between whole numbers": (between("id", 0.5, 4), each(lambda r: outside(r["id"], 0.5, 4))),
    "between days": (
        between("at", "2013-01-02", "2013-01-02"), each(lambda r: r["at"] is not None and r["at"].date() != NOW.date()),
    ),
    "between instants": (
        between("at", NOW, NOW + timedelta(hours=1)), each(lambda r: outside(r["at"], NOW, NOW + timedelta(hours=1))),
    ),
    "matches": (matches("code", r"^[A-Z]\d?$"), each(unlike(r"^[A-Z]\d?$"))),
    "one_of": (one_of("code", ["A", "b"]), each(lambda r: r["code"] is not None and r["code"] not in ("A", "b"))),
    "one_of numbers": (one_of("x", [1.5, 0]), each(lambda r: r["x"] is not None and r["x"] not in (1.5, 0))),
    "one_of dataset": (one_of("code", refs), each(lambda r: absent(r, "code"))),
    "foreign_key": (foreign_key("id", pairs, to="id"), each(lambda r: absent(r, "id"))),
    "foreign_key composite": (foreign_key(["id", "code"], pairs), each(lambda r: absent(r, "id", "code"))),
    "holds": (holds(pl.col("id") < pl.col("x")), each(lambda r: None not in (r["id"], r["x"]) and not below(r["id"], r["x"]))),
    "holds sql": (holds("id > 2 or code = 'A'"), each(lambda r: r["code"] not in (None, "A") and r["id"] in (0, 1, 2))),
    "unique": (unique("id"), lambda given: doubled(given, "id")),
    "unique floats": (unique("x"), lambda given: doubled(given, "x")),
    "unique together": (unique("id", "code"), lambda given: doubled(given, "id", "code")),
    "unique lists": (unique("many", "at"), lambda given: doubled(given, "many", "at")),
    "no_duplicates": (no_duplicates(), twins),
    "increasing": (increasing("at"), lambda given: descends(given, "at", None, False)),
    "increasing in groups": (increasing("x", by="group", strictly=True), lambda given: descends(given, "x", "group", True)),
    "fresh": (fresh("at", "10h"), each(lambda r: r["at"] is not None and r["at"] > NOW)),
    "sql": (sql("select * from d where id > 2"), each(lambda r: r["id"] is not None and r["id"] > 2)),
    "passes": (passes(lambda rows: rows["id"] <= 2), each(lambda r: r["id"] is not None and r["id"] > 2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(data=some_rows)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_and_samples_are_those_of_a_reading_row_by_row(kind: str, data: list[Row]) -> None:
    check, reading = KINDS[kind]
    frame = pl.DataFrame(data, schema=SCHEMA)
    beside = Beside(references=dict.fromkeys(("refs", "pairs"), pl.LazyFrame(REFERENCES)))
    result = check_batch(Dataset("d", Files("d"), checks=check), frame.lazy(), beside, now=NOW)[1]
    bad = [row for row, failing in zip(frame.with_row_index("n").to_dicts(), reading(data), strict=True) if failing]
    if result.detail != "no value":
        assert (result.failed, result.rows) == (len(bad), len(data)), result.detail
        assert (result.verdict == "fail") == bool(bad)
    again = check_batch(Dataset("d", Files("d"), checks=check), frame.with_row_index("n").lazy(), beside, now=NOW)[1]
    if kind != "no_duplicates":
        assert [s["n"] for s in again.samples] == [row["n"] for row in bad[:SAMPLES]]


KEYS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from("abcd") | st.none()), max_size=8)


@given(before=KEYS, batch=KEYS, identity=st.sampled_from([(), ("key",), ("key", "time")]))
@settings(max_examples=150, deadline=None)
def test_uniqueness_is_that_of_the_table_after_publishing(before: Any, batch: Any, identity: tuple[str, ...]) -> None:
    columns = ["key", "time", "mail"]
    named = {"key": identity[:1] or None, "time": "time" if len(identity) > 1 else None}
    dataset = Dataset("d", Files("d"), checks=[unique("mail"), rows(at_least=0, of="table")], **named)  # type: ignore[arg-type]
    who = [columns.index(c) for c in identity]
    old = list({tuple(r[i] for i in who) if who else n: r for n, r in enumerate(before)}.values())
    new = {tuple(r[i] for i in who) for r in batch} if who else set()
    stays = [r for r in old if not who or tuple(r[i] for i in who) not in new]
    mails = Counter(r[2] for r in batch)
    bad = sum(r[2] is not None and (mails[r[2]] > 1 or any(s[2] == r[2] for s in stays)) for r in batch)
    schema = {"key": pl.Int64, "time": pl.Int64, "mail": pl.String}
    frames = [pl.DataFrame(rs, schema=schema, orient="row") for rs in (old, batch)]
    result = check_batch(dataset, frames[1].lazy(), Beside(published=frames[0].lazy()), now=NOW)
    assert result[1].failed == bad
    assert len(result[1].samples) == bad
    assert result[2].value == len(stays) + (len(new) if who else len(batch))
