"""The lake in a bucket: what holds in a folder holds there too, on a server that speaks S3."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from uuid import uuid4

import boto3
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.errors import DataError, NotFound, Unavailable
from mulle.core.ports.lake import Lake, Note

NOON = datetime(2013, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def rows(first: int = 0, count: int = 3, day: str = "2013-03-01") -> pl.DataFrame:
    numbers = range(first, first + count)
    columns = {
        "id": [f"p{n}" for n in numbers],
        "value": [float(n) for n in numbers],
        "time": [NOON] * count,
        "day": [day] * count,
    }
    return pl.DataFrame(columns, schema_overrides={"time": pl.Datetime("us", "UTC")})


def ids(lake: Lake, table: str = "t", version: int | None = None) -> list[str]:
    return sorted(lake.scan(table, version).collect()["id"].to_list())


class Bucket:
    """A bucket, looked at from outside."""

    def __init__(self, endpoint: str) -> None:
        self.name = f"b{uuid4().hex[:12]}"
        self.url = f"s3://{self.name}/team/lake"
        self._client = boto3.client("s3", endpoint_url=endpoint)
        self._client.create_bucket(Bucket=self.name)

    def objects(self) -> list[str]:
        found = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(o["Key"].removeprefix("team/lake/") for o in found)

    def content(self) -> bytes:
        keys = [o["Key"] for o in self._client.list_objects_v2(Bucket=self.name).get("Contents", [])]
        return b"".join(self._client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys)


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    return Bucket(s3_endpoint)


@pytest.fixture
def lake(bucket: Bucket) -> Lake:
    return DeltaLake(bucket.url)


def test_rows_read_back_with_their_types(lake: Lake, bucket: Bucket) -> None:
    version = lake.append("data/t", rows(), application="a", sequence=1, partition_by=["day"])
    lake.append("data/t", rows(10).lazy(), application="a", sequence=2)
    assert_frame_equal(lake.scan("data/t", version).sort("id").collect().select(rows().columns), rows())
    assert lake.scan("data/t").collect().height == 6
    assert lake.address("data/t") == f"{bucket.url}/data/t"
    assert lake.folder is None
    assert any(name.startswith("data/t/day=2013-03-01/") for name in bucket.objects())


def test_a_repeated_or_older_sequence_writes_nothing(lake: Lake, bucket: Bucket) -> None:
    for sequence in (0, 0, 1, 0, 1):
        lake.append("t", rows(10 * sequence), application="a", sequence=sequence)
    other = DeltaLake(bucket.url)
    assert other.append("t", rows(50), application="a", sequence=1) == other.version("t")
    assert len(ids(other)) == 6
    assert (other.applied("t", "a"), other.applied("t", "b"), other.applied("no", "a")) == (1, None, None)


def test_notes_come_back_with_the_version_they_made(lake: Lake, bucket: Bucket) -> None:
    versions = [lake.append("t", rows(n), application="a", sequence=n, note={"n": n}) for n in (1, 2, 3)]
    lake.append("t", rows(9), application="b", sequence=1, note={"other": True})
    assert list(DeltaLake(bucket.url).notes("t", "a", after=1)) == [Note(n, versions[n - 1], {"n": n}) for n in (2, 3)]


def test_older_versions_can_be_read_and_unknown_ones_are_not_found(lake: Lake) -> None:
    versions = [lake.append("t", rows(10 * n), application="a", sequence=n) for n in range(3)]
    assert lake.version("t") == versions[-1]
    assert [len(ids(lake, version=version)) for version in versions] == [3, 6, 9]
    assert lake.version("none") is None
    with pytest.raises(NotFound):
        lake.scan("none")
    with pytest.raises(NotFound):
        lake.scan("t", versions[-1] + 1)


def test_a_frame_keeps_reading_the_version_it_was_made_at(lake: Lake, bucket: Bucket) -> None:
    lake.append("t", rows(), application="a", sequence=0)
    before = lake.scan("t")
    DeltaLake(bucket.url).append("t", rows(10), application="a", sequence=1)
    assert before.collect().height == 3
    assert lake.scan("t").collect().height == 6


def test_columns_can_be_added_and_a_conflicting_type_is_refused(lake: Lake) -> None:
    lake.append("t", rows(), application="a", sequence=0)
    lake.append("t", rows(10).with_columns(extra=1), application="a", sequence=1)
    assert lake.scan("t").collect()["extra"].to_list().count(None) == 3
    with pytest.raises(DataError):
        lake.append("t", rows(20).with_columns(value=pl.lit("x")), application="a", sequence=2)
    assert len(ids(lake)) == 6


def test_two_writers_with_the_same_sequence_write_it_once(bucket: Bucket) -> None:
    for attempt in range(5):
        barrier = Barrier(4)

        def write(number: int, table: str = f"t{attempt}", barrier: Barrier = barrier) -> int:
            writer = DeltaLake(bucket.url)
            barrier.wait(10)
            return writer.append(table, rows(10 * number), application="a", sequence=1)

        with ThreadPoolExecutor(4) as pool:
            versions = list(pool.map(write, range(4)))
        assert len(ids(DeltaLake(bucket.url), f"t{attempt}")) == 3
        assert len(set(versions)) == 1


def test_writers_of_several_processes_lose_nothing(lake: Lake, bucket: Bucket) -> None:
    code = (
        "import sys, polars as pl\nfrom mulle.adapters.lake.delta import DeltaLake\nlake = DeltaLake(sys.argv[1])\n"
        "for n in range(8): lake.append('t', pl.DataFrame({'id': [f'{sys.argv[2]}-{n}']}), application=sys.argv[2], sequence=n)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, bucket.url, f"w{n}"]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert ids(lake) == sorted(f"w{w}-{n}" for w in range(3) for n in range(8))


def test_parked_rows_come_back_until_they_are_removed(lake: Lake, bucket: Bucket) -> None:
    address = lake.park("staging/flights/b1", iter([rows(0), rows(3)]))
    lake.park("quarantine/flights/b2", rows(6))
    assert address.startswith(f"{bucket.url}/staging/flights/b1")
    assert DeltaLake(bucket.url).parked("staging/flights/b1").collect()["id"].to_list() == [f"p{n}" for n in range(6)]
    assert list(lake.parkings("quarantine/flights")) == ["quarantine/flights/b2"]
    assert list(lake.parkings("quarantine/none")) == []
    lake.unpark("staging/flights/b1")
    lake.unpark("staging/flights/b1")
    with pytest.raises(NotFound):
        lake.parked("staging/flights/b1")


def test_parking_that_fails_midway_leaves_what_was_there(lake: Lake) -> None:
    def broken() -> Iterator[pl.DataFrame]:
        yield rows(10, 50_000)
        raise DataError("line 7 cannot be read", next="mend it")

    lake.park("staging/t/b", rows())
    with pytest.raises(DataError, match="line 7"):
        lake.park("staging/t/b", broken())
    assert_frame_equal(lake.parked("staging/t/b").collect(), rows())
    with pytest.raises(DataError, match="line 7"):
        lake.park("staging/t/new", broken())
    with pytest.raises(NotFound):
        lake.parked("staging/t/new")


def test_documents_are_read_back(lake: Lake, bucket: Bucket) -> None:
    words = {"dataset": "flights", "version": 3, "name": "é"}
    assert lake.write_document("shared/flights", words).startswith(bucket.url)
    assert DeltaLake(bucket.url).read_document("shared/flights") == words
    lake.write_document("shared/flights", {"version": 4})
    assert lake.read_document("shared/flights") == {"version": 4}
    assert lake.read_document("shared/none") is None


def test_replaced_rows_are_the_table_and_the_past_stays(lake: Lake) -> None:
    first = lake.append("t", rows(count=5), application="a", sequence=1)
    second = lake.replace("t", lake.scan("t").head(2).with_columns(pl.col("value").cast(pl.Int64)), application="r", sequence=1)
    assert (len(ids(lake, version=first)), len(ids(lake, version=second))) == (5, 2)
    assert lake.scan("t").collect_schema()["value"] == pl.Int64
    assert lake.replace("t", rows().lazy(), application="r", sequence=1) == second


def test_erased_rows_stand_nowhere_in_the_bucket(lake: Lake, bucket: Bucket) -> None:
    secret = rows().with_columns(pl.lit("somebody-to-forget").alias("id"))
    first = lake.append("t", secret, application="a", sequence=1)
    lake.append("t", rows(10), application="a", sequence=2)
    assert b"somebody-to-forget" in bucket.content()
    assert lake.erase("t", pl.DataFrame({"id": ["somebody-to-forget"]})) == 3
    assert b"somebody-to-forget" not in bucket.content()
    for reader in (lake, DeltaLake(bucket.url)):
        assert ids(reader) == ids(reader, version=first) == ["p10", "p11", "p12"]
    lake.append("t", rows(20), application="a", sequence=3)
    assert len(ids(DeltaLake(bucket.url))) == 6


def test_a_bucket_that_is_not_there_is_unavailable(bucket: Bucket) -> None:
    lake = DeltaLake(f"s3://{bucket.name}-gone/lake")
    with pytest.raises(Unavailable) as caught:
        lake.append("t", rows(), application="a", sequence=1)
    assert "\x1b" not in caught.value.detail
    with pytest.raises(Unavailable):
        lake.park("staging/t/b", rows())
    with pytest.raises((Unavailable, NotFound)):
        lake.parked("staging/t/b")
