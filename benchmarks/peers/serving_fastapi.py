"""FastAPI as its users serve a pipeline: an application made once in each of two worker processes of uvicorn."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Body, FastAPI

from benchmarks.peers.serving_pipeline import scorer

__all__ = ["application"]


def application() -> FastAPI:
    """Make the application in a worker."""
    score, app = scorer(Path(os.environ["SERVED"]), os.environ["GIVEN"]), FastAPI()

    @app.post("/predict")
    async def predict(rows: list[dict[str, Any]] = Body(embed=True)) -> dict[str, list[float]]:
        return {"predictions": score(rows)}

    return app


if __name__ == "__main__":
    folder, port, given = sys.argv[1:]
    os.environ.update(SERVED=folder, GIVEN=given)
    uvicorn.run(
        "benchmarks.peers.serving_fastapi:application", factory=True, host="127.0.0.1", port=int(port), workers=2,
        loop="uvloop", http="httptools", log_level="warning", access_log=False,
    )  # fmt: skip
