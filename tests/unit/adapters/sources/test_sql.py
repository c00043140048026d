"""A database as a source, on SQLite: types, cursors, overlaps, failures, and secrets that stay out."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.adapters.sources import sql
from mulle.adapters.sources.sql import SqlReader
from mulle.core.declare.sources import Sql
from mulle.core.errors import DataError, Unavailable, UsageError
from mulle.core.ports.source import Batch


class Shop:
    """A database of orders."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._connection = sqlite3.connect(path)

    def do(self, *statements: str) -> Shop:
        with self._connection:
            for statement in statements:
                self._connection.execute(statement)
        return self

    def reader(self, query: str = "orders", **options: Any) -> SqlReader:
        return SqlReader(Sql(self.url, query, **options))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop.db")


ORDERS = "create table orders (id integer, at datetime, day date, price numeric(10, 2), paid boolean, note text, empty real)"
ROWS = (
    "insert into orders values (1, '2024-01-01 10:00:00.000000', '2024-01-01', 5, 1, 'a', null)",
    "insert into orders values (2, '2024-01-01 11:00:00.000000', '2024-01-01', 5.5, 0, null, null)",
    "insert into orders values (3, '2024-01-01 12:00:00.000000', '2024-01-02', null, 1, 'c', null)",
)


def read(reader: SqlReader, positions: dict[str, Any] | None = None) -> Batch:
    batch = reader.read(positions or {})
    assert batch is not None
    return batch


def test_a_table_has_the_types_the_database_declares(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_PORTION", 1)
    batch = read(shop.do(ORDERS, *ROWS).reader())
    found = batch.frame()
    assert found.schema == {
        "id": pl.Int64, "at": pl.Datetime("us", "UTC"), "day": pl.Date, "price": pl.Float64, "paid": pl.Boolean,
        "note": pl.String, "empty": pl.Float64,
    }  # fmt: skip
    assert found.row(1) == (2, datetime(2024, 1, 1, 11, tzinfo=UTC), date(2024, 1, 1), 5.5, False, None, None)
    assert batch.counted == 3
    assert batch.origin == f"orders of {shop.url}"


def test_a_query_has_the_types_of_all_its_values(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_PORTION", 1)
    shop.do("create table t (a, b, c)", "insert into t values (1, null, 'x:y'), (2.5, null, ':z'), (3, 7, null)")
    found = read(shop.reader("select a, b, c, ':not a parameter' as d from t where c is null or c like '%:%';")).frame()
    assert found.schema == {"a": pl.Float64, "b": pl.Int64, "c": pl.String, "d": pl.String}
    assert found["d"][0] == ":not a parameter"


def test_without_a_cursor_everything_may_repeat(shop: Shop) -> None:
    batch = read(shop.do(ORDERS, *ROWS).reader())
    assert batch.positions == {}
    assert batch.repeats is not None
    assert batch.frame().select(batch.repeats).item() is True


CURSORS = {
    "number": ("orders", "id", {"cursor": 3, "kind": "number"}),
    "time": ("orders", "at", {"cursor": "2024-01-01T12:00:00Z", "kind": "moment"}),
    "text": ("select * from orders", "at", {"cursor": "2024-01-01 12:00:00.000000", "kind": "text"}),
    "date": ("orders", "day", {"cursor": "2024-01-02", "kind": "date"}),
    "with": ("with o as (select * from orders) select * from o", "id", {"cursor": 3, "kind": "number"}),
}
LATER = "insert into orders values (4, '2024-01-01 13:00:00.250000', '2024-01-03', 1, 0, null, null)"


@pytest.mark.parametrize(("query", "cursor", "reached"), CURSORS.values(), ids=CURSORS.keys())
def test_a_cursor_reads_what_lies_beyond_in_its_order(query: str, cursor: str, reached: dict[str, Any], shop: Shop) -> None:
    reader = shop.do(ORDERS, *reversed(ROWS)).reader(query, cursor=cursor)
    first = read(reader)
    assert first.frame()["id"].to_list()[-1] == 3
    assert first.positions == reached
    assert reader.read(first.positions) is None
    shop.do(LATER)
    second = read(reader, first.positions)
    assert second.frame()["id"].to_list() == [4]
    assert second.counted == 1
    assert second.repeats is None


@pytest.mark.parametrize(
    ("query", "cursor", "overlap", "late", "again"),
    [
        ("orders", "id", 1, "insert into orders values (2.5, null, null, 1, 0, null, null)", {2.5, 3}),
        ("orders", "at", "90m", "insert into orders values (9, '2024-01-01 10:45:00.000000', null, 1, 0, null, null)", {2, 3, 9}),
        ("orders", "day", "1d", "insert into orders values (9, null, '2024-01-02', 1, 0, null, null)", {3, 9}),
    ],
)
def test_an_overlap_is_read_again_when_something_came_late(
    query: str, cursor: str, overlap: Any, late: str, again: set[float], shop: Shop
) -> None:
    reader = shop.do(ORDERS.replace("id integer", "id real"), *ROWS).reader(query, cursor=cursor, overlap=overlap)
    first = read(reader)
    assert first.repeats is None
    published = first.frame()
    assert reader.read(first.positions) is None, "nothing came late"
    shop.do(late)
    second = read(reader, first.positions)
    assert set(second.frame()["id"]) == again
    assert second.repeats is not None
    among = published.filter(second.repeats)
    assert set(among["id"]) == again & set(published["id"])
    assert reader.read(second.positions) is None
    shop.do(LATER)
    assert 4 in set(read(reader, second.positions).frame()["id"])


def test_a_cursor_that_went_back_is_refused(shop: Shop) -> None:
    reader = shop.do(ORDERS, *ROWS).reader(cursor="id")
    positions = read(reader).positions
    shop.do("delete from orders where id = 3")
    with pytest.raises(DataError, match="cursor 'id' went back: it was 3, and is 2"):
        reader.read(positions)
    shop.do("delete from orders")
    assert reader.read(positions) is None


def test_null_cursors_are_counted_and_refused(shop: Shop) -> None:
    shop.do(ORDERS, *ROWS, "insert into orders (id) values (7)", "insert into orders (id) values (8)")
    with pytest.raises(DataError, match="cursor 'at' is null in 2 rows") as caught:
        shop.reader(cursor="at").read({})
    assert caught.value.facts == {"column": "at", "rows": 2}


BAD = {
    "no such table": ("gone", {}, "no table 'gone'"),
    "no such column": ("select oops from orders", {}, "oops"),
    "no such cursor": ("orders", {"cursor": "oops"}, "no column 'oops'"),
    "no such cursor in a query": ("select * from orders", {"cursor": "oops"}, "oops"),
    "not SQL": ("select from where", {}, "syntax"),
    "two columns of one name": ("select id, id from orders", {}, "two columns are named 'id'"),
    "several kinds": ("select case when id = 1 then 'x' else id end as mixed from orders", {}, "'mixed'"),
    "not a time": ("select 1 as x, cast('a' as blob) as b union all select 'x', 2", {}, "column"),
}


@pytest.mark.parametrize(("query", "options", "said"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_read_is_refused_with_the_reason(query: str, options: dict[str, Any], said: str, shop: Shop) -> None:
    reader = shop.do(ORDERS, *ROWS).reader(query, **options)
    with pytest.raises(DataError, match=said):
        reader.read({})


def test_an_overlap_must_fit_its_cursor(shop: Shop) -> None:
    shop.do(ORDERS, *ROWS)
    for query, cursor, overlap in (("orders", "at", 3), ("orders", "id", "1h"), ("select * from orders", "at", "1h")):
        with pytest.raises(UsageError, match="overlap does not fit"):
            shop.reader(query, cursor=cursor, overlap=overlap).read({})


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"gone\.db"):
        SqlReader(Sql(f"sqlite:///{tmp_path}/gone.db", "orders")).read({})
    assert not (tmp_path / "gone.db").exists(), "reading makes no database"
    with pytest.raises(Unavailable):
        SqlReader(Sql("postgresql://ada:s3cret@127.0.0.1:1/shop", "orders")).read({})
    (tmp_path / "text.db").write_text("this is no database, and long enough to tell" * 50)
    with pytest.raises(DataError, match="not a database"):
        SqlReader(Sql(f"sqlite:///{tmp_path}/text.db", "orders")).read({})


def test_a_locked_database_is_unavailable(shop: Shop, tmp_path: Path) -> None:
    shop.do(ORDERS)
    other = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(Unavailable, match="locked"):
        SqlReader(Sql(f"{shop.url}?timeout=0.01", "orders")).read({})
    other.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:${A_PASSWORD}@127.0.0.1:1/shop",
        "postgresql://ada@127.0.0.1:1/shop?password=${A_PASSWORD}",
        "nonsense://ada:${A_PASSWORD}@h/shop",
        "postgresql+nothing://ada:${A_PASSWORD}@h/shop",
        "no url ${A_PASSWORD}",
        "postgresql://ada:${A_PASSWORD}@127.0.0.1:x/shop",
    ],
)
def test_secrets_stay_out_of_errors(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PASSWORD", "s3cret-word")
    with pytest.raises((Unavailable, UsageError)) as caught:
        SqlReader(Sql(url, "orders")).read({})
    assert "s3cret-word" not in f"{caught.value} {caught.value.next} {caught.value.facts}"
    monkeypatch.delenv("A_PASSWORD")
    with pytest.raises(UsageError, match="A_PASSWORD"):
        SqlReader(Sql(url, "orders")).read({})


def test_count_and_rows_come_from_one_snapshot(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.do(ORDERS, *ROWS)
    true, wrote = sql._count, []

    def counting(*given: Any) -> int:
        counted = true(*given)
        try:
            with sqlite3.connect(tmp_path / "shop.db", timeout=0.01) as other:
                other.execute(LATER)
            wrote.append(True)
        except sqlite3.OperationalError:  # the reader's snapshot holds the file
            wrote.append(False)
        return counted

    monkeypatch.setattr(sql, "_count", counting)
    batch = read(shop.reader())
    assert batch.counted == batch.frame().height == 3
    assert wrote


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=6))
def test_whatever_is_appended_is_read_once(steps: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    shop = Shop(tmp_path_factory.mktemp("sql") / "shop.db").do("create table orders (id integer)")
    reader, positions, last, found = shop.reader(cursor="id"), {}, 0, []
    for step in steps:
        for gap in step:
            last += gap
            shop.do(f"insert into orders values ({last})")
        if (batch := reader.read(positions)) is not None:
            found += batch.frame()["id"].to_list()
            positions = batch.positions
    assert found == [row[0] for row in shop._connection.execute("select id from orders order by id")]
