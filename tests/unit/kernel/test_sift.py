"""Sifting takes and refuses what a request's rows would be taken and refused for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.clock import EPOCH, instant
from mulle.core.errors import ContractError
from mulle.core.records.bundle import InputField
from mulle.kernel.rows import frame_from_rows
from mulle.kernel.sift import sift, sift_rows

FIELDS = (
    InputField(name="f", type="FP64", dtype="Float64", required=True),
    InputField(name="i", type="INT64", dtype="Int64", required=True),
    InputField(name="b", type="BOOL", dtype="Boolean", required=True),
    InputField(name="s", type="BYTES", dtype="String", required=True),
    InputField(name="t", type="TIME", dtype="Datetime(us, UTC)", required=False),
)
NOW = instant("2024-05-01T12:00:00Z")


def columns_of(name: str) -> st.SearchStrategy[list[object]]:
    moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
    values: dict[str, list[st.SearchStrategy[object]]] = {
        "f": [st.floats(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.booleans()],
        "i": [st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=3), st.booleans()],
        "b": [st.booleans(), st.integers(0, 1), st.text(max_size=3)],
        "s": [st.text(max_size=3), st.integers(0, 9), st.booleans()],
        "t": [moments, st.text(max_size=3), st.integers(0, 9), moments.map(lambda m: m.isoformat())],
    }
    return st.one_of([st.lists(st.none() | kind, min_size=4, max_size=4) for kind in values[name]])


@settings(deadline=None, max_examples=300)
@given(st.fixed_dictionaries({f.name: columns_of(f.name) for f in FIELDS}))
def test_a_typed_frame_is_sifted_as_its_rows_would_be_taken_one_by_one(columns: dict[str, list[object]]) -> None:
    rows = [{name: values[i] for name, values in columns.items()} for i in range(4)]
    found = sift(pl.DataFrame(columns, strict=False), FIELDS, model="m@1", time="t", now=NOW)
    kept, refused = [], []
    for number, row in enumerate(rows):
        try:
            kept.append(frame_from_rows([row], FIELDS, model="m@1", time="t", now=NOW))
        except ContractError as error:
            refused.append((number, error.facts["field"]))
    assert [(u.row, u.field) for u in found.unfit] == refused
    assert found.kept == [n for n in range(4) if n not in dict(refused)]
    if kept:
        assert found.frame.equals(pl.concat(kept))
    by_rows = sift_rows(rows, FIELDS, model="m@1", time="t", now=NOW)
    assert by_rows.kept == found.kept
    assert by_rows.frame.equals(found.frame)
    assert [(u.row, u.field) for u in by_rows.unfit] == refused


def texts(**columns: list[str | None]) -> pl.DataFrame:
    blank = {f.name: [None] * len(next(iter(columns.values()))) for f in FIELDS}
    return pl.DataFrame({**blank, **columns}, schema=dict.fromkeys(blank, pl.String()))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("f", {"1": 1.0, " 2.5 ": 2.5, "1e3": 1000.0, "-0": 0.0, None: None}, ["far", "inf", "1e999", "1,5", "true"]),
        ("i", {"7": 7, "7.0": 7, "9223372036854775807": 2**63 - 1, None: None}, ["7.5", "9223372036854775808", "x"]),
        ("b", {"true": True, "False": False, "1": True, "no": False, None: None}, ["2", "maybe", ""]),
        ("s", {"007": "007", "": "", None: None}, []),
        (
            "t",
            {"2024-03-01": instant("2024-03-01"), "2024-03-01T10:00:00+01:00": instant("2024-03-01T09:00:00Z"), None: NOW},
            ["noon", "2024-13-01"],
        ),
    ],
)
def test_text_is_read_as_what_the_contract_says(name: str, good: dict[str, object], bad: list[str]) -> None:
    found = sift(texts(**{name: [*good, *bad]}), FIELDS, model="m@1", time="t", now=NOW, text=True)
    assert found.frame[name].to_list() == list(good.values())
    assert [(u.row, u.field, u.value) for u in found.unfit] == [(len(good) + i, name, value) for i, value in enumerate(bad)]


def test_what_files_hold_besides_is_of_no_account_and_what_they_lack_is_told_at_once() -> None:
    frame = pl.DataFrame({"x": [1.0], "outcome": ["late"]})
    field = (InputField(name="x", type="FP64", dtype="Float64", required=True),)
    assert sift(frame, field, model="m@1", time=None, now=EPOCH).frame.columns == ["x"]
    with pytest.raises(ContractError, match="column x is missing") as caught:
        sift(frame.drop("x"), field, model="m@1", time=None, now=EPOCH)
    assert caught.value.facts == {"model": "m@1", "field": "x"}


def test_dates_zones_and_categories_are_what_they_mean() -> None:
    zone = timezone(timedelta(hours=2))
    field = (InputField(name="t", type="TIME", dtype="Datetime(us, UTC)", required=True),)
    for values in ([date(2024, 3, 1)], [datetime(2024, 3, 1)], [datetime(2024, 3, 1, 2, tzinfo=zone)]):
        found = sift(pl.DataFrame({"t": values}), field, model="m@1", time=None, now=EPOCH)
        assert found.frame["t"].to_list() == [instant("2024-03-01")]
    text = (InputField(name="s", type="BYTES", dtype="String", required=True),)
    kinds = pl.DataFrame({"s": pl.Series(["a", None], dtype=pl.Categorical)})
    assert sift(kinds, text, model="m@1", time=None, now=EPOCH).frame["s"].to_list() == ["a", None]
