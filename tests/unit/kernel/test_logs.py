"""The home's log: shared by processes, bounded, searched and followed."""

from __future__ import annotations

import logging
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from mulle.core.errors import NotFound
from mulle.kernel.logs import LogFile, Wanted, follow_log, keep_log, log_files, read_log

EVERY = Wanted()


def logger(home: Path, name: str = "t", **bounds: int) -> tuple[logging.Logger, LogFile]:
    handler = LogFile(home, "up", **bounds)
    made = logging.Logger(f"mulle.{name}")
    made.addHandler(handler)
    return made, handler


def texts(home: Path, wanted: Wanted = EVERY) -> list[str]:
    return [line["text"] for line in read_log(home, wanted)]


def test_a_line_is_one_json_object_with_what_it_is_about(tmp_path):
    log, handler = logger(tmp_path)
    log.info("run %s\nended", "r1", extra={"run": "r1", "model": "trip", "seconds": None})
    try:
        raise NotFound("no such thing", next="look elsewhere")
    except NotFound:
        log.exception("bad", extra={"request": "q"})
    handler.close()
    (file,) = log_files(tmp_path)
    first, second = map(orjson.loads, file.read_bytes().splitlines())
    assert first.keys() == {"at", "level", "process", "pid", "logger", "text", "run", "model"}
    assert (first["level"], first["process"], first["text"], first["run"]) == ("info", "up", "run r1\nended", "r1")
    assert (second["error"]["type"], second["error"]["next"]) == ("not-found", "look elsewhere")
    assert datetime.now(UTC) - datetime.fromisoformat(first["at"]) < timedelta(minutes=1)
    assert file.stat().st_mode & 0o777 == 0o600


def test_lines_are_found_by_what_they_are_about(tmp_path):
    log, _ = logger(tmp_path)
    log.info("a", extra={"model": "trip", "run": "r1"})
    log.warning("b", extra={"model": "trip/north", "request": "client~OURS"})
    log.error("c", extra={"model": "trips", "request": "x", "prediction": ["p1", "p2"]})
    found = {
        "model": texts(tmp_path, Wanted(model="trip")),
        "run": texts(tmp_path, Wanted(run="r1")),
        "theirs": texts(tmp_path, Wanted(request="client")),
        "ours": texts(tmp_path, Wanted(request="OURS")),
        "prediction": texts(tmp_path, Wanted(request="p2")),
        "level": texts(tmp_path, Wanted(level="warning")),
        "since": texts(tmp_path, Wanted(since=datetime.now(UTC) + timedelta(hours=1))),
    }
    assert found == {
        "model": ["a", "b"], "run": ["a"], "theirs": ["b"], "ours": ["b"], "prediction": ["c"], "level": ["b", "c"], "since": [],
    }  # fmt: skip


def test_the_log_is_bounded_and_keeps_the_newest(tmp_path):
    log, _ = logger(tmp_path, size=2_000, files=3)
    for number in range(200):
        log.info("line %d", number)
    files = log_files(tmp_path)
    assert len(files) == 3
    assert all(file.stat().st_size <= 2_000 for file in files)
    kept = texts(tmp_path)
    assert kept == [f"line {n}" for n in range(200 - len(kept), 200)]
    assert len(kept) > 15


def write(home: Path, process: int) -> None:
    log, handler = logger(home, size=20_000, files=50)
    for number in range(300):
        log.info("%d-%d", process, number)
    handler.close()


def test_processes_share_it_and_no_line_is_lost_or_torn(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    raw = [line for file in log_files(tmp_path) for line in file.read_bytes().splitlines()]
    said = [orjson.loads(line)["text"] for line in raw]
    assert sorted(said) == sorted(f"{p}-{n}" for p in range(4) for n in range(300))
    for process in range(4):
        assert [t for t in said if t.startswith(f"{process}-")] == [f"{process}-{n}" for n in range(300)]


def test_a_log_that_cannot_be_written_harms_nobody_and_a_torn_line_is_left_out(tmp_path):
    (tmp_path / "logs").write_text("a file where a folder should be")
    logger(tmp_path)[0].info("lost")
    (tmp_path / "logs").unlink()
    logger(tmp_path)[0].info("kept")
    with (tmp_path / "logs" / "mulle.jsonl").open("ab") as file:
        file.write(b'{"at": "2013-')
    assert texts(tmp_path) == ["kept"]


def test_what_comes_is_followed_over_the_turn_of_a_file(tmp_path):
    log, _ = logger(tmp_path, size=400, files=5)
    log.info("before")
    steps = iter(range(1, 30))

    def wait() -> bool:
        number = next(steps)
        if number < 20:
            log.log(logging.INFO if number % 2 else logging.DEBUG, "%d", number)
        return number < 25

    followed = [line["text"] for line in follow_log(tmp_path, Wanted(level="info"), wait)]
    assert followed == [str(n) for n in range(1, 20, 2)]


def test_it_may_be_followed_before_there_is_one(tmp_path):
    steps = iter(range(5))

    def wait() -> bool:
        number = next(steps)
        if number == 1:
            logger(tmp_path)[0].info("first")
        return number < 4

    assert [line["text"] for line in follow_log(tmp_path, EVERY, wait)] == ["first"]


@pytest.fixture
def mulle() -> logging.Logger:
    found = logging.getLogger("mulle")
    before = found.handlers[:], found.level
    yield found
    found.handlers[:], found.level = before


def test_a_process_keeps_one_log_however_often_it_asks(tmp_path, mulle):
    keep_log(tmp_path / "a", "up")
    keep_log(tmp_path / "b", "up")
    logging.getLogger("mulle.loop").info("here")
    assert texts(tmp_path / "b") == ["here"]
    assert not log_files(tmp_path / "a")
