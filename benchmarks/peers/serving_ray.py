"""Ray Serve with batching: two replicas behind its proxy, each given the rows of many requests at once."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

__all__ = ["Model"]


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Model:
    """The deployment."""

    def __init__(self, folder: str, given: str) -> None:
        from benchmarks.peers.serving_pipeline import scorer

        self._score = scorer(Path(folder), given)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def answer(self, requests: list[list[dict[str, Any]]]) -> list[list[float]]:
        """Answer requests that were put together."""
        found = iter(self._score([row for rows in requests for row in rows]))
        return [[next(found) for _ in rows] for rows in requests]

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """Answer one request."""
        return {"predictions": await self.answer((await request.json())["rows"])}


if __name__ == "__main__":
    folder, port, given = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    environment = {"env_vars": {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)}, proxy_location="HeadOnly")
    serve.run(Model.bind(folder, given), route_prefix="/predict")
    asyncio.run(asyncio.Event().wait())
