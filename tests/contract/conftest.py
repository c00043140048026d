"""The servers that some suites run against, named by the environment (`.ci/run` starts them; see tests/services)."""

from __future__ import annotations

import os

import pytest


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
