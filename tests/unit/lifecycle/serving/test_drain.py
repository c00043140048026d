"""Everything logged reaches the lake once, however often and wherever a drainer or a worker dies."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest

from mulle.adapters.lake.delta import DeltaLake
from mulle.core.clock import instant
from mulle.core.errors import Unavailable
from mulle.core.records.base import to_json
from mulle.core.records.prediction import Label
from mulle.lifecycle.serving import drain as drain_module
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import Segment, pack
from mulle.lifecycle.serving.progress import lag, read_progress

NOW = instant("2013-03-02")


def scored(number: int, rows: int = 2) -> bytes:
    ids = [f"{number}-{i}" for i in range(rows)]
    at = int(instant("2013-03-01T23:59:59").timestamp() * 1e6)
    return pack(orjson.dumps({
        "at": at, "by_row": False, "model": "trip", "version": 3, "key": ["id"], "classes": [], "id": ids, "request": ids,
        "route": ["champion"] * rows, "time": [at + i * 1_000_000 for i in range(rows)], "row": [{"id": i} for i in range(rows)],
        "features": {"x": [1.5] * rows}, "value": [float(number)] * rows, "probabilities": None, "freshness": [{}] * rows,
        "unseen": {}, "seconds": [0.001] * rows,
    }))  # fmt: skip


def label(number: int) -> bytes:
    told = Label(
        id=f"l{number}", created_at=NOW, model="trip", prediction_id=None, key={"id": number}, time=NOW, value=1.0,
        reason="", known_at=NOW + timedelta(days=number),
    )  # fmt: skip
    return pack(orjson.dumps([to_json(told)]))


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    return DeltaLake(str(tmp_path / "lake"))


def ids(lake: DeltaLake, table: str = "predictions") -> list[str]:
    return sorted(lake.scan(table).select("id").collect()["id"])


def write(folder: Path, *records: bytes, kind: str = "predictions", torn: bytes = b"") -> Path:
    segment = Segment(folder, kind)
    for record in records:
        segment.write([record])
    segment.close()
    assert segment.path is not None
    if torn:
        with segment.path.open("ab") as file:
            file.write(torn)
    return segment.path


def test_nothing_logged_drains_nothing(tmp_path: Path, lake: DeltaLake) -> None:
    assert drain(tmp_path / "none", lake, now=NOW).predictions == 0


def test_rows_of_the_lake_have_day_key_text_and_plain_values(tmp_path: Path, lake: DeltaLake) -> None:
    write(tmp_path / "log", scored(7))
    write(tmp_path / "log", label(1), label(2), kind="labels")
    done = drain(tmp_path / "log", lake, now=NOW)
    assert (done.predictions, done.labels, done.busy) == (2, 2, False)
    rows = lake.scan("predictions").collect().sort("time")
    assert rows["day"].to_list() == ["2013-03-01", "2013-03-02"]
    assert rows["key_text"].to_list() == ["0", "1"]
    assert rows["value"].cast(pl.Float64).to_list() == [7.0, 7.0]
    assert orjson.loads(rows["features"][0]) == {"x": 1.5}
    labels = lake.scan("labels").collect().sort("id")
    assert labels["day"].to_list() == ["2013-03-03", "2013-03-04"]
    assert labels["key_text"].to_list() == ["1", "2"]


def test_a_dead_workers_segment_goes_and_its_torn_tail_with_it(tmp_path: Path, lake: DeltaLake) -> None:
    path = write(tmp_path / "log", scored(1), scored(2), torn=scored(3)[:-5])
    assert drain(tmp_path / "log", lake, now=NOW).predictions == 4
    assert not path.exists()
    assert ids(lake) == ["1-0", "1-1", "2-0", "2-1"]


def test_damage_in_the_middle_is_kept_for_whoever_looks(tmp_path: Path, lake: DeltaLake) -> None:
    bad = bytearray(scored(2))
    bad[20] ^= 0xFF
    path = write(tmp_path / "log", scored(1), bytes(bad), scored(3))
    drain(tmp_path / "log", lake, now=NOW)
    assert ids(lake) == ["1-0", "1-1"]
    assert path.with_suffix(".damaged").exists()


def test_a_living_workers_segment_is_drained_again_and_again_and_stays(tmp_path: Path, lake: DeltaLake) -> None:
    segment = Segment(tmp_path / "log", "predictions")
    for number in range(3):
        segment.write([scored(number)])
        assert drain(tmp_path / "log", lake, now=NOW).predictions == 2
        assert drain(tmp_path / "log", lake, now=NOW).predictions == 0
    assert segment.path is not None
    assert segment.path.exists()
    assert lag(tmp_path / "log", segment.path, segment.offset, segment.first_write, segment.first_write + 1e6) == 0
    segment.write([scored(3)])
    assert lag(tmp_path / "log", segment.path, segment.offset, segment.first_write, segment.first_write + 1e6) > 1e5
    segment.close()
    assert drain(tmp_path / "log", lake, now=NOW).predictions == 2
    assert len(ids(lake)) == 8
    assert read_progress(tmp_path / "log") == {}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("where", ["before", "after", "finish", "progress"])
def test_a_drainer_killed_anywhere_doubles_and_loses_nothing(
    tmp_path: Path, lake: DeltaLake, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    write(tmp_path / "log", scored(1), scored(2))
    append = lake.append

    def dying(*args: object, **more: object) -> int:
        if where == "after":
            append(*args, **more)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        if where in ("before", "after"):
            patch.setattr(lake, "append", dying)
        else:
            patch.setattr(drain_module, "_finish" if where == "finish" else "write_progress", dying)
        with pytest.raises(Killed):
            drain(tmp_path / "log", lake, now=NOW)
    drain(tmp_path / "log", lake, now=NOW)
    assert ids(lake) == ["1-0", "1-1", "2-0", "2-1"]
    assert not list((tmp_path / "log").glob("*.seg"))


def test_only_one_drainer_works_on_a_home(tmp_path: Path, lake: DeltaLake) -> None:
    write(tmp_path / "log", scored(1))
    with drain_module._alone(tmp_path / "log") as held:
        assert held
        assert drain(tmp_path / "log", lake, now=NOW).busy
    assert drain(tmp_path / "log", lake, now=NOW).predictions == 2


def test_a_lake_that_is_away_loses_nothing(tmp_path: Path, lake: DeltaLake, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log", scored(1))

    def away(*args: object, **more: object) -> int:
        raise Unavailable("the lake is away")

    with monkeypatch.context() as patch:
        patch.setattr(lake, "append", away)
        with pytest.raises(Unavailable):
            drain(tmp_path / "log", lake, now=NOW)
    assert path.exists()
    assert drain(tmp_path / "log", lake, now=NOW).predictions == 2


def test_a_large_segment_is_drained_in_pieces(tmp_path: Path, lake: DeltaLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "_CHUNK", 700)
    write(tmp_path / "log", *[scored(n) for n in range(5)], scored(99, rows=20))
    assert drain(tmp_path / "log", lake, now=NOW).predictions == 30
    assert len(set(ids(lake))) == 30


def test_a_drain_does_not_run_after_a_busy_writer(tmp_path: Path, lake: DeltaLake, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment(tmp_path / "log", "predictions")
    segment.write([scored(0)])
    append, numbers = lake.append, iter(range(1, 100))

    def writing(*args: object, **more: object) -> int:
        segment.write([scored(next(numbers))])
        return append(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(lake, "append", writing)
    assert [drain(tmp_path / "log", lake, now=NOW).predictions for _ in range(3)] == [2, 2, 2]
    segment.close()


def test_an_unborn_segment_is_cleared_away_late(tmp_path: Path, lake: DeltaLake) -> None:
    (tmp_path / "log").mkdir()
    unborn = tmp_path / "log" / ".predictions-x.new"
    unborn.touch()
    os.utime(unborn, (NOW.timestamp() - 10, NOW.timestamp() - 10))
    drain(tmp_path / "log", lake, now=NOW)
    assert unborn.exists()
    drain(tmp_path / "log", lake, now=NOW + timedelta(hours=2))
    assert not unborn.exists()
