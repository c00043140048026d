"""The online store stops and comes back: models without joins go on, the log keeps, the others recover by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_parts import bundle, route, row, version
from tests.ports import free_port

from mulle.adapters.online.redis import RedisOnline
from mulle.core.errors import MulleError, Unavailable
from mulle.core.hashing import hash_folder
from mulle.core.records.bundle import Contract
from mulle.core.settings import Settings
from mulle.lifecycle.features.read import OnlineReader
from mulle.lifecycle.serving.log import log_folder, read_records
from mulle.lifecycle.serving.rows import prediction_rows
from mulle.lifecycle.serving.runtime import Runtime

JOIN = {"name": "rate", "kind": "lookup", "dataset": "rates", "table": "rates", "on": ["kind"], "columns": {"value": "Float64"}}


class Redis:
    """A real server of this test's own."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--save", "", "--dir", str(self._folder), "--loglevel", "warning"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        store = RedisOnline(f"redis://127.0.0.1:{self.port}/0")
        end = time.monotonic() + 20
        while True:
            try:
                store.put("rates", [("a", 0, {"value": 10.0})])
                break
            except MulleError:
                assert time.monotonic() < end, "redis did not start"
                time.sleep(0.02)
        store.close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        if os.environ.get("MULLE_TEST_REDIS"):
            pytest.fail("MULLE_TEST_REDIS is set, and there is no redis-server to stop and start")
        pytest.skip("redis-server is not installed")
    made = Redis(tmp_path)
    made.start()
    yield made
    made.stop()


def joined(folder: Path) -> tuple[str, Path]:
    _, made = bundle(folder, model="joined")
    path = made / "transform" / "project.py"
    path.write_text(
        path.read_text().replace('size=pl.col("size") + boom', 'size=pl.col("size") + pl.col("rate.value").fill_null(0)')
    )
    contract = json.loads((made / "bundle.json").read_text())
    contract["joins"] = [JOIN]
    contract["transform"]["hash"] = "joined"
    (made / "bundle.json").write_text(json.dumps(contract))
    return hash_folder(made), made


def test_a_store_that_stops_and_comes_back(redis: Redis, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    route(home, version(1, bundle(tmp_path / "plain")))
    route(home, version(1, joined(tmp_path / "joined")), model="joined")
    online = RedisOnline(f"redis://127.0.0.1:{redis.port}/0", readonly=True)

    def joiner(contract: Contract) -> OnlineReader:
        return OnlineReader(online, contract.joins)

    async def play() -> list[str]:
        server = Runtime(Settings(home=home).resolved(), joiner)
        await server.start()
        given: list[str] = []

        async def ask(model: str) -> Any:
            (answer,) = await server.submit(model, [row()], f"r{len(given)}", None, time.perf_counter())
            given.append(answer["id"])
            return answer

        assert (await ask("joined"))["value"] == 12.0
        redis.stop()
        for _ in range(3):
            waiting = asyncio.ensure_future(ask("joined"))
            assert (await ask("trip"))["value"] == 2.0
            with pytest.raises(Unavailable) as away:
                await waiting
            assert "online store" in away.value.detail
            assert away.value.retryable
        redis.start()
        await until(lambda: ask("joined"), 12.0)
        assert (await ask("trip"))["value"] == 2.0
        await server.stop()
        return given

    given = asyncio.run(play())
    found = [r.payload for p in log_folder(home).glob("predictions-*.seg") for r in read_records(p.read_bytes())]
    assert set(given) <= set(prediction_rows(found)["id"]), "what was answered is in the log"


async def until(ask: Callable[[], Any], value: float) -> None:
    end = time.monotonic() + 15
    while True:
        try:
            assert (await ask())["value"] == value
            return
        except Unavailable:
            assert time.monotonic() < end, "it did not recover"
            await asyncio.sleep(0.05)
