"""How the records' database is made and upgraded."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from mulle.adapters.metadata.connect import open_database, open_metadata
from mulle.adapters.metadata.migrate import head
from mulle.adapters.metadata.tables import HEAD, metadata
from mulle.core.errors import UsageError

POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/mulle.db"


def test_the_release_names_the_newest_migration() -> None:
    assert head() == HEAD


def test_migrations_from_empty_make_exactly_the_tables_that_are_used(tmp_path: Path) -> None:
    with open_database(url(tmp_path)).read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrations_make_the_same_indexes_and_keys_as_the_tables(tmp_path: Path) -> None:
    declared = create_engine("sqlite://")
    metadata.create_all(declared)
    migrated = inspect(open_database(url(tmp_path)).engine)
    for table in metadata.tables:
        there = inspect(declared)
        assert sorted(map(str, migrated.get_indexes(table))) == sorted(map(str, there.get_indexes(table)))
        assert migrated.get_foreign_keys(table) == there.get_foreign_keys(table)
        unique = [sorted(str(u["column_names"]) for u in i.get_unique_constraints(table)) for i in (migrated, there)]
        assert unique[0] == unique[1]


def test_the_file_is_for_its_owner_alone_and_writes_ahead(tmp_path: Path) -> None:
    (tmp_path / "mulle.db").touch(0o644)
    with open_database(url(tmp_path)).read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 30_000
        assert (tmp_path / "mulle.db").stat().st_mode & 0o777 == 0o600


def test_a_database_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    open_metadata(url(tmp_path))
    with sqlite3.connect(tmp_path / "mulle.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UsageError, match="9999"):
        open_metadata(url(tmp_path))


def test_a_failed_upgrade_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mulle.db") as connection:
        connection.execute("CREATE TABLE windows (mine TEXT)")
    with pytest.raises(Exception, match="windows"):
        open_metadata(url(tmp_path))
    with sqlite3.connect(tmp_path / "mulle.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("windows",)]


def test_threads_may_make_several_databases_at_once(tmp_path: Path) -> None:
    stores = []
    threads = [
        threading.Thread(target=lambda n=n: stores.append(open_metadata(f"sqlite:///{tmp_path}/{n % 2}.db"))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.runs.list() for store in stores] == [[]] * 6


def test_listing_uses_an_index_and_no_sort(tmp_path: Path) -> None:
    from mulle.adapters.metadata.database import newest_first
    from mulle.adapters.metadata.runs import _in_state
    from mulle.adapters.metadata.tables import alerts, model_versions, quarantines, runs

    queries = [newest_first(table, 10) for table in (runs, alerts, model_versions, quarantines)]
    queries += [newest_first(runs, 10).where(runs.c.model == "m"), _in_state("failed", None, 10), _in_state("failed", "m", 10)]
    database = open_database(url(tmp_path))
    for query in queries:
        plan = f"EXPLAIN QUERY PLAN {query.compile(database.engine, compile_kwargs={'literal_binds': True})}"
        with database.read() as connection:
            steps = " ".join(str(row[3]) for row in connection.exec_driver_sql(plan))
        assert "USING INDEX" in steps.replace("COVERING ", "")
        assert "TEMP B-TREE" not in steps


def test_what_the_last_release_wrote_is_there_after_the_upgrade(tmp_path: Path) -> None:
    import json

    from alembic.migration import MigrationContext as Context
    from alembic.operations import Operations

    from mulle.adapters.metadata.migrations.versions import r0001_chain, r0002_audits

    with create_engine(url(tmp_path)).begin() as connection:
        op = Operations(Context.configure(connection))
        r0001_chain.upgrade(op)
        r0002_audits.upgrade(op)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0002')"))
        at = "2024-01-01T00:00:00Z"
        gate = {"gate": "mae", "metric": "mae", "value": 1.0, "bound": 2.0, "verdict": "pass", "reason": ""}
        run = {"id": "r", "created_at": at, "causes": [], "model": "m", "cutoff": at, "code": "c"}
        version = {
            "id": "v", "created_at": at, "causes": [], "model": "m", "version": 1, "run": "r", "bundle": "b", "address": "/b",
            "compiled": "onnx", "parity": None, "metrics": {}, "size_bytes": 1, "features": [], "data": {}, "data_cutoff": at,
            "refit_cutoff": at,
        }  # fmt: skip
        shares = (("champion", 0.9), ("canary", 0.1))
        routes = [{"version": n, "share": share, "mode": mode} for n, (mode, share) in enumerate(shares, 1)]
        for name, columns, record in (
            ("runs", {"id": "r", "model": "m", "created_at": 0}, run),
            ("gate_results", {"run": "r", "gate": "mae"}, gate),
            ("model_versions", {"id": "v", "model": "m", "version": 1, "run": "r", "created_at": 0}, version),
            ("deployments", {"id": "d", "model": "m", "environment": "production", "created_at": 0}, {"routes": routes}),
        ):
            row = {**columns, "record": json.dumps(record)}
            marks = ", ".join(f":{column}" for column in row)
            connection.execute(text(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({marks})"), row)
    store = open_metadata(url(tmp_path))
    assert [g.gate for g in store.runs.gates("r")] == ["mae"]
    assert [v.id for v in store.models.list("m")] == ["v"]
    assert store.deployments.canaries() == ["m"]
    with open_database(url(tmp_path)).read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.skipif(not POSTGRES, reason="MULLE_TEST_POSTGRES names no server")
def test_on_postgresql_the_tables_are_kept_in_a_schema_beside_before_they_are_upgraded() -> None:
    import psycopg
    from alembic.operations import Operations

    from mulle.adapters.metadata.migrations.versions import r0001_chain, r0002_audits
    from mulle.core.clock import WallClock
    from mulle.core.hashing import new_id

    name = f"upgrade_{new_id(WallClock().now()).lower()}"
    where = POSTGRES.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        connection.execute(f'CREATE ROLE "{name}" LOGIN')
    try:
        engine = create_engine(where.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as made:
            op = Operations(MigrationContext.configure(made))
            r0001_chain.upgrade(op)
            r0002_audits.upgrade(op)
            made.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
            made.execute(text("INSERT INTO alembic_version VALUES ('0002')"))
            made.execute(text("INSERT INTO runs (id, model, created_at, record) VALUES ('r', 'm', 0, '{}')"))
            made.execute(text(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{name}"'))
        engine.dispose()
        # Who may not make the copy is told what to do, and nothing is changed.
        with pytest.raises(UsageError, match="may not make the schema mulle_0002") as caught:
            open_metadata(f"postgresql://{name}@{where.rpartition('@')[2]}")
        assert caught.value.next == f'as its owner: `CREATE SCHEMA "mulle_0002" AUTHORIZATION "{name}"`, then start again'
        with psycopg.connect(where) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
        database = open_database(where)
        with database.read() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
            assert connection.execute(text("SELECT version_num FROM mulle_0002.alembic_version")).scalar() == "0002"
            assert connection.execute(text("SELECT id FROM mulle_0002.runs")).scalar() == "r"
        database.engine.dispose()
    finally:
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            connection.execute(f'DROP ROLE "{name}"')
