"""``mlflow models serve`` with two workers, on a model that was logged as a function of Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import mlflow

from benchmarks.peers.serving_pipeline import scorer

__all__ = ["Model"]


class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers a frame with the graph."""

    def load_context(self, context: Any) -> None:
        """Read the graph."""
        del context
        self._score = scorer(Path(os.environ["SERVED"]), "onnx")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[float]:
        """Answer rows."""
        del context, params
        return self._score(model_input.to_dict("records"))


def _saved(folder: Path, given: str) -> Path:
    import pickle

    path = folder / f"mlflow-{given}"
    if not path.exists():
        if given == "onnx":
            mlflow.pyfunc.save_model(path, python_model=Model(), pip_requirements=[])
        else:
            pipeline = pickle.loads((folder / "pipeline.pickle").read_bytes())
            mlflow.sklearn.save_model(pipeline, path, pip_requirements=[], serialization_format="cloudpickle")
    return path


if __name__ == "__main__":
    folder, port, given = sys.argv[1:]
    model = _saved(Path(folder), given)
    environment = {**os.environ, "SERVED": folder, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    mlflow_command = str(Path(sys.executable).parent / "mlflow")
    where = ["models", "serve", "-m", str(model), "--env-manager", "local", "--workers", "2", "-h", "127.0.0.1", "-p", port]
    os.execve(mlflow_command, [mlflow_command, *where], environment)
