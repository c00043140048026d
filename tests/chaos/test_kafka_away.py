"""The broker dies while a topic feeds a model, and comes back: each message is in the lake once. ``AWAY=60``: for a minute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from test_streaming import PROJECT, STATIONS, Platform, Weather, a_past, until

SERVICE = Path(__file__).parents[1] / "services" / "kafka.sh"
AWAY = float(os.environ.get("AWAY", "5"))


class Broker:
    """A broker of one's own, which can be killed and started again with what it kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        done = subprocess.run([SERVICE, "start", folder], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 2:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        self.servers, self._pid = done.stdout.strip(), int((folder / "server.pid").read_text())
        self._command = Path(f"/proc/{self._pid}/cmdline").read_bytes().decode().split("\0")[:-1]

    def kill(self) -> None:
        os.kill(self._pid, 9)
        until(lambda: not Path(f"/proc/{self._pid}/cmdline").exists() or not _words(self._pid), "the broker is dead", 30)

    def again(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        self._pid = process.pid
        (self.folder / "server.pid").write_text(str(self._pid))


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def flushed(weather: Weather) -> bool:
    try:
        weather.flush()
    except AssertionError:
        return False
    return True


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if not os.environ.get("MULLE_TEST_KAFKA"):
        pytest.skip("MULLE_TEST_KAFKA is not set")
    assert shutil.which("java")
    made = Broker(tmp_path / "kafka")
    yield made
    subprocess.run([SERVICE, "stop", made.folder], check=False, timeout=60)


def test_each_message_is_there_once_when_the_broker_was_away(broker: Broker, tmp_path: Path) -> None:
    weather, folder = Weather(broker.servers), tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT.format(topic=weather.name))
    a_past(weather, folder)
    platform = Platform(folder, broker.servers, f"lmdb://{folder / '.mulle' / 'online.lmdb'}")
    done = subprocess.run(
        [sys.executable, "-m", "mulle", "run", "delay"], cwd=folder, env=platform.environment, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    try:
        with suppress(AssertionError):  # a loaded machine takes longer
            platform.up()
        until(platform.ready, "mulle up answers", 180)
        for number in range(600):
            weather.reading(STATIONS[number % 3], 1000.0 + number)
        weather.flush()
        until(lambda: len(platform.in_lake()) >= weather.sent, "all is in the lake", 180)
        broker.kill()
        end, answered = time.monotonic() + AWAY, 0
        while time.monotonic() < end:
            platform.predict("a")
            answered += 1
            time.sleep(0.1)
        assert answered > 1, "it answers without the broker"
        broker.again()
        for number in range(600):
            weather.reading(STATIONS[number % 3], 2000.0 + number)
        until(lambda: flushed(weather), "the broker takes messages again", 120)
        until(lambda: len(platform.in_lake()) >= weather.sent, "all that came later is in the lake", 240)
        assert sorted(platform.in_lake()) == list(range(weather.sent))
        until(lambda: platform.features("a")["now.wind"] >= 2000, "an answer has the newest reading", 120)
    finally:
        platform.down()
