"""MLServer with adaptive batching and a runtime of our own for tables, as its manual shows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.serving_pipeline import scorer

__all__ = ["Table"]


class Table(MLModel):  # type: ignore[misc]
    """The runtime: a request's columns become a frame, and that the pipeline's."""

    async def load(self) -> bool:
        """Read the model."""
        given = os.environ["GIVEN"]
        self._score, self._whole = scorer(Path(os.environ["SERVED"]), given), given == "pipeline"
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer the rows of the requests that were put together."""
        frame = PandasCodec.decode_request(payload)
        found = np.array(self._score(frame if self._whole else frame.to_dict("records")))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("value", found.reshape(-1, 1))])


_MODEL = {
    "name": "model",
    "implementation": "benchmarks.peers.serving_mlserver.Table",
    "max_batch_size": 64,
    "max_batch_time": 0.005,
}

if __name__ == "__main__":
    folder, port, given = sys.argv[1:]
    os.environ.update(SERVED=folder, GIVEN=given)
    home = Path(folder) / f"mlserver-{given}"
    home.mkdir(exist_ok=True)
    (home / "model-settings.json").write_text(json.dumps(_MODEL))
    settings = {"host": "127.0.0.1", "http_port": int(port), "grpc_port": int(port) + 1, "metrics_port": int(port) + 2}
    settings |= {"parallel_workers": int(os.environ.get("WORKERS", "0")), "debug": False, "metrics_endpoint": None}
    (home / "settings.json").write_text(json.dumps(settings))
    mlserver_command = str(Path(sys.executable).parent / "mlserver")
    os.execve(mlserver_command, [mlserver_command, "start", str(home)], {**os.environ, "PYTHONPATH": str(Path.cwd())})
