"""BentoML with adaptive batching: one service of two workers, which are given the rows of many requests at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.serving_pipeline import scorer

__all__ = ["Model"]


@bentoml.service(
    workers=2, traffic={"timeout": 30, "max_concurrency": 256}, metrics={"enabled": False}, logging={"access": {"enabled": False}}
)
class Model:
    """The service."""

    def __init__(self) -> None:
        self._score = scorer(Path(os.environ["SERVED"]), os.environ["GIVEN"])

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=100, max_latency_ms=60_000)
    def predict(self, rows: list[dict[str, Any]]) -> list[float]:
        """Answer rows."""
        return self._score(rows)


if __name__ == "__main__":
    folder, port, given = sys.argv[1:]
    os.environ.update(SERVED=folder, GIVEN=given, BENTOML_DO_NOT_TRACK="true", BENTOML_HOME=folder)
    bentoml_command = str(Path(sys.executable).parent / "bentoml")
    where = ["serve", "benchmarks.peers.serving_bentoml:Model", "--host", "127.0.0.1", "--port", port]
    os.execv(bentoml_command, [bentoml_command, *where])
