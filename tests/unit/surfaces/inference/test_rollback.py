"""A rollback under load: one pointer move that every worker has taken up within a second, and no request fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from serving_parts import bundle, row
from test_workers import children, workers

from mulle.bootstrap.parts import wire
from mulle.core.clock import instant
from mulle.core.records.base import Cause
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.settings import load_settings
from mulle.loop.operate import deploy, rollback
from mulle.loop.parts import Parts

PROJECT = """import mulle as ml
trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome="y")
@ml.features(trips)
def shape(rows):
    return rows.select("size", "kind")
trip = ml.Model("trip", features=shape, target="y", task="regression", rollout=ml.immediate(watch="1d"))
"""


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A project with two registered versions; the second answers one more."""
    (tmp_path / "project.py").write_text(PROJECT)
    parts = wire(load_settings({"project": tmp_path}, {}))
    now, why = instant("2013-01-01"), (Cause(type="person", id="ada", why="asked"),)
    for number in (1, 2):
        made, folder = bundle(tmp_path / f"b{number}", offset=float(number))
        parts.metadata.models.add(
            ModelVersion(
                id=f"v{number}", created_at=now, causes=why, model="trip", version=number, run=f"r{number}", bundle=made,
                address=str(folder), compiled="onnx", parity=Parity(tolerance=1e-4, scale=1.0, rows=1, worst=0.0, outside=0.0),
                metrics={}, size_bytes=1, features=("size", "kind"), data={}, data_cutoff=now, refit_cutoff=now,
            )
        )  # fmt: skip
    deploy(parts, "trip", 1, by="ada")
    yield parts
    parts.online.close()


def test_a_rollback_reaches_every_worker_within_a_second_and_fails_nobody(parts: Parts) -> None:
    answered: list[tuple[float, int]] = []
    failed: list[str] = []
    stop = threading.Event()
    with workers(parts.settings.home, 3) as server:

        def ask(client: int) -> None:
            number = 0
            while not stop.is_set():
                # A connection of its own each time, so that all workers are asked.
                connection = server.connect()
                for _ in range(5):
                    number += 1
                    asked = time.monotonic()
                    try:
                        answer = server.predict(row(client * 1_000_000 + number), over=connection)
                    except (OSError, HTTPException) as error:
                        failed.append(repr(error))
                        break
                    if answer.status == 200:
                        answered.append((asked, answer.json["predictions"][0]["version"]))
                    else:
                        failed.append(f"{answer.status} {answer.body[:200]!r}")
                connection.close()

        clients = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
        for client in clients:
            client.start()
        try:
            wait_for(answered, 1)
            deploy(parts, "trip", 2, by="ada")
            wait_for(answered, 2)
            began = time.monotonic()
            made = rollback(parts, "trip", by="ada")
            recorded = time.monotonic()
            time.sleep(2.0)  # how long it takes is what is asked
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert len(children(server)) == 3
    assert failed == []
    assert (made.action, made.from_version, made.to_version) == ("rollback", 2, 1)
    late = [asked - began for asked, version in answered if version == 2 and asked > began]
    assert max(late, default=0.0) < 1.0, f"the last of {len(late)} answers by the old route was asked for {max(late):.2f} s after"
    assert len([asked for asked, version in answered if version == 1 and asked > recorded]) > 50


def wait_for(answered: list[tuple[float, int]], version: int) -> None:
    """Wait until the last answers were all of a version."""
    deadline = time.monotonic() + 30
    while {v for _, v in answered[-30:]} != {version}:
        assert time.monotonic() < deadline, f"version {version} does not answer"
        time.sleep(0.02)
