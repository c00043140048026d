"""Streams whose process or broker is killed, again and again: each message is answered exactly once all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SERVICES = TESTS / "services"
sys.path[:0] = [str(TESTS / "contract" / "stream"), str(TESTS / "unit" / "surfaces" / "inference")]

from serving_parts import bundle, route, version  # noqa: E402
from stream_parts import Topics, ids, life, logged, row, streaming, until  # noqa: E402

from mulle.lifecycle.serving.log import log_folder  # noqa: E402


@pytest.fixture(scope="session")
def kafka_servers() -> str:
    if not (found := os.environ.get("MULLE_TEST_KAFKA", "")):
        pytest.skip("MULLE_TEST_KAFKA is not set")
    return found


@pytest.fixture
def topics(kafka_servers: str) -> Iterator[Topics]:
    made = Topics(kafka_servers)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which trip@1 answers size + 1."""
    made = tmp_path / "home"
    made.mkdir()
    route(made, version(1, bundle(tmp_path / "1", offset=1.0)))
    return made


def test_kill_9_at_any_point_of_a_transaction_neither_loses_nor_doubles_an_answer_or_a_log_line(
    home: Path, topics: Topics
) -> None:
    topics.send(*[row(n) for n in range(400)])
    for fault in ("during:stream:pending", "during:stream:committed", "during:stream:pending", "during:stream:committed"):
        assert life(home, topics, fault=fault).wait(60) == -signal.SIGKILL
    running = life(home, topics)
    try:
        assert ids(topics.read(topics.output, 400)) == list(range(400))
    finally:
        running.terminate()
        assert running.wait(30) == 0
    rows = logged(home)
    found = topics.read(topics.output, 400)
    assert sorted(rows["id"]) == sorted(json.loads(m.value() or b"")["id"] for m in found)
    assert rows["id"].n_unique() == 400
    assert [p.name for p in log_folder(home).glob("stream-*")] == []


def test_a_broker_that_dies_and_comes_back_is_gone_on_with(home: Path, tmp_path: Path, kafka_servers: str) -> None:
    assert kafka_servers
    folder = tmp_path / "broker"
    script = ["bash", str(SERVICES / "kafka.sh")]
    started = subprocess.run([*script, "start", str(folder)], capture_output=True, text=True, timeout=180)
    assert started.returncode == 0, started.stderr
    pid = int((folder / "server.pid").read_text())
    command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    lives: list[subprocess.Popen[bytes]] = []
    try:
        topics = Topics(started.stdout.strip())
        with streaming(home, topics, most=20) as (stream, _, _, _):
            topics.send(*[row(n) for n in range(100)])
            until(lambda: stream.flow.answered == 100, "the first are answered")
            # Once while it waits for messages, once in the middle of its work.
            for sent, busy in ((100, False), (200, True)):
                if busy:
                    topics.send(*[row(n) for n in range(sent + 100, sent + 1100)])
                    until(lambda: stream.flow.answered > 300, "it is at work")
                os.kill(pid, signal.SIGKILL)
                with (folder / "again.log").open("wb") as log:
                    lives.append(subprocess.Popen(command, stdout=log, stderr=log))
                pid = lives[-1].pid
                until(lambda: bool(topics.admin.list_topics(timeout=2).topics), "the broker is back", 120)
                topics.send(*[row(n) for n in range(sent, sent + 100)])
                until(lambda: stream.flow.answered >= (1300 if busy else 200), "it went on by itself", 45)  # noqa: B023
            assert ids(topics.read(topics.output, 1300, seconds=40)) == list(range(1300))
        assert logged(home)["id"].n_unique() == logged(home).height == 1300
    finally:
        for process in lives:
            process.kill()
            process.wait()
        subprocess.run([*script, "stop", str(folder)], timeout=60)
