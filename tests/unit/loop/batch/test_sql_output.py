"""Answers go to a table of a database: once each, whoever is killed, beside what other jobs wrote there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
import sqlalchemy as sa
from batch_parts import ROWS, WHY, opened, rows
from test_job import lived

from mulle.bootstrap.processes import batch_compute
from mulle.core.clock import instant
from mulle.core.errors import DataError, Unavailable, UsageError
from mulle.kernel.faults import VARIABLE
from mulle.loop.batch.job import batch_manifest, jobs, run_batch
from mulle.loop.batch.plan import Order
from mulle.loop.parts import Parts

POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    made = opened(tmp_path / "project")
    rows().write_parquet(made.settings.project / "rows.parquet")
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """``URL#TABLE`` of a table that is not there yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/scores.db#scores"
        return
    if not POSTGRES:
        pytest.skip("MULLE_TEST_POSTGRES is not set")
    name = f"scores_{uuid4().hex[:12]}"
    yield f"{POSTGRES}#{name}"
    engine = sa.create_engine(sa.make_url(POSTGRES).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"drop table if exists {name}")
    engine.dispose()


def read(table: str) -> pl.DataFrame:
    url, _, name = table.partition("#")
    made = sa.make_url(url)
    engine = sa.create_engine(made.set(drivername="postgresql+psycopg") if made.drivername == "postgresql" else made)
    with engine.connect() as connection:
        found = connection.execute(sa.select(sa.Table(name, sa.MetaData(), autoload_with=connection))).mappings().all()
    engine.dispose()
    return pl.DataFrame([dict(row) for row in found]).sort("batch", "id")


def test_each_chunk_is_in_the_table_once_whoever_dies(parts: Parts, table: str) -> None:
    for fault in ("during:batch:placed", "during:batch"):
        assert lived(parts, table, fault) == -9
    told = run_batch(parts, Order(model="trip", input="rows.parquet", output=table), causes=WHY)
    found = read(table)
    assert found.columns == ["id", "at", "value", "version", "batch", "chunk"]
    assert found["id"].to_list() == list(range(ROWS))
    assert found["value"].to_list() == [i / 8 + 1 for i in range(ROWS)]
    assert set(found["version"]) == {1}
    assert found["at"].dt.replace_time_zone(None)[:2].to_list() == [
        instant(f"2024-01-01T00:0{n}:00Z").replace(tzinfo=None) for n in (0, 1)
    ]
    assert set(found["batch"]) == {told["id"]}
    assert (told["rows_out"], told["output"]["format"]) == (ROWS, "sql")
    assert len(jobs(parts.settings.home)) == 1
    assert batch_manifest(parts.settings.home, told["id"]) == told
    # The same order is done; other rows are another job, beside it.
    assert run_batch(parts, Order(model="trip", input="rows.parquet", output=table), causes=WHY) == told
    rows(100).with_columns(pl.col("id") + ROWS).write_parquet(parts.settings.project / "rows.parquet")
    run_batch(parts, Order(model="trip", input="rows.parquet", output=table), causes=WHY)
    assert sorted(read(table)["id"].to_list()) == list(range(ROWS + 100))


def test_processes_write_side_by_side(parts: Parts, table: str) -> None:
    compute = batch_compute(parts.settings, 2)
    order = Order(model="trip", input="rows.parquet", output=table, keep=("kind",))
    try:
        run_batch(parts, order, causes=WHY, compute=compute, processes=2)
    finally:
        compute.close()
    found = read(table)
    assert found["id"].to_list() == list(range(ROWS))
    assert found["kind"].to_list() == rows()["kind"].to_list()


def test_what_cannot_be_written_is_told(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(output: str) -> None:
        run_batch(parts, Order(model="trip", input="rows.parquet", output=output), causes=WHY)

    with pytest.raises(UsageError, match="which table"):
        asked(f"sqlite:///{tmp_path}/scores.db")
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("create table scores (id integer, value real)")
    with pytest.raises(DataError, match="has no column at, version, batch, chunk"):
        asked(f"sqlite:///{tmp_path}/other.db#scores")
    with pytest.raises(Unavailable):
        asked("postgresql://ada:hidden@127.0.0.1:1/shop#scores")
    monkeypatch.setenv("SCORES", str(tmp_path / "third.db"))
    asked("sqlite:///${SCORES}#scores")
    told = jobs(parts.settings.home)[0]
    assert (told["state"], told["output"]["table"]) == ("done", "sqlite:///${SCORES}#scores")
    assert read(f"sqlite:///{tmp_path}/third.db#scores").height == ROWS
    assert "hidden" not in str(jobs(parts.settings.home))
    assert VARIABLE not in os.environ
