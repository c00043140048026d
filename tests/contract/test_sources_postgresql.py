"""PostgreSQL as a source of rows: types, cursors, overlaps, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from mulle.adapters.sources import sql
from mulle.adapters.sources.sql import SqlReader
from mulle.core.clock import instant
from mulle.core.declare.sources import Sql
from mulle.core.errors import DataError, Unavailable


@pytest.fixture
def orders(postgres_url: str) -> Iterator[tuple[str, Any]]:
    """A schema of its own on the server that the environment names, with a table of orders."""
    import sqlalchemy

    server = sqlalchemy.create_engine(sqlalchemy.make_url(postgres_url).set(drivername="postgresql+psycopg"))
    schema = f"t{uuid4().hex[:12]}"

    def do(*statements: str) -> None:
        with server.begin() as connection:
            connection.exec_driver_sql(f"set search_path to {schema}")
            for statement in statements:
                connection.exec_driver_sql(statement)

    with server.begin() as connection:
        connection.exec_driver_sql(f"create schema {schema}")
    do(
        "create table orders (id bigint, at timestamptz, day date, price numeric(12, 2), paid boolean, code uuid, more jsonb,"
        " tags text[], empty text, took interval)",
        "insert into orders select i, timestamptz '2024-01-01 00:00+02' + i * interval '1 hour', '2024-01-01', i / 4.0, "
        "mod(i, 2) = 0,"
        " '00000000-0000-0000-0000-000000000001', '{\"a\": [1]}', '{x,y}', null, '1 hour' from generate_series(1, 50) i",
    )
    yield f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-csearch_path%3D{schema}", do
    with server.begin() as connection:
        connection.exec_driver_sql(f"drop schema {schema} cascade")
    server.dispose()


@pytest.mark.parametrize("query", ["orders", "select * from orders order by id"])
def test_postgresql_types_are_ours(query: str, orders: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_PORTION", 7)
    url, _ = orders
    batch = SqlReader(Sql(url, query)).read({})
    assert batch is not None
    assert batch.counted == 50
    found = batch.frame().sort("id")
    assert found.schema == {
        "id": pl.Int64, "at": pl.Datetime("us", "UTC"), "day": pl.Date, "price": pl.Float64, "paid": pl.Boolean,
        "code": pl.String, "more": pl.String, "tags": pl.String, "empty": pl.String, "took": pl.Duration("us"),
    }  # fmt: skip
    assert found["at"][1] == instant("2024-01-01T00:00")
    assert found["price"][:3].to_list() == [0.25, 0.5, 0.75]
    assert (found["more"][0], found["tags"][0]) == ('{"a":[1]}', '["x","y"]')


@pytest.mark.parametrize("query", ["orders", "select id, at from orders where at > '2023-01-01 00:00:00'::timestamptz"])
@pytest.mark.parametrize(("cursor", "overlap"), [("at", None), ("at", "90m"), ("id", 2), ("price", 0.5)])
def test_postgresql_cursors_and_overlaps(query: str, cursor: str, overlap: Any, orders: tuple[str, Any]) -> None:
    url, do = orders
    if cursor == "price" and query != "orders":
        query = "select id, price from orders"
    reader = SqlReader(Sql(url, query, cursor=cursor, overlap=overlap))
    first = reader.read({})
    assert first is not None
    published = first.frame()
    assert published["id"].to_list() == list(range(1, 51))
    positions = json.loads(json.dumps(first.positions))
    assert reader.read(positions) is None
    do("insert into orders (id, at, price) select 51, timestamptz '2024-01-01 00:00+02' + 51 * interval '1 hour', 51 / 4.0")
    second = reader.read(positions)
    assert second is not None
    found = second.frame()
    if overlap is None:
        assert found["id"].to_list() == [51]
    else:
        assert second.repeats is not None
        assert published.filter(second.repeats)["id"].to_list() == found["id"].to_list()[:-1] != []
        assert found["id"].to_list()[-1] == 51
    assert second.counted == found.height


def test_postgresql_count_and_rows_come_from_one_snapshot(orders: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, do = orders
    true = sql._count

    def counting(*given: Any) -> int:
        counted = true(*given)
        do("insert into orders (id) values (99)")
        return counted

    monkeypatch.setattr(sql, "_count", counting)
    batch = SqlReader(Sql(url, "orders")).read({})
    assert batch is not None
    assert batch.counted == batch.frame().height == 50


def test_a_postgresql_that_goes_away_is_unavailable(orders: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, do = orders
    monkeypatch.setattr(sql, "_PORTION", 5)
    true = sql.frame_of
    ended = []

    def ending(*given: Any) -> pl.DataFrame:
        if not ended:
            ended.append(True)
            do("select pg_terminate_backend(pid) from pg_locks where relation = 'orders'::regclass and pid <> pg_backend_pid()")
        return true(*given)

    monkeypatch.setattr(sql, "frame_of", ending)
    do("insert into orders (id) select generate_series(51, 200000)")
    with pytest.raises(Unavailable):
        SqlReader(Sql(url, "orders")).read({})


@pytest.mark.parametrize(
    ("query", "said"), [("gone", "gone"), ("select oops from orders", "oops"), ("select id, id from orders", "'id'")]
)
def test_postgresql_refusals_give_the_reason(query: str, said: str, orders: tuple[str, Any]) -> None:
    with pytest.raises(DataError, match=said):
        SqlReader(Sql(orders[0], query)).read({})


def test_a_wrong_password_or_database_is_no_reason_to_try_again(orders: tuple[str, Any]) -> None:
    import sqlalchemy

    url = sqlalchemy.make_url(orders[0]).set(database="gone", query={}).render_as_string(hide_password=False)
    with pytest.raises(DataError, match="gone"):
        SqlReader(Sql(url, "orders")).read({})
