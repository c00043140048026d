"""The servers that some suites run against, named by the environment (`.ci/run` starts them; see tests/services)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.ports.metadata import Metadata


def _named(variable: str) -> str:
    if not (found := os.environ.get(variable, "")):
        pytest.skip(f"{variable} is not set")
    return found


@pytest.fixture(scope="session")
def postgres_url() -> str:
    return _named("MULLE_TEST_POSTGRES")


@pytest.fixture(scope="session")
def redis_url() -> str:
    return _named("MULLE_TEST_REDIS")


@pytest.fixture(scope="session")
def kafka_servers() -> str:
    return _named("MULLE_TEST_KAFKA")


@pytest.fixture(scope="session")
def s3_endpoint() -> str:
    return _named("MULLE_TEST_S3")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/home/mulle.db"
        return
    server_url = _named("MULLE_TEST_POSTGRES")
    import sqlalchemy

    schema = f"t{uuid4().hex[:12]}"
    server = sqlalchemy.create_engine(sqlalchemy.make_url(server_url).set(drivername="postgresql+psycopg"))
    with server.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA {schema}"))
    yield f"{server_url}{'&' if '?' in server_url else '?'}options=-csearch_path%3D{schema}"
    with server.begin() as connection:
        connection.execute(sqlalchemy.text(f"DROP SCHEMA {schema} CASCADE"))
    server.dispose()


@pytest.fixture
def store(url: str) -> Metadata:
    return open_metadata(url)
